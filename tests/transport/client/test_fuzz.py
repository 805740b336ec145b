"""A server that answers at random: every call of a channel ends once, as a call may end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from streamkit.errors import Status, StreamkitError
from streamkit.generated.streamservice import JobRequest
from streamkit.transport import Channel
from streamkit.transport.http2.protocol import WireProtocol
from streamkit.transport.log import LOG
from tests.transport.client.calls import listening, sending, unary
from tests.transport.fuzzing import LIMITS, Fuzzer, chunks
from tests.transport.inside import pool_of
from tests.transport.memory import Sink

KINDS = ("unary", "listen", "upload", "chat", "late", "leave", "cancel", "revoke")
CALLS = 12
CONNECTIONS = 3
"""That a server of one round takes; one more is refused."""


class FuzzingServer:
    """What a channel gets to talk to, without a socket: the same seed, the same frames."""

    def __init__(self, seed: int, frames: int) -> None:
        self.seed = seed
        self.sent = 0
        self.protocols: list[WireProtocol] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._frames = frames

    async def connect(self, make: Any, *_: Any, **__: Any) -> tuple[Sink, WireProtocol]:
        """As the event loop's create_connection."""
        number = len(self.protocols)
        if number == CONNECTIONS:
            raise ConnectionRefusedError(111, "refused")
        protocol: WireProtocol = make()
        sink = Sink(protocol)
        self.protocols.append(protocol)
        protocol.connection_made(sink)
        self.tasks.append(asyncio.create_task(self._talk(protocol, sink, number)))
        return sink, protocol

    async def _talk(self, protocol: WireProtocol, sink: Sink, number: int) -> None:
        """Frames until they are used up or the client has had enough, then the end."""
        fuzzer = Fuzzer(self.seed * CONNECTIONS + number, client_role=True)
        await asyncio.sleep(0)
        protocol.data_received(fuzzer.hello())
        for _ in range(3):
            await asyncio.sleep(0)
        for count in range(self._frames):
            if sink.closing or protocol.connection.dead:
                break
            # Frames for calls that are there, or were: any other ends the connection at once.
            fuzzer.next_id = max(3, protocol.connection.h2.highest_outbound_stream_id + 2)
            for chunk in chunks(fuzzer.one(), fuzzer.random):
                protocol.data_received(chunk)
            self.sent += 1
            if count % 4 == 0:
                await asyncio.sleep(0)
        sink.close()
        await sink.lost.wait()


@contextmanager
def in_place_of_sockets(server: FuzzingServer) -> Iterator[None]:
    """Let the running loop connect to the fuzzing server, whatever the address."""
    loop: Any = asyncio.get_running_loop()
    loop.create_connection = server.connect
    try:
        yield
    finally:
        del loop.create_connection


async def use(channel: Channel, kind: str) -> str:
    """Make one call of a kind; return its one end: OK, an error's name, or left by its user."""
    if kind == "unary":
        await unary(channel)
        return "OK"
    timeout = 0.02 if kind == "late" else None
    call = (sending if kind in ("upload", "chat") else listening)(channel, timeout=timeout)
    async with call:
        if kind == "leave":
            await asyncio.sleep(0)
            return "left"
        if kind in ("upload", "chat"):
            for number in range(20):
                await call.send(JobRequest(job_id="x" * 1000))
                if kind == "chat" and number % 5 == 0 and not await call.receive():
                    break
            await call.end()
        if kind == "revoke":
            asyncio.get_running_loop().call_later(0.001, call.cancel)
        await call.initial_metadata()
        async for _ in call:
            pass
        assert call.done
        assert call.error is None
        assert not await call.receive()
    return "OK"


async def outcome(channel: Channel, kind: str) -> str:
    """How a call ended; anything but a StreamkitError with a status comes out as it is."""
    try:
        return await use(channel, kind)
    except StreamkitError as error:
        assert isinstance(error.status, Status)
        assert error.status is not Status.OK
        return type(error).__name__


async def play(
    seed: int, frames: int, ends: Counter[str], tally: Counter[str], config: Any = None
) -> None:
    """One channel with its calls and up to three connections."""
    chance = random.Random(seed)
    server = FuzzingServer(seed, frames)
    before = asyncio.all_tasks()
    with in_place_of_sockets(server):
        channel = Channel("192.0.2.1:1", limits=LIMITS, connect_timeout=5.0, service_config=config)
        calls = {
            asyncio.create_task(outcome(channel, kind)): kind
            for kind in chance.choices(KINDS, k=CALLS)
        }
        for _ in range(chance.randrange(3, 30)):
            await asyncio.sleep(0)
        cancelled = [task for task, kind in calls.items() if kind == "cancel" and task.cancel()]
        _, late = await asyncio.wait(calls, timeout=20)
        tally["unanswered"] += len(late)
        for task in calls.keys() - late:
            assert task.cancelled() == (task in cancelled), calls[task]
            ends["cancelled" if task in cancelled else task.result()] += 1
        for protocol in server.protocols:
            if not protocol.connection.dead:  # one that is over takes its streams with it
                tally["leaked streams"] += len(protocol.processor.streams)
                tally["leaked streams"] += len(protocol.connection.h2.streams)
        await channel.aclose()
        await asyncio.wait(server.tasks, timeout=5)
    for talk in server.tasks:
        talk.result()
    assert pool_of(channel)._alive == {}
    assert pool_of(channel)._queue == {}
    tally["leaked tasks"] += len(asyncio.all_tasks() - before)
    tally["frames"] += server.sent
    tally["connections"] += len(server.protocols)


async def fuzz(
    total: int, first_seed: int, caplog: pytest.LogCaptureFixture, config: Any = None
) -> None:
    ends: Counter[str] = Counter()
    tally: Counter[str] = Counter()
    seed = first_seed
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "streamkit.transport"):
        while tally["frames"] < total:
            try:
                await play(seed, 200, ends, tally, config)
                faults += [{"log": r} for r in caplog.records if "fault" in r.getMessage()]
                assert not faults, faults[0]
                assert not (tally["unanswered"] or tally["leaked streams"]), tally
                assert not tally["leaked tasks"], tally
            except BaseException as error:
                raise AssertionError(f"with seed {seed}: {error!r}") from error
            caplog.clear()
            LOG._next.clear()
            seed += 1
    assert ends["OK"] > 0
    assert {"cancelled", "left", "InternalError", "CallCancelledError"} <= ends.keys()
    print(
        f"{tally['frames']} frames on {tally['connections']} connections of {seed - first_seed} "
        f"channels in {time.monotonic() - started:.0f} s: {ends.total()} calls, each with one end "
        f"({', '.join(f'{n} {name}' for name, n in ends.most_common())}); no task or stream left"
    )


async def test_every_call_ends_once(caplog: pytest.LogCaptureFixture) -> None:
    await fuzz(3_000, 1, caplog)


async def test_every_call_ends_once_however_often_it_is_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    statuses = ["UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", "UNIMPLEMENTED", "NOT_FOUND"]
    policy = {
        "maxAttempts": 4,
        "initialBackoff": "0.001s",
        "maxBackoff": "0.002s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": statuses,
    }
    config = {"methodConfig": [{"name": [{}], "retryPolicy": policy}]}
    await fuzz(3_000, 1, caplog, config)


@pytest.mark.soak
async def test_a_million_frames_to_channels(caplog: pytest.LogCaptureFixture) -> None:
    await fuzz(1_000_000, 1_000_000, caplog)
