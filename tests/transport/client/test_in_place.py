"""Messages received where they stay: the same bytes on every loop, however they are cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path

import pytest
import uvloop

from streamkit.codec import StreamkitCodec
from streamkit.config import KIB, MIB, TransportLimits
from streamkit.errors import InternalError, LimitError
from streamkit.framing import PREFIX
from streamkit.generated.streamservice import JobProgress, JobRequest, StreamServiceBase
from streamkit.transport import Channel, Framed, GrpcServer, client_tls, server_tls
from streamkit.transport.grpc.in_place import InPlaceBuffer
from tests.transport.client.calls import PATH, REPLY, unary
from tests.transport.client.test_tls import Files

LIMITS = TransportLimits(max_message=8 * MIB)
SIZES = (0, 1, 70_000, 256 * KIB, 3 * MIB, 17, 5 * MIB, 300_000)


@cache
def body(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number])


def framed(data: bytes) -> bytes:
    return PREFIX.pack(0, len(data)) + data


class Service(StreamServiceBase):
    """Messages of all sizes, in pieces; ends without an end when asked to."""

    async def watch_job_progress(self, request: JobRequest) -> AsyncIterator[Framed]:  # type: ignore[override]  # ready frames
        if request.job_id == "j":
            yield Framed(framed(REPLY), 1)
            return
        for number in range(len(SIZES)):
            data = body(number)
            half = memoryview(data)[: len(data) // 2], memoryview(data)[len(data) // 2 :]
            yield Framed([PREFIX.pack(0, len(data)), *half], 1)
            if request.job_id == "slow":
                await asyncio.sleep(0.001)


def views(data: object) -> memoryview:
    """A decoder that keeps what it is given."""
    assert isinstance(data, memoryview)
    assert data.readonly
    return data


async def everything(channel: Channel, kind: str) -> list[bytes]:
    request = JobRequest(job_id=kind)
    found: list[memoryview] = []
    async with channel.stream(
        PATH,
        JobRequest,
        JobProgress,
        request=request,
        decoder=views,  # type: ignore[arg-type]  # views are what is looked at
    ) as call:
        while ready := await call.receive():
            found += ready  # type: ignore[arg-type]  # the decoder makes views
    return list(map(bytes, found))


async def exchange(files: Files | None) -> None:
    server = GrpcServer(
        [Service()],
        codec=StreamkitCodec(),
        limits=LIMITS,
        ssl=None if files is None else server_tls(files.cert, files.key),
    )
    await server.start("127.0.0.1", 0)
    channel = Channel(
        f"localhost:{server.port}",
        codec=StreamkitCodec(),
        limits=LIMITS,
        ssl=None if files is None else client_tls(ca=files.ca),
    )
    try:
        expected = list(map(body, range(len(SIZES))))
        assert await unary(channel) == REPLY
        for kind in ("fast", "slow"):
            assert await everything(channel, kind) == expected
        # Beside each other, with ordinary calls on the same connection, and left in the middle.
        both = asyncio.gather(everything(channel, "fast"), everything(channel, "slow"))
        for _ in range(5):
            assert await unary(channel) == REPLY
            request = JobRequest(job_id="fast")
            async with channel.stream(
                PATH,
                JobRequest,
                JobProgress,
                request=request,
                decoder=views,  # type: ignore[arg-type]  # views are what is looked at
            ) as call:
                await call.receive()
        assert [*await both] == [expected, expected]
    finally:
        await channel.aclose()
        await server.close()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_the_same_bytes_on_every_loop(
    factory: Callable[[], asyncio.AbstractEventLoop], secure: bool, tmp_path: Path
) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(exchange(Files(tmp_path) if secure else None))


def test_bytes_are_put_together_however_they_come() -> None:
    dice = random.Random(5)
    for _ in range(100):
        bodies = [dice.randbytes(dice.choice((0, 3, 500, 40_000))) for _ in range(5)]
        wire = b"".join(map(framed, bodies))
        buffer, got, freed, position = InPlaceBuffer(MIB), [], 0, 0
        while position < len(wire):
            step = min(len(wire) - position, dice.choice((1, 4, 700, 20_000, 100_000)))
            place = buffer.place(step)
            if place is None:
                ready = buffer.feed(wire[position : position + step])
            else:
                step = len(place)
                place[:] = wire[position : position + step]
                ready = buffer.placed(step)
            position += step
            if ready:
                messages, size = buffer.take()
                got += [bytes(message) for message in messages]
                freed += size
        while buffer.size:
            messages, size = buffer.take()
            got += [bytes(message) for message in messages]
            freed += size
        assert got == bodies
        assert freed == len(wire)
        assert not buffer.ready


def test_what_a_peer_must_not_send() -> None:
    buffer = InPlaceBuffer(100)
    assert buffer.feed(framed(b"good") + PREFIX.pack(0, 101) + b"x" * 50)
    assert list(map(bytes, buffer.take()[0])) == [b"good"]
    with pytest.raises(LimitError, match="over the limit of 100"):
        buffer.take()

    buffer = InPlaceBuffer(100)
    assert not buffer.feed(PREFIX.pack(0, 90) + b"x" * 50)
    buffer.eof = True
    with pytest.raises(InternalError, match="inside a message"):
        buffer.take()

    buffer = InPlaceBuffer(100)
    assert buffer.feed(PREFIX.pack(1, 4) + b"gzip")
    with pytest.raises(InternalError, match="without grpc-encoding"):
        buffer.take()


def test_what_is_forgotten_is_counted() -> None:
    buffer = InPlaceBuffer(MIB)
    wire = framed(b"x" * 100) + framed(b"y" * 200_000)
    buffer.feed(wire[:100_000])
    place = buffer.place(50_000)
    assert place is not None
    assert buffer.clear() == 100_000
    place[:] = bytes(len(place))  # a read that was under way when the call was left
    assert not buffer.placed(len(place))
    assert buffer.place(10) is None
