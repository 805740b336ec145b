"""AsyncClient against a real server on loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from streamkit import Client, StreamHandler, track
from streamkit.client import AsyncClient, ClientEvent, Position, after, last, since
from streamkit.errors import (
    AlreadyExistsError,
    ConnectError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    StreamkitError,
)
from streamkit.generated.streamservice import Update
from tests.client.servers import QUICK, ThreadServer, memory_server, until


@pytest.fixture
async def client() -> AsyncIterator[AsyncClient]:
    async with memory_server() as address, AsyncClient(address, backoff=QUICK) as client:
        yield client


async def test_what_is_published_arrives(client: AsyncClient) -> None:
    async with client.subscribe("orders.*", "news") as updates:
        first = await client.publish("orders.eu", {"id": 7}, metadata={"who": 1})
        await client.publish("other", "not wanted")
        await client.publish("news", b"caf\xc3\xa9 \xff")
        got = []
        async for update in updates:
            got.append(update)
            if len(got) == 2:
                break
        assert updates.position == Position(updates.position.epoch, first + 2)  # type: ignore[union-attr]  # set by now
    assert [(u.topic, u.message, u.metadata) for u in got] == [
        ("orders.eu", '{"id":7}', {"who": "1"}),
        ("news", "café �", {}),
    ]


async def test_lone_surrogates_do_not_kill_a_stream(client: AsyncClient) -> None:
    await client.publish("a", "x\ud800y")
    async with client.subscribe("a", start="all") as updates:
        assert (await updates.receive())[0].message == "x�y"


@pytest.mark.parametrize("topic", ["", "a b", "a.*", "a..b", ">", "x" * 256, "a\nb"])
async def test_a_topic_that_the_server_refuses_is_refused_here(
    client: AsyncClient, topic: str
) -> None:
    with pytest.raises(InvalidArgumentError, match="topic"):
        await client.publish(topic, "x")


async def test_publish_many_gives_every_sequence(client: AsyncClient) -> None:
    assert await client.publish_many([]) == []
    sequences = await client.publish_many([Update(topic="a", message=str(n)) for n in range(5)])
    assert sequences == list(range(sequences[0], sequences[0] + 5))


async def take(client: AsyncClient, start: object, count: int) -> list[str]:
    async with client.subscribe("a", start=start) as updates:  # type: ignore[arg-type]  # all kinds
        got: list[str] = []
        while len(got) < count:
            got += [update.message for update in await updates.receive()]
    return got


async def test_every_start(client: AsyncClient) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    for number in range(5):
        await client.publish("a", str(number))
    async with client.subscribe("a", start="all") as updates:
        await updates.receive()
        assert updates.position is not None
        epoch = updates.position.epoch
    assert await take(client, "all", 5) == ["0", "1", "2", "3", "4"]
    assert await take(client, last(2), 2) == ["3", "4"]
    assert await take(client, since(before), 5) == ["0", "1", "2", "3", "4"]
    assert await take(client, timedelta(minutes=1), 5) == ["0", "1", "2", "3", "4"]
    assert await take(client, after(Position(epoch, 3)), 2) == ["3", "4"]
    with pytest.raises(PreconditionError):
        await take(client, after(Position("another", 3)), 1)


async def test_a_position_in_the_middle_of_a_batch_starts_a_later_stream(
    client: AsyncClient,
) -> None:
    for number in range(5):
        await client.publish("a", str(number))
    async with client.subscribe("a", start="all") as updates:
        async for update in updates:
            if update.message == "2":
                break
        place = updates.position
    assert await take(client, place, 2) == ["3", "4"]


async def test_a_stream_without_its_context_ends_with_the_loop(client: AsyncClient) -> None:
    await client.publish("a", "x")
    async for update in client.subscribe("a", start="all"):
        assert update.message == "x"
        break
    await until_no_subscribers(client)


async def until_no_subscribers(client: AsyncClient) -> None:
    async with asyncio.timeout(5):
        while any(stream.subscribers for stream in (await client.status()).streams):
            await asyncio.sleep(0.01)


async def test_cancelling_ends_the_call_on_the_server_too(client: AsyncClient) -> None:
    reading = asyncio.Event()

    async def read() -> None:
        async with client.subscribe("a") as updates:
            reading.set()
            await updates.receive()

    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_no_subscribers(client)


async def test_a_wrong_address_fails_at_once() -> None:
    async with AsyncClient("127.0.0.1:9") as client:
        with pytest.raises(ConnectError):
            await client.publish("a", "x")
        with pytest.raises(ConnectError):
            async with client.subscribe("a"):
                pass
        with pytest.raises(ConnectError):
            await client.query("select 1").start()
        with pytest.raises(ConnectError):
            async with client.job("j"):
                pass


async def test_a_closed_client_says_so(client: AsyncClient) -> None:
    await client.ping()
    await client.close()
    await client.close()
    with pytest.raises(ConnectError, match="closed"):
        await client.ping()


async def test_closing_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    async with memory_server() as address:
        inside = asyncio.all_tasks()
        client = AsyncClient(address)
        publisher = client.publisher()
        await publisher.send("a", "x")
        await publisher.flush()
        job = client.job("j")
        await job.__aenter__()
        stream = client.subscribe("a")
        await stream.__aenter__()
        await client.close()
        names = {task.get_name() for task in asyncio.all_tasks() - inside}
        assert not {name for name in names if name.startswith(("streamkit", "dial"))}
        await stream.close()
    assert asyncio.all_tasks() == before


async def test_logs_with_history_levels_and_following(client: AsyncClient) -> None:
    async with client.log_writer("api") as writer:
        for number in range(4):
            assert writer.write(
                f"line {number}", "warning" if number % 2 else "debug", {"n": number}
            )
    assert (writer.acknowledged, writer.dropped) == (4, 0)
    got = [entry.message async for entry in client.logs("api", level="warn", lines=10)]
    assert got == ["line 1", "line 3"]
    async with client.logs("a*", "other", lines=1, follow=True) as entries:
        async with client.log_writer("other") as writer:
            await writer.send("new", "error")
        seen = []
        async for entry in entries:
            seen.append((entry.service, entry.message))
            if len(seen) == 2:
                break
    assert seen == [("api", "line 3"), ("other", "new")]


async def test_a_job_from_start_to_end(client: AsyncClient) -> None:
    async def watch() -> list[tuple[str, int, str]]:
        return [
            (state.status, state.percentage, state.current_step)
            async for state in client.watch_job("build", wait=5)
        ]

    watching = asyncio.create_task(watch())
    async with client.job("build", total=4, step="compile") as job:
        await job.update(completed=2, step="link")
        await job.log("linking", "info", size=3)
        await job.update(completed=3)
        with pytest.raises(AlreadyExistsError):
            async with client.job("build"):
                pass
    states = await watching
    assert states[-1] == ("completed", 100, "link")
    assert ("running", 50, "link") in states
    entries = [entry async for entry in client.logs("build")]
    assert [(e.message, e.fields) for e in entries] == [
        ("linking", {"job_id": "build", "size": "3"})
    ]
    again = [state.status async for state in client.watch_job("build")]
    assert again == ["completed"]


async def test_a_total_that_becomes_known_stays_known(client: AsyncClient) -> None:
    async with client.job("count") as job:
        await job.update(completed=1, total=8)
        await job.update(step="on")
        await job.update(completed=2)
    (state,) = [s async for s in client.watch_job("count", start="all") if s.completed == 2][:1]
    assert (state.total, state.percentage) == (8, 25)


async def test_a_job_that_has_had_its_run_runs_again_under_the_next_number(
    client: AsyncClient,
) -> None:
    ids = []
    for _ in range(3):
        async with client.job("import") as job:
            await job.log("at work")
            ids.append(job.id)
    assert ids == ["import", "import-2", "import-3"]
    states = {state.job_id: state.status for state in await client.jobs()}
    assert states == dict.fromkeys(ids, "completed")
    assert len([entry async for entry in client.logs("import")]) == 3, "one log for all runs"


async def test_how_a_block_ends_is_how_its_job_ends(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="boom"):
        async with client.job("fails"):
            raise ValueError("boom")
    with pytest.raises(asyncio.CancelledError):
        async with client.job("cancelled"):
            raise asyncio.CancelledError
    async with client.job("explicit") as job:
        await job.finish("failed", "no disk", exit_code=3)
    states = {state.job_id: state for state in await client.jobs()}
    assert (states["fails"].status, states["fails"].error) == ("failed", "ValueError: boom")
    assert states["cancelled"].status == "cancelled"
    assert (states["explicit"].status, states["explicit"].exit_code) == ("failed", 3)
    assert [state.job_id for state in await client.jobs(statuses=["cancelled"])] == ["cancelled"]


async def test_advance_is_reported_though_throttled(client: AsyncClient) -> None:
    async with client.job("loop", total=1000) as job:
        for _ in range(500):
            await job.advance()
        async for state in client.watch_job("loop"):
            if state.completed == 500:
                break
    states = await client.jobs()
    assert states[0].sequence < 10


async def test_a_cancel_request_reaches_the_worker(client: AsyncClient) -> None:
    async with client.job("long", heartbeat=0.3) as job:
        await client.cancel_job("long", "not needed")
        async with asyncio.timeout(5):
            await job.cancel_requested.wait()
    assert (await client.jobs())[0].status == "cancelled"


async def test_an_unknown_job_is_not_found_after_the_wait(client: AsyncClient) -> None:
    for wait in (0.0, 0.1):
        with pytest.raises(NotFoundError):
            async with client.watch_job("nobody", wait=wait) as states:
                await states.receive()


async def test_a_server_that_goes_away_and_comes_back_is_told_as_events() -> None:
    from streamkit.testing import FaultProxy

    events: list[ClientEvent] = []
    async with memory_server() as address, FaultProxy(address) as proxy:
        client = AsyncClient(proxy.address, backoff=QUICK, on_event=events.append)
        async with client, client.subscribe("a") as updates:
            await client.publish("a", "1")
            assert (await updates.receive())[0].message == "1"
            await proxy.refuse()
            reading = asyncio.create_task(updates.receive())
            await until(lambda: any(event.kind == "reconnecting" for event in events))
            await proxy.heal()
            await client.publish("a", "2")
            assert (await reading)[0].message == "2"
    kinds = [event.kind for event in events]
    assert kinds[:3] == ["connected", "lost", "reconnecting"]
    assert kinds[-1] == "resumed" or "resumed" in kinds
    told = [event for event in events if event.kind == "reconnecting"]
    assert all(event.delay is not None for event in told)


async def test_without_reconnect_the_break_is_the_users(client: AsyncClient) -> None:
    from streamkit.testing import FaultProxy

    async with FaultProxy(client.address) as proxy:
        reasons = {proxy.reset: "Connection reset by peer", proxy.cut: "closed by the peer"}
        for fault, reason in reasons.items():
            plain = AsyncClient(proxy.address, reconnect=False)
            async with plain, plain.subscribe("a") as updates:
                fault()
                with pytest.raises(ConnectError, match=f"^the connection was lost: {reason}$"):
                    await updates.receive()


async def test_a_callback_that_raises_harms_nothing(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: ClientEvent) -> None:
        raise RuntimeError("my callback")

    other = AsyncClient(client.address, on_event=broken)
    async with other, other.subscribe("a") as updates:
        await other.publish("a", "x")
        assert await updates.receive()
    assert "my callback" in caplog.text


async def test_a_silent_server_is_noticed_and_left(client: AsyncClient) -> None:
    """A black hole: the connection looks alive, only the heartbeats are missing."""
    from streamkit.testing import FaultProxy

    events: list[ClientEvent] = []
    async with FaultProxy(client.address) as proxy:
        other = AsyncClient(proxy.address, backoff=QUICK, idle_timeout=0.4, on_event=events.append)
        async with other, other.subscribe("a") as updates:
            reading = asyncio.create_task(updates.receive())
            await asyncio.sleep(0.8)
            assert not [event for event in events if event.kind == "lost"], "heartbeats count"
            proxy.black_hole()
            await until(lambda: any(event.kind == "lost" for event in events))
            await proxy.heal()
            await client.publish("a", "late")
            assert (await reading)[0].message == "late"


async def test_every_failure_is_of_the_tree(client: AsyncClient) -> None:
    for work in (
        client.publish("a b", "x"),
        client.publish("a", object()),
        client.cancel_job("nobody"),
        client.describe("nothing", "nowhere"),
        client.tables("nowhere"),
        client.query("select").start(),
        client.subscribe("a..b").__aenter__(),
        client.logs(level="loud").__aenter__(),
    ):
        with pytest.raises(StreamkitError):
            await work
    for make in (
        lambda: client.subscribe(),
        lambda: client.logs(lines=-1),
        lambda: client.watch_job(""),
        lambda: client.job("x", total=-1),
        lambda: client.job("x", heartbeat=0),
        lambda: client.query("select 1", batch=-1),
        lambda: client.query("select 1", "text"),
        lambda: client.query("select 1", [object()]),
        lambda: client.query("select 1", [datetime(2026, 1, 1)]),
        lambda: client.publisher(buffer=0),
        lambda: client.log_writer(""),
        lambda: last(-1),
    ):
        with pytest.raises(InvalidArgumentError):
            make()


async def test_the_address_is_that_of_the_environment_unless_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STREAMKIT_SERVER", "elsewhere:1")
    assert AsyncClient().address == "elsewhere:1"
    assert AsyncClient("here:2").address == "here:2"
    assert StreamHandler("api").address == "elsewhere:1"
    monkeypatch.setenv("STREAMKIT_SERVER", "")
    assert AsyncClient().address == "localhost:50051"
    async with memory_server() as address:
        monkeypatch.setenv("STREAMKIT_SERVER", address)
        assert await asyncio.to_thread(lambda: list(track("abc", job_id="by-name"))) == [*"abc"]
        with_client = await asyncio.to_thread(_jobs_of_the_environment)
    assert with_client == ["by-name"]


def _jobs_of_the_environment() -> list[str]:
    with Client() as client:
        return [job.job_id for job in client.jobs()]


def test_a_client_dials_anew_on_the_next_loop() -> None:
    """In a process of its own: what the former loops left open stays theirs until it ends."""
    script = """
import asyncio, streamkit, sys
client = streamkit.AsyncClient(sys.argv[1])

async def publish():
    return await client.publish("a.b", "x")

async def read():
    async with client.subscribe("a.b", start="all") as updates:
        return [update.message for update in await updates.receive()]

print(asyncio.run(publish()), asyncio.run(publish()), asyncio.run(read()))
"""
    with ThreadServer() as server:
        child = subprocess.run(
            [sys.executable, "-c", script, server.address],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (child.stdout, child.stderr) == ("1 2 ['x', 'x']\n", "")


def test_a_client_of_a_loop_that_runs_says_so_to_another() -> None:
    with ThreadServer() as server:
        client = AsyncClient(server.address)

        async def use() -> None:
            await client.ping()
            with pytest.raises(PreconditionError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, client.ping())
            await client.close()

        asyncio.run(use())
