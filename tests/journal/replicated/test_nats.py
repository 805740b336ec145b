"""The log in NATS JetStream: what it refuses, and what it survives."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from itertools import count, pairwise
from pathlib import Path

import pytest

from streamkit.background import all_ended, ended
from streamkit.config import JournalOptions, LogLimits
from streamkit.errors import StoreError
from streamkit.journal import Journal, ProducerId, open_journal
from streamkit.journal.replicated.jetstream import Away, JetStream
from streamkit.journal.replicated.log import LogEntry
from streamkit.journal.replicated.nats import NatsLog
from streamkit.journal.replicated.opening import log_at
from streamkit.testing.journal.support import Clock, following, stored, texts, topics, updates
from tests.brokers import Brokers, running_brokers
from tests.journal.replicated.logs import follow

_NUMBERS = count()

Join = Callable[..., Awaitable[Journal]]


@pytest.fixture
def name() -> str:
    return f"replicated{next(_NUMBERS)}"


@pytest.fixture
async def join(name: str, tmp_path: Path) -> AsyncIterator[Join]:
    """Starts a server on the log of this test at some brokers; all are closed at the end."""
    async with AsyncExitStack() as stack:

        async def one(brokers: Brokers, folder: str, options: str = "") -> Journal:
            url = brokers.url(name, options)
            journal = await open_journal(url, JournalOptions(), data=tmp_path / folder)
            return await stack.enter_async_context(journal)

        yield one


async def test_two_servers_have_the_same(join: Join, nats: Brokers) -> None:
    a, b = await join(nats, "a"), await join(nats, "b")
    async with following(b, topics()) as reader:
        await asyncio.gather(*(a.append_updates(updates(f"{n}")) for n in range(100)))
        await reader.until(100)
    assert texts(await stored(b, topics())) == texts(await stored(a, topics()))


async def test_a_broker_that_dies_loses_nothing_and_an_older_copy_of_it_is_refused(
    join: Join, tmp_path: Path
) -> None:
    with running_brokers() as brokers:
        (broker,) = brokers.servers
        a = await join(brokers, "a")
        for n in range(5):
            await a.append_updates(updates(f"{n}"))
        broker.kill()
        waiting = asyncio.ensure_future(a.append_updates(updates("5"), ProducerId("p", 1)))
        shutil.copytree(broker.folder / "store", tmp_path / "older")
        broker.start()
        assert (await waiting).first == 6
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        a.on_lost = lambda error: lost.set_result(error.message)
        broker.kill()
        shutil.rmtree(broker.folder / "store")
        shutil.copytree(tmp_path / "older", broker.folder / "store")
        broker.start()
        assert " went " in await lost  # back, or another way, when somebody has written to it since
        with pytest.raises(StoreError, match=" went "):
            await a.append_updates(updates("new"))
        await a.close()
        with pytest.raises(StoreError, match=" went "):
            await join(brokers, "a")


async def test_a_server_can_leave_while_the_brokers_are_away(tmp_path: Path) -> None:
    with running_brokers() as brokers:
        log = log_at(brokers.url("left"))
        a = await follow(log, tmp_path, Clock(), limits=LogLimits(lag=2.0), steady=time.monotonic)
        brokers.servers[0].kill()
        waiting = [asyncio.ensure_future(a.append_updates(updates(f"{n}"))) for n in range(20)]
        async with asyncio.timeout(60):
            await a.close()  # what is repeated meanwhile waits for a connection
            done = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(one, StoreError) for one in done)


async def test_a_log_that_was_made_anew_is_another_one(
    join: Join, nats: Brokers, name: str
) -> None:
    a = await join(nats, "a")
    await a.append_updates(updates("x"))
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    a.on_lost = lambda error: lost.set_result(error.message)
    url = f"nats://127.0.0.1:{nats.servers[0].port}"
    jetstream = await JetStream.connect([url], url)
    await jetstream.api(f"STREAM.DELETE.{name}", {})
    await jetstream.close()
    b = await join(nats, "b")
    assert "is another one now" in await lost
    with pytest.raises(StoreError, match="another one now"):
        await a.append_updates(updates("y"))
    assert await stored(b, topics()) == []
    await a.close()
    with pytest.raises(StoreError, match="belongs to another log"):
        await join(nats, "a")


async def test_snapshots_come_back_as_they_were_given(nats: Brokers, name: str) -> None:
    from streamkit.journal.replicated.log import Snapshot

    log = log_at(nats.url(name))
    await log.open()
    assert await log.snapshot() is None

    async def parts(number: int) -> AsyncIterator[bytes]:
        for n in range(number):
            yield b"%d" % n * 100_000

    for place in (1, 2):
        given = Snapshot(place=place, size=5, digest=f"{place}", name=f"{place}")
        await log.put_snapshot(given, parts(place + 2))
        found = await log.snapshot()
        assert found is not None and (found.place, found.digest) == (place, f"{place}")
        assert [part async for part in log.get_snapshot(found)] == [
            part async for part in parts(place + 2)
        ]
    await log.close()


async def test_streams_and_servers_that_would_lose_what_they_acknowledged_are_refused(
    nats: Brokers, name: str, tmp_path: Path
) -> None:
    import nats as client

    async def refused(url: str, match: str) -> None:
        with pytest.raises(StoreError, match=match) as told:
            await open_journal(url, data=tmp_path)
        assert "\n" not in told.value.message

    await refused(nats.url(name, "&replicas=3"), "replicas")
    connection = await client.connect(f"nats://127.0.0.1:{nats.servers[0].port}")
    stream = connection.jetstream()
    await stream.add_stream(name=f"{name}a", subjects=[f"sk.{name}a"])
    await refused(nats.url(f"{name}a"), "no log of streamkit")
    await stream.add_stream(name=f"{name}b", subjects=["other"])
    await refused(nats.url(f"{name}b"), "no log of streamkit")
    await connection.close()
    with running_brokers(sync="sync_interval: 2m") as lazy:
        await refused(lazy.url(name), "before it syncs")
        await refused(
            f"nats://127.0.0.1:{lazy.servers[0].port}/x?monitor=1", "no NATS server tells"
        )
        async with await open_journal(lazy.url(name, "&sync=lazy"), data=tmp_path / "lazy"):
            pass
    with running_brokers(payload="") as small:
        await refused(small.url(name), "max_payload: |takes messages of")
    with running_brokers(jetstream=False) as off:
        await refused(off.url(name), "JetStream is off")
        await refused(off.url(name, "&sync=lazy"), "nobody answers for JetStream")
    await refused("nats://127.0.0.1:1/x", "does not answer")


async def test_a_server_of_before_is_refused(
    nats: Brokers, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.journal.replicated.nats._OLDEST", (99, 0))
    with pytest.raises(StoreError, match="or later"):
        await open_journal(nats.url(name), data=tmp_path)


class Front:
    """Stands before a broker. Once `idle`, it is one that is there and does nothing for the log, as
    one that is cut off from the others: it answers pings, and nothing else."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.idle = False
        self.lose = b""
        """What holds it is lost on its way home, once."""
        self.met = 0
        """Connections until now."""

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await all_ended(self._tasks)

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met += 1
        task = asyncio.get_running_loop().create_task(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)

        async def forth() -> None:
            while data := await reader.read(65536):
                if not self.idle:
                    back.write(data)
                elif b"PING\r\n" in data:
                    writer.write(b"PONG\r\n")

        async def home() -> None:
            while data := await there.read(65536):
                if self.lose and self.lose in data:
                    self.lose = b""
                elif not self.idle:
                    writer.write(data)

        try:
            await asyncio.gather(forth(), home())
        finally:
            back.close()
            writer.close()


async def test_another_broker_is_asked_when_one_does_nothing_for_the_log(
    nats: Brokers, name: str
) -> None:
    port = nats.servers[0].port
    front = Front(port)
    async with front as address:
        log = NatsLog(
            [f"nats://{address}", f"nats://127.0.0.1:{port}"],
            name,
            "nats://…",
            replicas=1,
            monitor=None,
            patience=0.5,
            dont_randomize=True,
        )
        await log.open()
        assert front.met == 2  # one to write, one to read
        seen: list[bytes] = []

        async def tail() -> None:
            async for entries in log.tail(0):
                seen.extend(entry.data for entry in entries)

        reading = asyncio.create_task(tail())
        await log.append(b"first")
        async with asyncio.timeout(20):
            while b"first" not in seen:
                await asyncio.sleep(0.01)
            front.idle = True
            while b"second" not in seen:  # as the outbox does: until it comes out
                await log.append(b"second")
                await asyncio.sleep(0.05)
        await ended(reading)
        await log.close()


async def test_an_entry_that_is_lost_on_its_way_is_asked_for_again(
    nats: Brokers, name: str
) -> None:
    front = Front(nats.servers[0].port)
    async with front as address:
        log = NatsLog([f"nats://{address}"], name, "nats://…", replicas=1, monitor=None)
        await log.open()
        found: list[LogEntry] = []

        async def tail() -> None:
            async for entries in log.tail(0):
                found.extend(entries)

        reading = asyncio.create_task(tail())
        async with asyncio.timeout(30):
            await log.append(b"first")
            while not found:
                await asyncio.sleep(0.01)
            front.lose = b"second"
            await log.append(b"second")
            while front.lose:
                await asyncio.sleep(0.01)
            await log.append(b"third")
            while found[-1].data != b"third":
                await asyncio.sleep(0.01)
        places = [entry.place for entry in found]
        assert len(places) > 3  # it began again with the last one that it had
        assert set(places) == {1, 2, 3} and all(b <= a + 1 for a, b in pairwise(places)), places
        await ended(reading)
        await log.close()


async def test_what_may_be_asked_twice_needs_one_answer(nats: Brokers, name: str) -> None:
    front = Front(nats.servers[0].port)
    async with front as address:
        jetstream = await JetStream.connect([f"nats://{address}"], "nats://…")
        await jetstream.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": [name]})
        front.lose = b"stream_info_response"
        found = await jetstream.soon(f"STREAM.INFO.{name}", {})
        assert not front.lose and found["config"]["name"] == name
        await jetstream.close()


async def test_a_consumer_that_does_not_begin_where_it_should_is_not_read(
    nats: Brokers, name: str
) -> None:
    jetstream = await JetStream.connect([f"nats://127.0.0.1:{nats.servers[0].port}"], "nats://…")
    await jetstream.api(f"STREAM.CREATE.{name}", {"name": name, "subjects": [name]})
    for text in (b"1", b"2"):
        await jetstream.ask(name, text)
    with pytest.raises(Away):  # although it gives signs of life
        await anext(jetstream.pulled(name, 5, 8, there=True))
    (found,) = await anext(jetstream.pulled(name, 2, 8, there=True))
    assert found[1].data == b"2"
    await jetstream.close()


async def test_who_gets_signs_of_life_and_no_entries_reads_elsewhere(
    nats: Brokers, name: str
) -> None:
    url = f"nats://127.0.0.1:{nats.servers[0].port}"
    log = NatsLog([url], name, url, replicas=1, monitor=None, patience=0.2)
    await log.open()
    other = await JetStream.connect([url], url)
    entries = log.tail(0)
    await log.append(b"first")
    assert (await anext(entries))[0].data == b"first"
    reading = asyncio.ensure_future(anext(entries))
    consumers = await other.api(f"CONSUMER.NAMES.{name}", {})
    paused = {"pause_until": "2200-01-01T00:00:00Z"}
    for consumer in consumers["consumers"]:
        await other.api(f"CONSUMER.PAUSE.{name}.{consumer}", paused)
    await log.append(b"second")
    async with asyncio.timeout(30):
        while not reading.done():
            with suppress(StoreError):  # what is asked while it moves is not answered
                await log.status(1.0)
            await asyncio.sleep(0.05)
    found = await reading
    while found[-1].data != b"second":  # begins with the one that was read before
        found = await anext(entries)
    await entries.aclose()
    await other.close()
    await log.close()


async def test_a_leader_that_does_not_know_all_of_its_log_at_once_is_given_time(
    nats: Brokers, name: str
) -> None:
    url = f"nats://127.0.0.1:{nats.servers[0].port}"
    log = NatsLog([url, url], name, url, replicas=1, monitor=None)
    await log.open()
    await log.append(b"first")
    entries = log.tail(2)
    reading = asyncio.ensure_future(anext(entries))
    done, _ = await asyncio.wait({reading}, timeout=0.5)
    assert not done
    async with asyncio.timeout(20):
        await log.append(b"second")
        assert [(one.place, one.data) for one in await reading] == [(2, b"second")]
    await entries.aclose()
    await log.close()
