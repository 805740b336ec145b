"""Every failure of a call is one error of the tree, and none is a hang."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

import pytest
from hyperframe.frame import Frame

from streamkit.errors import (
    AuthError,
    CallCancelledError,
    ConnectError,
    InternalError,
    LimitError,
    Status,
    StreamGapError,
    StreamkitError,
    UnimplementedError,
)
from tests.transport.client.calls import REPLY, listening, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import OK_HEADERS, Peer, message, raw_server
from tests.transport.inside import pool_of

Response = Callable[[Peer, int], list[Frame]]


async def failure(connect: NewChannel, respond: Response) -> StreamkitError:
    """The error of a call that is answered so."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.send(*respond(peer, await peer.request()))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        with pytest.raises(StreamkitError) as caught:
            await unary(channel)
        await channel.aclose()
    return caught.value


RESETS = [
    (0, Status.INTERNAL),
    (1, Status.INTERNAL),
    (2, Status.INTERNAL),
    (3, Status.INTERNAL),
    (4, Status.INTERNAL),
    (5, Status.UNKNOWN),
    (6, Status.INTERNAL),
    (7, Status.UNAVAILABLE),
    (8, Status.CANCELLED),
    (9, Status.INTERNAL),
    (10, Status.INTERNAL),
    (11, Status.RESOURCE_EXHAUSTED),
    (12, Status.PERMISSION_DENIED),
    (13, Status.UNKNOWN),
    (99, Status.UNKNOWN),
]


@pytest.mark.parametrize(("code", "status"), RESETS)
async def test_a_reset_has_the_status_of_its_code(
    connect: NewChannel, code: int, status: Status
) -> None:
    # After the headers, because a stream refused before them is tried again.
    error = await failure(connect, lambda peer, n: [peer.headers(n), peer.reset(n, code)])
    assert error.status is status


HTTP = [
    ("400", Status.INTERNAL),
    ("401", Status.UNAUTHENTICATED),
    ("403", Status.PERMISSION_DENIED),
    ("404", Status.UNIMPLEMENTED),
    ("429", Status.UNAVAILABLE),
    ("502", Status.UNAVAILABLE),
    ("503", Status.UNAVAILABLE),
    ("504", Status.UNAVAILABLE),
    ("500", Status.UNKNOWN),
    ("301", Status.UNKNOWN),
]


@pytest.mark.parametrize(("http", "status"), HTTP)
async def test_an_http_status_has_its_grpc_status(
    connect: NewChannel, http: str, status: Status
) -> None:
    fields = [(":status", http), ("content-type", "text/html")]
    error = await failure(connect, lambda peer, n: [peer.headers(n, fields)])
    assert error.status is status
    assert http in error.message


MALFORMED: list[tuple[str, Response, type[StreamkitError], Status]] = [
    (
        "content-type of a web server",
        lambda peer, n: [peer.headers(n, [(":status", "200"), ("content-type", "text/html")])],
        InternalError,
        Status.UNKNOWN,
    ),
    (
        "no content-type",
        lambda peer, n: [peer.headers(n, [(":status", "200")])],
        InternalError,
        Status.UNKNOWN,
    ),
    (
        "no trailers",
        lambda peer, n: [peer.headers(n), peer.data(n, message(REPLY), end=True)],
        InternalError,
        Status.INTERNAL,
    ),
    (
        "headers that end the stream without a status",
        lambda peer, n: [peer.headers(n, OK_HEADERS, end=True)],
        InternalError,
        Status.INTERNAL,
    ),
    (
        "trailers without a status",
        lambda peer, n: [peer.headers(n), peer.headers(n, [("x", "y")], end=True)],
        InternalError,
        Status.UNKNOWN,
    ),
    (
        "a status that is no number",
        lambda peer, n: [peer.headers(n), peer.headers(n, [("grpc-status", "x")], end=True)],
        InternalError,
        Status.UNKNOWN,
    ),
    (
        "a status that nobody knows",
        lambda peer, n: [peer.headers(n), peer.trailers(n, 77)],
        InternalError,
        Status.UNKNOWN,
    ),
    (
        "a message before the headers",
        lambda peer, n: [peer.data(n, message(REPLY))],
        InternalError,
        Status.INTERNAL,
    ),
    (
        "no message",
        lambda peer, n: [peer.headers(n), peer.trailers(n)],
        InternalError,
        Status.INTERNAL,
    ),
    (
        "two messages for one",
        lambda peer, n: [peer.headers(n), peer.data(n, message() * 2), peer.trailers(n)],
        InternalError,
        Status.INTERNAL,
    ),
    (
        "half a message",
        lambda peer, n: [peer.headers(n), peer.data(n, message(REPLY)[:9]), peer.trailers(n)],
        InternalError,
        Status.INTERNAL,
    ),
    (
        "a compressed flag without an encoding",
        lambda peer, n: [peer.headers(n), peer.data(n, message(gzip.compress(REPLY), 1))],
        InternalError,
        Status.INTERNAL,
    ),
    (
        "a flag that does not exist",
        lambda peer, n: [peer.headers(n), peer.data(n, message(REPLY, 2))],
        InternalError,
        Status.INTERNAL,
    ),
    (
        "an encoding that nobody knows",
        lambda peer, n: [peer.headers(n, [*OK_HEADERS, ("grpc-encoding", "zip9")])],
        UnimplementedError,
        Status.UNIMPLEMENTED,
    ),
    (
        "bytes that are no message",
        lambda peer, n: [peer.headers(n), peer.data(n, message(b"\xff\xff\xff"))],
        StreamkitError,
        Status.INVALID_ARGUMENT,
    ),
    (
        "a size of one gibibyte",
        lambda peer, n: [peer.headers(n), peer.data(n, b"\0\x40\0\0\0" + bytes(1000))],
        LimitError,
        Status.RESOURCE_EXHAUSTED,
    ),
    (
        "a bomb",
        lambda peer, n: [
            peer.headers(n, [*OK_HEADERS, ("grpc-encoding", "gzip")]),
            peer.data(n, message(gzip.compress(bytes(5_000_000)), 1)),
        ],
        LimitError,
        Status.RESOURCE_EXHAUSTED,
    ),
    (
        "a cancellation by the server",
        lambda peer, n: [peer.headers(n), peer.trailers(n, 1, "go home")],
        CallCancelledError,
        Status.CANCELLED,
    ),
    (
        "a refusal in trailers alone",
        lambda peer, n: [
            peer.headers(
                n, [*OK_HEADERS, ("grpc-status", "16"), ("grpc-message", "who?")], end=True
            )
        ],
        AuthError,
        Status.UNAUTHENTICATED,
    ),
    (
        "a status beside an HTTP error",
        lambda peer, n: [
            peer.headers(n, [(":status", "503"), ("grpc-status", "8")], end=True),
        ],
        LimitError,
        Status.RESOURCE_EXHAUSTED,
    ),
]


@pytest.mark.parametrize(
    ("respond", "kind", "status"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED]
)
async def test_a_malformed_response_is_an_error(
    connect: NewChannel, respond: Response, kind: type[StreamkitError], status: Status
) -> None:
    error = await failure(connect, respond)
    assert isinstance(error, kind)
    assert error.status is status


async def test_a_gap_carries_its_bounds(connect: NewChannel) -> None:
    fields = [("grpc-status", "11"), ("streamkit-oldest", "7"), ("streamkit-newest", "9")]
    error = await failure(
        connect, lambda peer, n: [peer.headers(n), peer.headers(n, fields, end=True)]
    )
    assert isinstance(error, StreamGapError)
    assert (error.oldest, error.newest) == (7, 9)


async def test_what_is_harmless_is_passed_over(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.raw(b"\x00\x00\x04\x10\x00\x00\x00\x00\x00u=3 ")  # PRIORITY_UPDATE
        peer.raw(b"\x00\x00\x03\xfa\x0f\x00\x00\x00\x01abc")  # an unknown frame
        stream = await peer.request()
        peer.send(peer.headers(stream, [(":status", "103"), ("link", "x")]))
        fields = [*OK_HEADERS, ("x-latin", "caf\xe9"), ("bad-bin", "!!!"), ("good-bin", "q6ur")]
        peer.send(peer.headers(stream, fields), peer.data(stream, b""))
        whole = message(REPLY)
        peer.send(
            peer.data(stream, whole[:3]), peer.data(stream, b""), peer.data(stream, whole[3:])
        )
        peer.send(peer.data(stream, b""), peer.trailers(stream))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel, timeout=5) as call:
            metadata = await call.initial_metadata()
            assert metadata["good-bin"] == b"\xab\xab\xab"
            assert "bad-bin" not in metadata
            assert [bytes(reply) for reply in await call.receive()] == [REPLY]
            assert await call.receive() == []
        await channel.aclose()


async def test_whatever_goes_wrong_while_dialling_reaches_who_waits(
    connect: NewChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    channel = connect("127.0.0.1:1")
    monkeypatch.setattr(pool_of(channel)._addresses, "connect", broken)
    with pytest.raises(ConnectError, match="a mistake"):
        await asyncio.wait_for(unary(channel), 10)
    await channel.aclose()
