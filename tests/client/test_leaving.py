"""Closing a client, cancelling a read, dropping an iterator: nobody hangs, nothing is lost."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamkit.client import AsyncClient, ResumingCall
from streamkit.client.blocking.client import Client
from streamkit.client.blocking.portal import Portal
from streamkit.codec import StreamkitCodec
from streamkit.config import Backoff
from streamkit.errors import ConnectError
from streamkit.generated.streamservice import Position, QueryResult, Row, Update
from streamkit.server import Server
from streamkit.testing import FaultProxy
from streamkit.transport import Channel
from tests.client.fakes import FakeChannel
from tests.client.reading.test_query import query
from tests.client.servers import QUICK, ThreadServer, memory_server, until

SLOW = Backoff(first=600.0, longest=600.0)


async def test_closing_a_client_ends_its_readers() -> None:
    async with memory_server() as address:
        client = AsyncClient(address, backoff=QUICK)
        updates, entries = client.subscribe("a"), client.logs("b", follow=True)
        async with asyncio.timeout(5):
            async with updates, entries:
                reads = [asyncio.create_task(s.receive()) for s in (updates, entries)]
                await asyncio.sleep(0)
                await client.close()
                for read in reads:
                    with pytest.raises(ConnectError, match="the client is closed"):
                        await read
            with pytest.raises(ConnectError, match="closed"):
                client.subscribe("a")


async def test_closing_a_client_ends_who_waits_for_the_next_attempt() -> None:
    waiting = asyncio.Event()

    def on_event(event: Any) -> None:
        if event.kind == "reconnecting":
            waiting.set()

    async with memory_server() as address, FaultProxy(address) as proxy:
        client = AsyncClient(proxy.address, backoff=SLOW, on_event=on_event)
        async with asyncio.timeout(5), client.subscribe("a") as updates:
            read = asyncio.create_task(updates.receive())
            await asyncio.sleep(0)
            await proxy.refuse()
            await waiting.wait()
            await client.close()
            with pytest.raises(ConnectError, match="the client is closed"):
                await read


async def test_closing_the_channel_under_ones_own_resuming_call_ends_it() -> None:
    async with memory_server() as address:
        channel = Channel(address, codec=StreamkitCodec())
        path = "/streamservice.StreamService/SubscribeToUpdates"
        call: ResumingCall[Position, Update] = ResumingCall(
            channel,
            path,
            Position,
            Update,
            request_from=lambda _: Position(epoch="a"),
            position_of=lambda update: update.sequence,
        )
        async with asyncio.timeout(5), call:
            read = asyncio.create_task(call.receive())
            await until(lambda: channel.peer() is not None)
            await channel.aclose()
            with pytest.raises(ConnectError, match="the client is closed"):
                await read


def test_closing_a_client_ends_the_threads_that_read() -> None:
    with ThreadServer() as server:
        for _ in range(5):
            client = Client(server.address)
            reading = threading.Event()
            outcome: list[Any] = []

            def read(client: Any = client, reading: Any = reading, outcome: Any = outcome) -> None:
                try:
                    with client.subscribe("a.b", start="all") as updates:
                        reading.set()
                        for _ in updates:
                            pass
                except ConnectError as error:
                    outcome.append(str(error))

            thread = threading.Thread(target=read, daemon=True)
            thread.start()
            assert reading.wait(10)
            client.close()
            thread.join(5)
            assert not thread.is_alive()
            assert outcome == ["the client is closed"]


def test_what_is_submitted_to_an_ending_portal_gets_an_answer() -> None:
    """Hammered by threads while it closes: none of them may wait for ever."""

    async def nothing() -> None:
        await asyncio.sleep(0)

    for _ in range(20):
        portal = Portal()

        def hammer(portal: Portal = portal) -> None:
            try:
                while True:
                    portal.run(nothing())
            except ConnectError:
                return

        threads = [threading.Thread(target=hammer, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        portal.run(nothing())
        portal.close()
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.mark.parametrize(
    "reading",
    [
        "iter(streamkit.track(range(9), job_id='left', address=sys.argv[1]))",
        "iter(client.subscribe('a.b', start='all'))",
        "iter(client.query('SELECT * FROM updates'))",
        "client.query('SELECT * FROM updates').batches()",
    ],
)
async def test_a_script_ends_with_an_open_iterator_in_a_global(reading: str) -> None:
    script = f"""
import streamkit, sys
client = streamkit.Client(sys.argv[1])
client.publish("a.b", "x")
reading = {reading}
next(reading)
print("end of script", flush=True)
"""
    async with Server(journal=":memory:", port=0) as server:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script, server.address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(child.communicate(), 30)
        async with AsyncClient(server.address) as client:
            jobs = {job.job_id: (job.status, job.error) for job in await client.jobs()}
    assert (child.returncode, out, err) == (0, b"end of script\n", b"")
    if "track" in reading:
        assert jobs == {"left": ("cancelled", "the loop was left early")}


async def test_a_read_that_ran_out_of_time_is_followed_by_the_next_message() -> None:
    async with (
        memory_server() as address,
        AsyncClient(address) as client,
        client.subscribe("a") as updates,
    ):
        records = aiter(updates)
        for number in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(records), 0.02)
            await client.publish("a", str(number))
            assert (await anext(records)).message == str(number)
        assert updates.position is not None
        assert updates.position.sequence == 3


async def test_so_it_is_without_a_context() -> None:
    async with memory_server() as address, AsyncClient(address) as client:
        records = aiter(client.subscribe("a", start="all"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(records), 0.1)
        await client.publish("a", "x")
        assert (await anext(records)).message == "x"
        await records.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(records)


async def test_a_read_that_ran_out_of_time_does_not_shorten_the_delay() -> None:
    """Polled ten times a second, a server that is away is not asked ten times a second."""
    attempts = 0

    def on_event(event: Any) -> None:
        nonlocal attempts
        attempts += event.kind == "reconnecting"

    async with memory_server() as address, FaultProxy(address) as proxy:
        client = AsyncClient(proxy.address, backoff=SLOW, on_event=on_event)
        async with client, client.subscribe("a") as updates:
            await proxy.refuse()
            for _ in range(10):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(updates.receive(), 0.05)
    assert attempts == 1


@pytest.mark.parametrize("how", ["rows", "batches"])
async def test_rows_that_ran_out_of_time_are_not_at_their_end(how: str) -> None:
    more = asyncio.Event()

    async def play(path: str, request: Any) -> AsyncIterator[Any]:
        yield [QueryResult(rows=[Row({"n": "1"})], batch_number=1)]
        await more.wait()
        yield [QueryResult(rows=[Row({"n": "2"})], batch_number=2, is_last=True)]

    # The fake's own generator would not survive the cancellation, either.
    channel = FakeChannel(play)
    async with query(channel) as result:
        call = result._call
        assert call is not None
        waits = call.receive

        async def receive() -> list[QueryResult]:
            await more.wait()
            return await waits()

        call.receive = receive  # type: ignore[method-assign]  # the moment of the test
        rows = aiter(getattr(result, how)())
        await anext(rows)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(rows), 0.02)
        more.set()
        assert len([row async for row in rows]) == 1
