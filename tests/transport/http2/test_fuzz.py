"""Frames at random, in both roles: no exception gets out, no stream is left without its end."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
from grpclib.protocol import AbstractHandler

from streamkit.errors import StreamkitError
from streamkit.transport.client.attempt import WireAttempt
from streamkit.transport.client.request import ClientStream
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.http2.endings import StreamLost
from streamkit.transport.http2.protocol import WireProtocol
from streamkit.transport.log import LOG
from streamkit.transport.server.calls import Calls
from streamkit.transport.server.serving import Service
from tests.transport.fuzzing import LIMITS, Fuzzer, chunks
from tests.transport.memory import Sink
from tests.transport.raw import SUBSCRIBE, message
from tests.transport.services import PlainCodec, Streams, Writes, ask


class Refusing(AbstractHandler):
    def accept(self, stream: Any, headers: Headers, release_stream: Any) -> None:
        raise AssertionError("a client was called")

    def cancel(self, stream: Any) -> None:
        pass

    def close(self) -> None:
        pass


async def server_round(seed: int, frames: int, tally: dict[str, int]) -> None:
    """One connection to a server until it ends or the frames are used up."""
    streams, writes = Streams(), Writes()
    calls = Calls(Service([streams, writes], PlainCodec(), LIMITS))
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
        waiting.append(asyncio.create_task(read_call(protocol)))
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
    done, late = await asyncio.wait(waiting, timeout=5)
    for task in done:
        task.result()
    tally["unanswered"] += len(late)
    tally["connections"] += 1


async def read_call(protocol: WireProtocol) -> None:
    stream = ClientStream(
        lambda authority: [(":method", "POST"), (":path", SUBSCRIBE), (":authority", authority)],
        lambda stream: stream.close(),  # one that was refused is not sent again
        subtype="proto",
        max_message=LIMITS.max_message,
        send_buffer=LIMITS.send_buffer,
    )
    stream.write(message(ask("count:1")))
    stream.end()
    stream.start(WireAttempt(stream, protocol), "x")
    try:
        while not stream.done:
            if stream.ready:
                stream.take()
            else:
                await stream.wait_for_messages()
    except (StreamLost, StreamkitError):
        pass
    finally:
        stream.close()


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
    await fuzz(5_000, 1, caplog)


@pytest.mark.soak
async def test_a_million_frames(caplog: pytest.LogCaptureFixture) -> None:
    await fuzz(1_000_000, 1_000_000, caplog)
