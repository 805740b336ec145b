"""Every malformed request ends, with the status that the specifications name."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.transport.conftest import Dial, Serve
from tests.transport.raw import PUBLISH, SUBSCRIBE, WRITE, Fields, message
from tests.transport.services import ask

OK, UNKNOWN, INVALID, DEADLINE, EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 2, 3, 4, 8, 12, 13
PROTOCOL_ERROR = 1


@dataclass
class Case:
    """One request: changes to a good header list, a body, and the end it must meet."""

    name: str
    status: int | None = None
    http: str = "200"
    reset: int | None = None
    path: str = SUBSCRIBE
    replace: dict[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    front: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None

    def fields(self) -> Fields:
        good = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", self.path),
            (":authority", "x"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        kept = [(k, self.replace.get(k, v)) for k, v in good if k not in self.drop]
        return [*self.front, *kept, *self.add]


GOOD = message(ask("count:2"))


def cases() -> list[Case]:
    found = [
        Case("good", OK),
        # Pseudo-headers: what HTTP/2 calls malformed is a stream error.
        *(Case(f"no {name}", reset=PROTOCOL_ERROR, drop=(name,)) for name in _PSEUDO),
        *(Case(f"two {n}", reset=PROTOCOL_ERROR, front=((n, "x"),)) for n in _PSEUDO),
        *(Case(f"late {n}", reset=PROTOCOL_ERROR, drop=(n,), add=((n, "/"),)) for n in _PSEUDO),
        Case("no :authority", OK, drop=(":authority",)),
        Case("empty :path", reset=PROTOCOL_ERROR, replace={":path": ""}),
        Case("unknown pseudo-header", reset=PROTOCOL_ERROR, front=((":secret", "x"),)),
        Case(":status in a request", reset=PROTOCOL_ERROR, front=((":status", "200"),)),
        Case(":protocol in a request", reset=PROTOCOL_ERROR, front=((":protocol", "ws"),)),
        # Field names and values.
        *(
            Case(f"field name {n!r}", reset=PROTOCOL_ERROR, add=((n, "x"),))
            for n in (
                "X-Upper",
                "a b",
                "a:b",
                "a\tb",
                "a\x00b",
                "caf\xe9",
                "a\x7fb",
                "",
                "a(b",
                "a,b",
            )
        ),
        *(
            Case(f"field value {v!r}", reset=PROTOCOL_ERROR, add=(("x-value", v),))
            for v in ("a\rb", "a\nb", "a\x00b", "\r\n", "a\r\nset-cookie: b")
        ),
        *(
            Case(f"connection field {n}", reset=PROTOCOL_ERROR, add=((n, "x"),))
            for n in (
                "connection",
                "proxy-connection",
                "keep-alive",
                "transfer-encoding",
                "upgrade",
            )
        ),
        *(
            Case(f"unusual value {v!r}", OK, add=(("x-value", v),))
            for v in ("caf\xe9", "\xff\xfe", "a\tb", "", "\x80", "\x1b[2J")
        ),
        # Method, content-type, te.
        *(
            Case(f"method {m}", INTERNAL, "405", replace={":method": m})
            for m in ("GET", "PUT", "HEAD", "OPTIONS", "DELETE", "post", "PRI")
        ),
        Case("no content-type", UNKNOWN, "415", drop=("content-type",)),
        *(
            Case(f"content-type {t!r}", UNKNOWN, "415", replace={"content-type": t})
            for t in (
                "",
                "text/plain",
                "application/json",
                "application/grpcx",
                "application/grpc-web",
                "application/grpc-web+proto",
                "application/grpc+json",
                "application/grpc+",
                "grpc",
            )
        ),
        *(
            Case(f"content-type {t!r}", OK, replace={"content-type": t})
            for t in (
                "application/grpc",
                "application/grpc+proto",
                "application/grpc;charset=utf-8",
                "Application/gRPC+proto",
            )
        ),
        Case("no te", INTERNAL, "400", drop=("te",)),
        *(Case(f"te {t!r}", INTERNAL, "400", replace={"te": t}) for t in ("", "gzip", "chunked")),
        # Paths.
        *(
            Case(f"path {p!r}", UNIMPLEMENTED, replace={":path": p})
            for p in (
                "/",
                "*",
                "//",
                "/x",
                "/x/y",
                "/x/y/z",
                "streamservice.StreamService/SubscribeToUpdates",
                "/streamservice.StreamService/subscribe_to_updates",
                "/streamservice.StreamService/SubscribeToUpdates/",
                "/streamservice.StreamService/SubscribeToUpdates?a=1",
                "/STREAMSERVICE.StreamService/SubscribeToUpdates",
                "/streamservice.StreamService/" + "x" * 2000,
                "/../../etc/passwd",
                "http://x/streamservice.StreamService/SubscribeToUpdates",
            )
        ),
        # Timeouts.
        *(
            Case(f"grpc-timeout {t!r}", INTERNAL, add=(("grpc-timeout", t),))
            for t in (
                "",
                "1",
                "S",
                "1s",
                "1 S",
                "-1S",
                "+1S",
                "1.5S",
                "1e3S",
                "0x1S",
                "123456789S",
                "999999999999999999999999S",
                "1SS",
                "1D",
                "\xb2S",
                "NaNS",
            )
        ),
        *(
            Case(f"grpc-timeout {t}", DEADLINE, add=(("grpc-timeout", t),))
            for t in ("0S", "0n", "00000000H", "1n", "0m")
        ),
        *(
            Case(f"grpc-timeout {t}", OK, add=(("grpc-timeout", t),))
            for t in ("99999999H", "99999999S", "5S", "60000m", "1M", "1H", "99999999u")
        ),
        Case("two timeouts", DEADLINE, add=(("grpc-timeout", "1H"), ("grpc-timeout", "0S"))),
        Case("second timeout bad", INTERNAL, add=(("grpc-timeout", "1H"), ("grpc-timeout", "x"))),
        # Binary metadata.
        *(
            Case(f"-bin {v!r}", INTERNAL, add=(("x-bin", v),))
            for v in ("!", "a", "ab cd", "YQ\xe9", "=a=", "YWI_", "YQ==YQ", "YQ==,!", "abcde")
        ),
        *(
            Case(f"-bin {v!r}", OK, add=(("x-bin", v),))
            for v in ("", "YQ", "YQ==", "YWI", "YWI=", "YWJj", "YQ,YQ==", "YQ, YWI=")
        ),
        Case("grpc-trace-bin bad", OK, add=(("grpc-trace-bin", "!"),)),
        # Header size.
        Case("17 KiB of headers", EXHAUSTED, add=(("x-big", "x" * 17_000),)),
        Case("many headers", EXHAUSTED, add=tuple((f"x-{i}", "y") for i in range(500))),
        Case("15 KiB of headers", OK, add=(("x-big", "x" * 15_000),)),
        # Encodings.
        *(
            Case(f"grpc-encoding {e!r}", UNIMPLEMENTED, add=(("grpc-encoding", e),))
            for e in ("br", "zstd", "snappy", "GZIP", "gzip,gzip", "x" * 500)
        ),
        *(
            Case(f"grpc-encoding {e!r}", OK, add=(("grpc-encoding", e),))
            for e in ("identity", "gzip", "deflate", "")
        ),
    ]
    gz = (("grpc-encoding", "gzip"),)
    good = ask("count:1")
    found += [
        Case("gzip message", OK, add=gz, body=message(gzip.compress(good), 1)),
        Case(
            "deflate", OK, add=(("grpc-encoding", "deflate"),), body=message(zlib.compress(good), 1)
        ),
        Case("gzip, uncompressed message", OK, add=gz, body=message(good)),
        Case("flag without encoding", INTERNAL, body=message(gzip.compress(good), 1)),
        Case(
            "flag with identity",
            INTERNAL,
            add=(("grpc-encoding", "identity"),),
            body=message(good, 1),
        ),
        Case("gzip of garbage", INTERNAL, add=gz, body=message(b"garbage", 1)),
        Case("gzip truncated", INTERNAL, add=gz, body=message(gzip.compress(good * 50)[:-9], 1)),
        Case("gzip empty", INTERNAL, add=gz, body=message(b"", 1)),
        Case("gzip bomb", EXHAUSTED, add=gz, body=message(gzip.compress(bytes(5 << 20)), 1)),
        Case("deflate as gzip", INTERNAL, add=gz, body=message(zlib.compress(good), 1)),
        # Message framing.
        *(Case(f"flag {f}", INTERNAL, body=message(good, f)) for f in (2, 3, 127, 128, 255)),
        *(Case(f"cut after {n} bytes", INTERNAL, body=GOOD[:n]) for n in range(1, len(GOOD))),
        Case("no body", UNIMPLEMENTED, body=b""),
        Case("two messages", UNIMPLEMENTED, body=GOOD + GOOD),
        Case("three messages", UNIMPLEMENTED, body=GOOD * 3),
        Case("message and a rest", UNIMPLEMENTED, body=GOOD + b"\x00"),
        *(
            Case(f"declares {size} bytes", EXHAUSTED, body=b"\x00" + size.to_bytes(4, "big") + rest)
            for size in ((4 << 20) + 1, 5 << 20, 1 << 30, 1 << 31, (1 << 32) - 1)
            for rest in (b"", b"x" * 100)
        ),
        *(
            Case(f"flag {f}, gzip declared", INTERNAL, add=gz, body=message(good, f))
            for f in (2, 128, 255)
        ),
        *(
            Case(f"unary, cut after {n} bytes", INTERNAL, path=PUBLISH, body=b"\0\0\0\0\5abc"[:n])
            for n in range(1, 9)
        ),
        Case("declares 4 MiB, sends nothing", INTERNAL, body=b"\x00\x00\x40\x00\x00"),
        Case("not a protobuf message", INVALID, body=message(b"\xff\xff\xff")),
        Case("empty message", OK, path=PUBLISH, body=message(b"")),
        Case("unary, no body", UNIMPLEMENTED, path=PUBLISH, body=b""),
        Case("unary, two messages", UNIMPLEMENTED, path=PUBLISH, body=message(b"") * 2),
        Case("client stream, no message", OK, path=WRITE, body=b""),
        Case("client stream, three messages", OK, path=WRITE, body=message(b"") * 3),
        Case("client stream, cut", INTERNAL, path=WRITE, body=message(b"") * 2 + b"\x00\x00"),
        Case("client stream, bad flag", INTERNAL, path=WRITE, body=message(b"") + message(b"", 9)),
        Case("client stream, 4 GiB", EXHAUSTED, path=WRITE, body=b"\x00\xff\xff\xff\xff"),
    ]
    return found


_PSEUDO = (":method", ":scheme", ":path")


def test_the_table_is_long_enough() -> None:
    assert len(cases()) >= 200


@pytest.mark.parametrize("batched", [True, False], ids=["one segment", "frame by frame"])
async def test_every_case_ends_as_the_specification_says(
    batched: bool, serve: Serve, dial: Dial
) -> None:
    server = await serve(resets=1000, pings=1000)
    client = await dial(server)
    wrong = []
    for case in cases():
        head = client.headers(case.fields())
        stream = head.stream_id
        body = client.data(stream, GOOD if case.body is None else case.body)
        if batched:
            client.send(head, body)
        else:
            client.send(head)
            await client.writer.drain()
            assert await client.pong()
            if client.answer(stream).reset is None:
                client.send(body)
        answer = await client.ended(stream)
        assert not answer.closed, f"{case.name}: the connection ended"
        if case.reset is not None:
            expected: tuple[Any, Any] = (case.reset, None)
            found: tuple[Any, Any] = (answer.reset, answer.status)
        else:
            expected = (case.status, case.http)
            found = (answer.status, answer.http)
        if found != expected:
            wrong.append(f"{case.name}: {found} {answer.message}, expected {expected}")
    assert not wrong, "\n".join(wrong)
    assert server.calls == 0
    # The connection is as good as new: one well-formed call after all of them.
    stream = client.call(ask("count:3"))
    assert len((await client.ended(stream)).messages) == 3
    print(f"{len(cases())} malformed requests, 0 without the specified end")
