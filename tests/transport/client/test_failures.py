"""Every failure of a call is one error of the tree, and none is a hang."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hyperframe.frame import Frame, RstStreamFrame

from streamkit.errors import (
    AuthError,
    CallCancelledError,
    ConnectError,
    DeadlineError,
    InternalError,
    InvalidArgumentError,
    LimitError,
    Status,
    StreamGapError,
    StreamkitError,
    UnimplementedError,
)
from streamkit.generated.streamservice import JobRequest
from streamkit.transport import Channel, ClientCall
from tests.transport.client.calls import REPLY, listening, sending, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import OK_HEADERS, Peer, message, raw_server

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


# Connections ----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("target", ["127.0.0.1:{}", "localhost:{}", "unix:/nowhere/{}"])
async def test_nobody_there(connect: NewChannel, target: str) -> None:
    channel = connect(target.format(free_port()))
    with pytest.raises(ConnectError) as caught:
        await unary(channel)
    assert channel.target in caught.value.message
    assert "refused" in caught.value.message or "No such file" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("target", ["host:", "host:x", "host:70000", ":x"])
async def test_a_target_that_is_no_address(connect: NewChannel, target: str) -> None:
    with pytest.raises(InvalidArgumentError, match="not an address"):
        connect(target)


async def test_a_server_that_says_nothing(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target, connect_timeout=0.05)
        with pytest.raises(ConnectError, match=r"no answer within 0\.05 s"):
            await unary(channel)
        await channel.aclose()


@pytest.mark.parametrize(
    ("greeting", "noted"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1 instead of HTTP/2"),
        (b"\x15\x03\x03\0\2\2\x46" + bytes(9), "TLS instead of plain HTTP/2"),
        (b"SSH-2.0-OpenSSH_9.0\r\n", "not HTTP/2"),
    ],
)
async def test_a_server_of_another_protocol(
    connect: NewChannel, greeting: bytes, noted: str
) -> None:
    async def script(peer: Peer) -> None:
        peer.raw(greeting)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        with pytest.raises(ConnectError, match=f"no connection to {server.target}: {noted}"):
            await unary(channel)
        await channel.aclose()


async def test_a_connection_lost_ends_every_call(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({3: 2})  # two streams; the third call waits in line
        await peer.request()
        stream = await peer.request()
        peer.send(peer.headers(stream), peer.data(stream, message(REPLY)))
        await asyncio.sleep(0.05)
        peer.abort()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as first, listening(channel) as second:
            waiting = asyncio.create_task(unary(connect(server.target)))
            assert len(await second.receive()) == 1
            for call in (first, second):
                with pytest.raises(ConnectError, match="lost"):
                    await call.receive()
                with pytest.raises(ConnectError):
                    await call.receive()
            waiting.cancel()
            await asyncio.wait([waiting])
        await channel.aclose()


async def test_one_in_line_for_a_stream_is_served_by_the_next_connection(
    connect: NewChannel,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({3: 1})
        stream = await peer.request()
        if peer.number == 0:
            await asyncio.sleep(0.05)
            peer.abort()
        peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as first:
            waiting = asyncio.create_task(unary(channel))
            with pytest.raises(ConnectError):
                await first.receive()
            assert await waiting == REPLY
        await channel.aclose()


async def test_waiting_for_a_stream_has_an_end(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({3: 1})
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target, connect_timeout=0.1)
        async with listening(channel):
            with pytest.raises(LimitError, match="no free stream"):
                await unary(channel)
            with pytest.raises(DeadlineError):
                await unary(channel, timeout=0.02)
        await channel.aclose()


async def test_a_blocked_sender_learns_of_the_loss(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet({4: 1000})  # a window that nobody opens
        await asyncio.sleep(0.1)
        peer.abort()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with sending(channel) as call:
            with pytest.raises(ConnectError):
                while True:
                    await call.send(JobRequest(job_id="x" * 10_000))
        await channel.aclose()


# Leaving and cancelling -----------------------------------------------------------------------


async def test_leaving_a_call_cancels_it(connect: NewChannel) -> None:
    reset: asyncio.Future[RstStreamFrame] = asyncio.get_running_loop().create_future()

    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream), peer.data(stream, message(REPLY)))
        reset.set_result(await peer.until(RstStreamFrame))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as call:
            await call.receive()
        assert (await asyncio.wait_for(reset, 20)).error_code == 8
        with pytest.raises(CallCancelledError):
            await call.receive()
        await channel.aclose()


async def test_receive_after_cancel(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream), peer.data(stream, message(REPLY) * 3))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as call:
            await call.initial_metadata()
            waiting = asyncio.create_task(forever(call))
            await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(CallCancelledError):
                await waiting
            for _ in range(2):
                with pytest.raises(CallCancelledError):
                    await call.receive()
        await channel.aclose()


async def forever(call: ClientCall[Any, Any]) -> None:
    while await call.receive():
        continue


async def test_closing_the_channel_ends_its_calls(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target)
        async with listening(channel) as call:
            waiting = asyncio.create_task(forever(call))
            await asyncio.sleep(0.01)
            await channel.aclose()
            with pytest.raises(ConnectError):
                await waiting
        with pytest.raises(ConnectError, match="closed"):
            await unary(channel)


async def test_reset_dials_anew(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        if peer.number:
            peer.answer(stream, REPLY)
        await peer.hang()

    async with raw_server(script) as server:
        channel: Channel = connect(server.target)
        async with listening(channel) as call:
            await channel.reset()
            with pytest.raises(ConnectError):
                await call.receive()
        assert await unary(channel) == REPLY
        await channel.aclose()
