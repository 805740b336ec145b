"""Frames at random, in both roles: no exception gets out, no stream is left without its end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from grpclib.protocol import AbstractHandler
from hpack import Encoder

from streamkit.config import TransportLimits
from streamkit.transport.calls import Calls, Service
from streamkit.transport.connection import LOG
from streamkit.transport.metadata import Headers
from streamkit.transport.protocol import WireProtocol
from streamkit.transport.replies import adopt
from streamkit.transport.stream import StreamLost, WireStream
from tests.transport.memory import Sink
from tests.transport.raw import PREFACE, PUBLISH, SUBSCRIBE, WRITE, message
from tests.transport.services import PlainCodec, Streams, Writes, ask

LIMITS = TransportLimits(
    max_streams=20,
    resets=1000,
    settings=1000,
    empty_frames=10_000,
    max_frame=16_384,
    stream_window=65_535,
    connection_window=100_000,
    connection_buffer=200_000,
)


def frame(kind: int, flags: int, stream: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


class Fuzzer:
    """Makes frames: most are almost right, because noise ends a connection at once."""

    def __init__(self, seed: int, *, client_role: bool) -> None:
        self.random = random.Random(seed)
        self.encoder = Encoder()
        self.client_role = client_role
        self.next_id = 1

    def stream(self) -> int:
        chance = self.random
        if chance.random() < 0.005:
            return chance.choice((0, 2, 2**31 - 1, chance.randrange(2**31)))
        return chance.randrange(1, max(2, min(self.next_id, 30)), 2)

    def blob(self, most: int = 60) -> bytes:
        return self.random.randbytes(self.random.randrange(most))

    def fields(self) -> bytes:
        chance = self.random
        if self.client_role:
            pairs = [(b"grpc-status", b"0"), (b"grpc-message", self.blob(20))]
            if chance.random() < 0.8:
                status = chance.choice((b"200", b"100", b"503", self.blob(4)))
                pairs.insert(0, (b":status", status))
        else:
            path = chance.choice((SUBSCRIBE, PUBLISH, WRITE, "/x/y")).encode()
            pairs = [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            ]
        for _ in range(chance.randrange(3)):
            name = chance.choice(
                (b"x-a", b"x-bin", b"grpc-timeout", b"content-length", self.blob(6))
            )
            pairs.append((name, chance.choice((b"1", b"5m", b"YQ", self.blob(30)))))
        if chance.random() < 0.1:
            chance.shuffle(pairs)
        return self.encoder.encode(pairs)

    def headers(self) -> bytes:
        chance = self.random
        if chance.random() < 0.005:
            return frame(1, 4, self.stream(), self.blob(100))
        stream = self.stream()
        if not self.client_role and chance.random() < 0.8:
            stream, self.next_id = self.next_id, self.next_id + 2
        return frame(1, 4 | chance.randrange(2), stream, self.fields())

    def body(self) -> bytes:
        chance = self.random
        topic = chance.choice(("count:2", "idle:x", "fail:gap", "big:500"))
        data = chance.choice(
            (message(ask(topic)), message(b""), message(self.blob(), 1), self.blob())
        )
        return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data

    def one(self) -> bytes:
        """One frame, rarely something that is none."""
        chance = self.random
        if self.next_id == 1:
            return self.headers()
        pick = chance.random()
        if pick < 0.3:
            return self.headers()
        if pick < 0.6:
            return frame(0, chance.choice((0, 0, 1)), self.stream(), self.body())
        if pick < 0.7:
            return frame(3, 0, self.stream(), chance.randbytes(4))
        if pick < 0.78:
            step = chance.choice((1, 100, 65_535, 1, 100, 65_535, 1, 100, 2**31 - 1))
            where = chance.choice((0, self.stream())) if step < 2**31 - 1 else self.stream()
            return frame(8, 0, where, step.to_bytes(4, "big"))
        if pick < 0.84:
            return frame(6, chance.choice((0, 0, 1)), 0, b"12345678")
        if pick < 0.90:
            code = chance.choice((1, 3, 4, 6, 99))
            value = chance.choice((0, 1, 100, 16_384, 65_535))
            if chance.random() < 0.05:
                code, value = chance.randrange(10), chance.choice((2**31 - 1, 2**32 - 1, 7))
            return frame(4, 0, 0, code.to_bytes(2, "big") + value.to_bytes(4, "big"))
        if pick < 0.92:
            return frame(4, 1, 0, b"")
        if pick < 0.94:
            return frame(2, 0, self.stream(), chance.randbytes(5))
        if pick < 0.95:
            return frame(7, 0, 0, self.stream().to_bytes(4, "big") + bytes(4) + self.blob())
        if pick < 0.96:
            body = self.body()
            padded = bytes([chance.randrange(len(body) + 1)]) + body + b"x"
            return frame(0, 8, self.stream(), padded)
        if pick < 0.98:
            return frame(
                chance.randrange(10, 256), chance.randrange(256), self.stream(), self.blob()
            )
        if pick < 0.981:
            return frame(5, 4, self.stream(), chance.randbytes(4) + self.fields())
        if pick < 0.984:
            head = frame(1, chance.randrange(2), self.next_id, b"\x83\x86")
            return head + frame(9, chance.choice((0, 4, 4, 4)), self.next_id, b"\x84" * 9)
        if pick < 0.986:
            return frame(chance.randrange(10), chance.randrange(256), self.stream(), self.blob())
        return self.blob() if pick > 0.999 else self.headers()

    def hello(self) -> bytes:
        return (b"" if self.client_role else PREFACE) + frame(4, 0, 0, b"")


class Refusing(AbstractHandler):
    def accept(self, stream: Any, headers: Headers, release_stream: Any) -> None:
        raise AssertionError("a client was called")

    def cancel(self, stream: Any) -> None:
        pass

    def close(self) -> None:
        pass


def chunks(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The data in pieces, as TCP might deliver it."""
    if chance.random() < 0.7:
        yield data
        return
    position = 0
    while position < len(data):
        step = chance.choice((1, 3, 9, 50, 1000))
        yield data[position : position + step]
        position += step


async def server_round(seed: int, frames: int, tally: dict[str, int]) -> None:
    """One connection to a server until it ends or the frames are used up."""
    streams, writes = Streams(), Writes()
    mapping = {}
    for handler in (streams, writes):
        adopt(handler)
        mapping.update(handler.__mapping__())
    calls = Calls(Service(mapping, PlainCodec(), LIMITS, ()))
    protocol = WireProtocol(calls, LIMITS, client=False)
    sink = Sink(protocol)
    fuzzer = Fuzzer(seed, client_role=False)
    protocol.connection_made(sink)
    protocol.data_received(fuzzer.hello())
    for number in range(frames):
        if protocol.connection.dead:
            break
        for chunk in chunks(fuzzer.one(), fuzzer.random):
            protocol.data_received(chunk)
        tally["frames"] += 1
        if number % 8 == 0:
            await asyncio.sleep(0)
    streams.release.set()
    for _ in range(20):
        await asyncio.sleep(0)
    tally["live"] += len(calls.tasks) if not protocol.connection.dead else 0
    sink.close()
    await asyncio.wait_for(sink.lost.wait(), 5)
    if calls.tasks:
        await asyncio.wait(calls.tasks, timeout=5)
    tally["unanswered"] += len(calls.tasks) + len(protocol.processor.streams)
    tally["connections"] += 1


async def client_round(seed: int, frames: int, tally: dict[str, int]) -> None:
    """One connection to a server that answers at random; every waiting call must end."""
    protocol = WireProtocol(Refusing(), LIMITS, client=True)
    sink = Sink(protocol)
    fuzzer = Fuzzer(seed, client_role=True)
    protocol.connection_made(sink)
    protocol.data_received(fuzzer.hello())
    waiting: list[asyncio.Task[None]] = []
    for _ in range(8):
        stream = protocol.connection.create_stream()
        waiting.append(asyncio.create_task(read_call(stream, protocol)))
        fuzzer.next_id += 2
    await asyncio.sleep(0)
    for number in range(frames):
        if protocol.connection.dead:
            break
        for chunk in chunks(fuzzer.one(), fuzzer.random):
            protocol.data_received(chunk)
        tally["frames"] += 1
        if number % 8 == 0:
            await asyncio.sleep(0)
    sink.close()
    await asyncio.wait_for(sink.lost.wait(), 5)
    _, late = await asyncio.wait(waiting, timeout=5)
    tally["unanswered"] += len(late) + len(protocol.processor.streams)
    tally["connections"] += 1


async def read_call(stream: WireStream, protocol: WireProtocol) -> None:
    from streamkit.errors import StreamkitError

    release = None
    try:
        release = await stream.send_request(
            [(":method", "POST"), (":path", SUBSCRIBE)], _processor=protocol.processor
        )
        stream.put(message(ask("count:1")))
        stream.put_end()
        await stream.recv_headers()
        while await stream.messages():
            pass
        await stream.recv_trailers()
    except (StreamLost, StreamkitError):
        pass
    finally:
        if release is not None:
            release()


async def fuzz(total: int, first_seed: int, caplog: pytest.LogCaptureFixture) -> None:
    tally = {"frames": 0, "connections": 0, "unanswered": 0, "live": 0}
    seed = first_seed
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "streamkit.transport"):
        while tally["frames"] < total:
            for play in (server_round, client_round):
                try:
                    await play(seed, 150, tally)
                except Exception as error:
                    raise AssertionError(f"{play.__name__} with seed {seed}") from error
            seed += 1
            faults = [r for r in caplog.records if "fault" in r.getMessage()]
            assert not faults, f"seed {seed - 1}: {faults[0].getMessage()}"
            caplog.clear()
            LOG._next.clear()
    assert tally["unanswered"] == 0
    seconds = time.monotonic() - started
    print(
        f"{tally['frames']} frames on {tally['connections']} connections in {seconds:.0f} s: "
        f"0 exceptions, {tally['unanswered']} streams without an end"
    )


async def test_no_frame_gets_an_exception_out(caplog: pytest.LogCaptureFixture) -> None:
    await fuzz(8_000, 1, caplog)


@pytest.mark.soak
async def test_a_million_frames(caplog: pytest.LogCaptureFixture) -> None:
    await fuzz(1_000_000, 1_000_000, caplog)
