"""Names of a schema that mean another thing in Python."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamkit.scaffold.generate import generate
from tests.cli.tools import invoke
from tests.scaffold.test_generate import python, refusal, schema


def test_requests_are_called_what_a_call_is_told_beside_them(tmp_path: Path) -> None:
    """Each would be an argument's name twice: a module that nobody can import."""
    schema(
        tmp_path / "protos",
        args="""
            package args;
            message Metadata { string a = 1; }
            message Timeout { string a = 1; }
            message Self { string a = 1; }
            message Deadline { string a = 1; }
            service Get {
              rpc A(Metadata) returns (Timeout);
              rpc B(Timeout) returns (stream Metadata);
              rpc C(Self) returns (Self);
              rpc D(stream Deadline) returns (Deadline);
              rpc E(Deadline) returns (Deadline);
            }
        """,
    )
    generate([tmp_path / "protos"], tmp_path / "src")
    said = python(
        """
        import asyncio, streamkit, args

        class Get(args.GetBase):
            async def a(self, metadata_):
                return args.Timeout(metadata_.a + streamkit.context().metadata["x"])
            async def b(self, timeout_):
                yield args.Metadata(timeout_.a)
            async def c(self, self_):
                return self_
            async def e(self, deadline_):
                return deadline_

        async def main():
            async with streamkit.Server([Get()], port=0) as server:
                async with streamkit.Channel(server.address) as channel:
                    stub = args.GetStub(channel)
                    print(await stub.a(args.Metadata("a"), metadata={"x": "y"}, timeout=9))
                    print([one async for one in stub.b(args.Timeout("b"), timeout=9)])
                    print(await stub.c(args.Self("c")), await stub.e(args.Deadline("e")))

        asyncio.run(main())
        """,
        tmp_path / "src",
    )
    assert said.splitlines() == [
        "Timeout(a='ay')",
        "[Metadata(a='b')]",
        "Self(a='c') Deadline(a='e')",
    ]


def test_fields_may_have_the_names_of_types(tmp_path: Path) -> None:
    schema(
        tmp_path / "protos",
        kinds="""
            package kinds;
            message M { int32 bytes = 1; bytes b = 2; bool float = 3; float f = 4; bool str = 5;
                        string s = 6; bool list = 7; repeated M more = 8; int32 parse = 9; }
        """,
    )
    generate([tmp_path / "protos"], tmp_path / "src")
    said = python(
        """
        from kinds import M
        from streamkit.codec import decode, encode, from_json, to_json
        m = M(1, b"x", True, 0.5, True, "s", True, [M(2)], 3)
        print(decode(M, encode(m)) == m == from_json(M, to_json(m)))
        """,
        tmp_path / "src",
    )
    assert said == "True\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "message M { string betterproto = 1; int32 x = 2; }",
            "M.betterproto: a field of that name hides what other fields need",
        ),
        (
            "package one.class; message M {}",
            'the package one.class cannot be imported: "class" is a word of Python',
        ),
    ],
)
def test_what_nobody_could_import_is_refused(text: str, said: str, tmp_path: Path) -> None:
    error = refusal(schema(tmp_path / "protos", shop=text), tmp_path / "src")
    assert said in str(error)
    assert error.hint
    assert not (tmp_path / "src").exists()


def test_a_package_that_hides_another_is_told(tmp_path: Path) -> None:
    schema(tmp_path / "protos", calendar="package calendar; message Day {}")
    out = tmp_path / "src"
    done = invoke("gen", str(tmp_path / "protos"), "--out", str(out))
    assert done.returncode == 0
    assert re.search(r"calendar hides another calendar where .*src is on Python", done.stderr)


def test_a_file_that_is_no_text_is_one_line_without_what_protoc_tells_itself(
    tmp_path: Path,
) -> None:
    (tmp_path / "shop.proto").write_bytes(b"\xff\xfe")
    error = refusal(tmp_path, tmp_path / "src")
    assert "shop.proto:1:1" in str(error)
    assert "WARNING" not in error.hint and "absl" not in error.hint
