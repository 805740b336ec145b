"""`streamkit gen`: what it writes, that it can be used, and what it says to each mistake."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from streamkit.errors import InvalidArgumentError, PreconditionError
from streamkit.scaffold import generate as module
from streamkit.scaffold.generate import generate
from tests.cli.tools import COMMAND, environment, streamkit

SHOP = """
syntax = "proto3";
package shop;
import "google/protobuf/empty.proto";
import "google/protobuf/timestamp.proto";

// The orders of one shop.
service Orders {
  // Every order from now on.
  rpc Watch(Place) returns (stream Order);
  rpc Clear(google.protobuf.Empty) returns (google.protobuf.Empty);
  rpc Put(stream Order) returns (Order);
  rpc Talk(stream Order) returns (stream Order);
}

message Place { string epoch = 1; uint64 after = 2; }

message Order {
  enum State { NEW = 0; DONE = 1; }
  uint64 number = 1;
  map<string, int32> counts = 2;
  google.protobuf.Timestamp at = 3;
  oneof pay { string card = 4; int64 cash = 5; }
  State state = 6;
}
"""


def schema(folder: Path, **files: str) -> Path:
    """Write `NAME=text` as NAME.proto; two underscores stand for a folder."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".proto")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.lstrip().startswith("syntax") else _proto(text))
    return folder


def _proto(text: str) -> str:
    return 'syntax = "proto3";\n' + textwrap.dedent(text)


def python(code: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(folder: Path, out: Path, **options: list[Path]) -> InvalidArgumentError:
    with pytest.raises(InvalidArgumentError) as caught:
        generate([folder], out, include=options.get("include", ()))
    assert "\n" not in str(caught.value)
    assert not out.exists() or not list(out.rglob("*.new"))
    return caught.value


def test_a_package_has_messages_services_descriptors_and_types(tmp_path: Path) -> None:
    made = generate([schema(tmp_path / "protos", shop=SHOP)], tmp_path / "src")
    assert made.packages == ("shop",)
    assert [str(path) for path in made.changed] == [
        "shop/__init__.py",
        "shop/descriptors.binpb",
        "shop/py.typed",
    ]
    said = python(
        """
        import shop
        print(*shop.__all__)
        comment = b"Every order from now on."
        print(bytes(shop.Order(number=3, cash=5)).hex(), comment in shop.DESCRIPTORS)
        """,
        tmp_path / "src",
    )
    assert said.splitlines() == [
        "DESCRIPTORS Order OrderState OrdersBase OrdersStub OrdersSyncStub Place",
        "08032805 True",
    ]


def test_the_first_oneof_stays_one(tmp_path: Path) -> None:
    """Its index is zero, which betterproto does not write back once it has read it."""
    generate([schema(tmp_path / "protos", shop=SHOP)], tmp_path / "src")
    code = (tmp_path / "src/shop/__init__.py").read_text()
    assert 'card: str = betterproto.string_field(4, group="pay")' in code
    described = (tmp_path / "src/shop/descriptors.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(described)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    order = pool.FindMessageTypeByName("shop.Order")
    assert [one.name for one in order.oneofs_by_name["pay"].fields] == ["card", "cash"]


def test_a_second_run_changes_no_byte_and_check_tells_what_is_stale(tmp_path: Path) -> None:
    protos = schema(tmp_path / "protos", shop=SHOP)
    out = tmp_path / "src"
    assert generate([protos], out, write=False).changed
    assert not out.exists()
    generate([protos], out)
    assert generate([protos], out).changed == ()
    assert streamkit("gen", str(protos), "--out", str(out), "--check").returncode == 0
    schema(protos, shop=SHOP.replace("uint64 number", "uint32 number"))
    stale = streamkit("gen", str(protos), "--out", str(out), "--check")
    assert stale.returncode == 1
    assert "shop/__init__.py: is not up to date" in stale.stderr
    assert "uint64_field(1)" in (out / "shop/__init__.py").read_text()


def test_reflection_describes_a_generated_service_without_being_told(tmp_path: Path) -> None:
    generate([schema(tmp_path / "protos", shop=SHOP)], tmp_path / "src")
    said = python(
        """
        import asyncio, streamkit
        from shop import OrdersBase
        from streamkit.codec import StreamkitCodec
        from streamkit.generated.grpc.reflection.v1 import (
            ServerReflectionRequest as Request, ServerReflectionStub as Stub)

        async def main():
            async with streamkit.Server([OrdersBase()], port=0) as server:
                async with streamkit.Channel(server.address, codec=StreamkitCodec()) as channel:
                    asked = [Request(file_containing_symbol="shop.Orders.Watch")]
                    async for answer in Stub(channel).server_reflection_info(asked):
                        files = answer.file_descriptor_response.file_descriptor_proto
                        print(any(b"shop.proto" in file for file in files))

        asyncio.run(main())
        """,
        tmp_path / "src",
    )
    assert said == "True\n"


def test_nested_packages_import_each_other(tmp_path: Path) -> None:
    protos = schema(
        tmp_path / "protos",
        common__money="package common; message Money { string currency = 1; }",
        shop__v1__cart="""
            package shop.v1;
            import "common/money.proto";
            message Cart { common.Money total = 1; repeated Cart inner = 2; }
        """,
    )
    made = generate([protos], tmp_path / "code" / "wire")
    assert made.packages == ("wire.common", "wire.shop.v1")
    said = python(
        """
        from wire.common import Money
        from wire.shop.v1 import Cart
        print(Cart().parse(bytes(Cart(total=Money("EUR"), inner=[Cart()]))))
        """,
        tmp_path / "code",
    )
    assert said.strip() == "Cart(total=Money(currency='EUR'), inner=[Cart()])"


def test_no_package_and_names_that_python_keeps_for_itself(tmp_path: Path) -> None:
    protos = schema(
        tmp_path / "protos",
        plain="""
            message class { string from = 1; repeated int32 import = 2; bool None = 3; }
            message List { repeated string list = 1; }
            service Metadata { rpc Metadata(List) returns (List); }
        """,
    )
    generate([protos], tmp_path / "code" / "wire")
    said = python(
        "import wire; print(wire.Class(from_='x', import_=[1]), wire.List(list=['a']))",
        tmp_path / "code",
    )
    assert said.strip() == "Class(from_='x', import_=[1]) List(list=['a'])"


@pytest.mark.parametrize(
    ("files", "said", "hint"),
    [
        pytest.param(
            {"shop": "package shop; message A { Order order = 1; }"},
            'shop.proto:2:27: "Order" is not defined.',
            "",
            id="an unknown name has file, line and column",
        ),
        pytest.param(
            {"shop": 'import "other/money.proto"; message A { Money total = 1; }'},
            "other/money.proto: File not found",
            "name the folder of its imports with --include",
            id="a missing import says where was looked",
        ),
        pytest.param(
            {"shop": 'syntax = "proto2"; message A { required string b = 1; }'},
            "shop.proto: written in proto2, and only proto3 is supported",
            'syntax = "proto3";',
            id="proto2",
        ),
        pytest.param(
            {"shop": "message A { string b = 1; int32 c = 1; } message A {}"},
            'shop.proto:2:50: "A" is already defined.',
            "",
            id="two complaints",
        ),
        pytest.param(
            {"shop": "message Order { message State {} } message OrderState {}"},
            "two names of the schema become one in Python: OrderState",
            "rename one of them",
            id="two messages that become one",
        ),
    ],
)
def test_what_is_wrong_with_a_schema_is_one_readable_line(
    files: dict[str, str], said: str, hint: str, tmp_path: Path
) -> None:
    error = refusal(schema(tmp_path / "protos", **files), tmp_path / "src")
    assert said in str(error)
    assert hint in error.hint
    assert not (tmp_path / "src").exists()


def test_a_second_run_with_other_files_of_one_package_does_not_clobber(tmp_path: Path) -> None:
    protos = schema(
        tmp_path / "protos",
        a="package shop; message A {}",
        b="package shop; message B {}",
    )
    out = tmp_path / "src"
    generate([protos / "a.proto"], out)
    with pytest.raises(InvalidArgumentError, match=r"holds a\.proto as well"):
        generate([protos / "b.proto"], out)
    assert "class A(" in (out / "shop/__init__.py").read_text()
    assert generate([protos], out).changed


def test_a_module_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    protos = schema(tmp_path / "protos", shop=SHOP)
    mine = tmp_path / "src" / "shop" / "__init__.py"
    mine.parent.mkdir(parents=True)
    mine.write_text("PRICE = 3\n")
    with pytest.raises(InvalidArgumentError, match="would be lost"):
        generate([protos], tmp_path / "src")
    assert mine.read_text() == "PRICE = 3\n"
    assert list(mine.parent.iterdir()) == [mine]


@pytest.mark.parametrize("given", ["nothing.proto", "shop.txt", "empty"])
def test_what_is_no_schema_is_refused_by_its_name(given: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "shop.txt").write_text("")
    done = streamkit("gen", str(tmp_path / given), "--out", str(tmp_path / "src"))
    assert done.returncode == 2
    assert given in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_the_extra_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(PreconditionError) as caught:
        generate([schema(tmp_path, shop=SHOP)], tmp_path / "src")
    assert caught.value.hint == "pip install 'streamkit-grpc[gen]'"


async def test_watch_generates_again_after_a_change_and_outlives_a_mistake(tmp_path: Path) -> None:
    protos = schema(tmp_path / "protos", shop=SHOP)
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "gen", str(protos), "--out", str(tmp_path / "src"), "--watch",
        stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            seen = ""
            for text, expected in (
                (SHOP, "py.typed: written"),
                (SHOP.replace("Place)", "Plaice)"), '"Plaice" is not defined'),
                (SHOP.replace("uint64 number", "uint32 number"), "binpb: written"),
            ):
                schema(protos, shop=text)
                while expected not in seen:
                    seen = (await process.stderr.readline()).decode()
                    assert seen
    finally:
        process.terminate()
        await process.wait()
    assert process.returncode == 143


def test_json_has_the_names_of_the_schema(tmp_path: Path) -> None:
    protos = schema(
        tmp_path / "protos",
        colours="enum Colour { COLOUR_RED = 0; COLOUR_BLUE = 1; } message Pot { int32 aB = 1; }",
        shop="""
            package shop;
            import "colours.proto";
            message Pot { Colour colour = 1; string sha_256 = 2; map<string, Inner> x_1_y = 3;
                          message Inner { string md5sum = 1; } Pot other = 4; .Pot plain = 5; }
        """,
    )
    generate([protos], tmp_path / "code" / "wire")
    said = python(
        """
        from wire import Colour, Pot as Plain
        from wire.shop import Pot, PotInner
        pot = Pot(Colour.BLUE, "f", {"a": PotInner("m")}, plain=Plain(1))
        text = pot.to_json()
        print(text, Pot().from_json(text) == pot)
        """,
        tmp_path / "code",
    )
    assert said.strip() == (
        '{"colour": "COLOUR_BLUE", "sha256": "f", "x1Y": {"a": {"md5sum": "m"}},'
        ' "plain": {"aB": 1}} True'
    )


SERVICE = """
from collections.abc import AsyncIterator, Sequence

import streamkit
from shop import Order, OrdersBase, OrdersStub, Place


class Orders(OrdersBase):
    async def watch(self, place: Place) -> AsyncIterator[Order]:
        BODY


async def use(channel: streamkit.Channel, places: Sequence[Order]) -> Order:
    stub = OrdersStub(channel, timeout=3)
    async for order in streamkit.resume(stub.watch, Place(), position="epoch,after"):
        print(order.number)
    async for order in stub.talk(places, metadata={"a": "b"}):
        return order
    return await stub.put(places)


def script(client: streamkit.Client, places: Sequence[Order]) -> int:
    stub = client.stub(OrdersStub, timeout=3)
    for order in stub.watch(Place(), metadata={"a": "b"}):
        print(order.number)
    with stub.talk(places) as replies:
        for reply in replies:
            return reply.number
    return stub.put(iter(places)).number
"""

WRONG = """
import streamkit
from shop import OrdersStub, Place


def script(client: streamkit.Client) -> str:
    stub = client.stub(OrdersStub)
    for order in stub.watch("a place"):
        print(order.nothing)
    return stub.put([])
"""


def test_the_generated_code_and_a_service_on_it_are_clean_for_both_type_checkers(
    tmp_path: Path,
) -> None:
    src = tmp_path / "src"
    generate([schema(tmp_path / "protos", shop=SHOP)], src)
    for name, body in (
        ("good", "yield Order(number=place.after)"),
        ("forgotten", "print(place)"),
        ("other", "yield place"),
    ):
        (src / f"{name}.py").write_text(SERVICE.replace("BODY", body))
    (src / "wrong.py").write_text(WRONG)
    (src / "pyproject.toml").write_text('[tool.basedpyright]\ntypeCheckingMode = "standard"\n')
    files = ["good.py", "forgotten.py", "other.py", "wrong.py", "shop"]
    mypy = subprocess.Popen(
        [sys.executable, "-m", "mypy", "--strict", *files, "--cache-dir=/dev/null"],
        cwd=src, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    pyright = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, *files],
        cwd=src, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said, _ = mypy.communicate()
    found = re.findall(r"^(\w+).*?: error: .*\[([\w-]+)\]$", said, re.MULTILINE)
    assert set(found) == {
        *(("forgotten", code) for code in ("return", "override")),
        ("other", "misc"),
        *(("wrong", code) for code in ("arg-type", "attr-defined", "return-value")),
    }, said
    lines = re.findall(r"src/(\w+).*? - error: ", pyright.stdout)
    assert set(lines) == {"forgotten", "other", "wrong"}, pyright.stdout
    assert lines.count("wrong") == 3, pyright.stdout
