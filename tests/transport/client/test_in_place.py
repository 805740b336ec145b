"""Messages received where they stay: the same bytes on every loop, however they are cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import uvloop

from streamkit.codec import StreamkitCodec
from streamkit.config import KIB, MIB, TransportLimits
from streamkit.errors import InternalError, LimitError
from streamkit.framing import PREFIX
from streamkit.generated.streamservice import JobProgress, JobRequest, StreamServiceBase
from streamkit.transport import Channel, Framed, GrpcServer, client_tls, server_tls
from streamkit.transport.grpc.in_place import InPlaceBuffer
from streamkit.transport.http2.receiver import InPlaceProtocol
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


class Untouched(StreamkitCodec):
    """Leaves replies as bytes."""

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data if message_type is JobProgress else super().decode(data, message_type)

    def decoder(self, message_type: Any) -> Callable[[bytes], Any]:
        return partial(self.decode, message_type=message_type)


def kept(data: object) -> bytes | memoryview:
    """A decoder that keeps what it is given: a view only of what is large."""
    if isinstance(data, memoryview):
        assert data.readonly and len(data) >= 64 * KIB
        return data
    assert isinstance(data, bytes)
    return data


async def everything(channel: Channel, kind: str) -> list[bytes]:
    return list(map(bytes, await received(channel, kind)))


async def received(channel: Channel, kind: str) -> list[bytes | memoryview]:
    request = JobRequest(job_id=kind)
    found: list[bytes | memoryview] = []
    async with channel.stream(
        PATH,
        JobRequest,
        JobProgress,
        request=request,
        decoder=kept,  # type: ignore[arg-type]  # what it is given is what is looked at
    ) as call:
        while ready := await call.receive():
            found += ready  # type: ignore[arg-type]  # what the decoder keeps
    return found


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
        views = 0
        for kind in ("fast", "slow"):
            found = await received(channel, kind)
            assert list(map(bytes, found)) == expected
            views += sum(isinstance(message, memoryview) for message in found)
        assert views  # how many depends on how the bytes came
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
                decoder=kept,  # type: ignore[arg-type]  # what it is given is what is looked at
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


async def test_other_streams_of_the_connection_are_read_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither in place nor in the small steps in which the heads of large frames are read."""
    reads: list[int] = []
    update = InPlaceProtocol.buffer_updated

    def counted(self: InPlaceProtocol, size: int) -> None:
        reads.append(size)
        update(self, size)

    monkeypatch.setattr(InPlaceProtocol, "buffer_updated", counted)
    server = GrpcServer([Service()], codec=StreamkitCodec(), limits=LIMITS)
    await server.start("127.0.0.1", 0)
    async with Channel(f"127.0.0.1:{server.port}", codec=Untouched(), limits=LIMITS) as channel:
        await everything(channel, "fast")
        reads.clear()
        request = JobRequest(job_id="fast")
        async with channel.stream(PATH, JobRequest, JobProgress, request=request) as call:
            found = [bytes(message) async for message in call]
    await server.close()
    assert found == list(map(body, range(len(SIZES))))
    assert sum(reads) > 9_000_000
    assert len(reads) < 9_000_000 / (16 * KIB)


@pytest.mark.parametrize("behind", [0.0, 0.9])
def test_bytes_are_put_together_however_they_come(behind: float) -> None:
    dice = random.Random(5)
    placed = 0
    for _ in range(100):
        bodies = [dice.randbytes(dice.choice((0, 3, 500, 40_000, 80_000))) for _ in range(5)]
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
                placed += step
            position += step
            assert buffer.size == position - freed
            if ready and dice.random() >= behind:
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
    assert placed > 100 * 20_000


def test_what_a_peer_must_not_send() -> None:
    buffer = InPlaceBuffer(100)
    assert buffer.feed(framed(b"good") + PREFIX.pack(0, 101) + b"x" * 50)
    assert list(map(bytes, buffer.take()[0])) == [b"good"]
    with pytest.raises(LimitError, match="over the limit of 100"):
        buffer.take()

    for size, here in ((90, 50), (90_000, 70_000)):
        buffer = InPlaceBuffer(MIB)
        buffer.feed(PREFIX.pack(0, size) + b"x" * here)
        assert (buffer.place(20_000) is None) == (size == 90)
        assert buffer.take() == ([], 0)
        assert not buffer.ready
        buffer.eof = True
        with pytest.raises(InternalError, match="inside a message"):
            buffer.take()

    for size in (4, 90_000):
        buffer = InPlaceBuffer(MIB)
        assert buffer.feed(PREFIX.pack(1, size) + b"x" * (size - 1))
        assert buffer.place(20_000) is None
        buffer.feed(b"x")
        with pytest.raises(InternalError, match="without grpc-encoding"):
            buffer.take()


def test_a_message_over_the_limit_gets_no_memory() -> None:
    buffer = InPlaceBuffer(MIB)
    buffer.feed(PREFIX.pack(0, MIB + 1) + b"x" * 1000)
    assert buffer.place(MIB) is None
    with pytest.raises(LimitError, match="over the limit"):
        buffer.take()
    assert buffer.place(MIB) is None


def test_a_message_behind_many_small_ones_is_received_by_the_way() -> None:
    buffer = InPlaceBuffer(MIB)
    buffer.feed(framed(b"small") * 10_000 + PREFIX.pack(0, MIB))
    assert buffer.place(MIB) is None
    while len(buffer.take()[0]) > 1:
        pass
    assert buffer.place(MIB) is not None


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
