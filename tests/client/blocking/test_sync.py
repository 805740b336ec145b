"""Client and track: no event loop in sight."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from streamkit.client.aio import AsyncClient
from streamkit.client.blocking.client import Client
from streamkit.client.blocking.results import SyncJob, SyncQuery
from streamkit.client.blocking.track import track
from streamkit.client.reading.query import Query
from streamkit.client.writing.job import JobHandle
from streamkit.errors import ConnectError, NotFoundError, StreamkitError
from tests.client.servers import QUICK, ThreadServer


@pytest.fixture
def client(server: ThreadServer) -> Iterator[Client]:
    with Client(server.address, backoff=QUICK) as client:
        yield client


def test_updates(client: Client) -> None:
    with client.subscribe("sync.*") as updates:
        first = client.publish("sync.a", "1")
        with client.publisher() as publisher:
            for number in range(2, 3001):
                publisher.send("sync.b", str(number))
            assert publisher.flush() == first + 2999
        assert (publisher.acknowledged, publisher.dropped) == (2999, 0)
        got = []
        for update in updates:
            got.append(update.message)
            if len(got) == 3000:
                break
        assert got == [str(number) for number in range(1, 3001)]
        assert updates.position is not None
        assert updates.position.sequence == first + 2999
    for update in client.subscribe("sync.>", start="all"):
        assert update.message == "1"
        break
    assert client.ping() > 0


def test_logs_and_levels(client: Client) -> None:
    with client.log_writer("sync-api") as writer:
        for number in range(3):
            assert writer.write(f"line {number}", "warn" if number else "debug")
    assert [e.message for e in client.logs("sync-api", level="warn")] == ["line 1", "line 2"]


def test_a_job_and_its_watcher(client: Client) -> None:
    states = []

    def watch() -> None:
        states.extend([s.percentage for s in client.watch_job("sync-job", wait=5)])

    watching = threading.Thread(target=watch)
    watching.start()
    with client.job("sync-job", total=2) as job:
        job.update(completed=1, step="half")
        job.log("a line", size=1)
        assert not job.cancel_requested
    watching.join(10)
    assert states[-1] == 100
    assert client.jobs(limit=1)[0].status == "completed"
    with pytest.raises(ValueError, match="boom"), client.job("sync-fails"):
        raise ValueError("boom")
    assert client.jobs(statuses=["failed"])[0].error == "ValueError: boom"
    with pytest.raises(NotFoundError):
        client.cancel_job("nobody")


def test_errors_cross_the_threads(client: Client) -> None:
    with pytest.raises(StreamkitError):
        client.publish("a b", "x")
    with pytest.raises(StreamkitError):
        client.tables("nowhere")
    with pytest.raises(StreamkitError):
        list(client.query("select 1", database="nowhere"))


async def test_it_works_inside_a_running_loop(server: ThreadServer) -> None:
    """As in a notebook."""
    with Client(server.address) as client:
        assert client.publish("sync.loop", "x")


def test_a_callback_that_calls_the_client_is_told_instead_of_hanging(server: ThreadServer) -> None:
    errors: list[Exception] = []
    inside: list[Client] = []

    def on_event(event: object) -> None:
        try:
            inside[0].ping()
        except ConnectError as error:
            errors.append(error)

    with Client(server.address, on_event=on_event) as client:
        inside.append(client)
        with client.subscribe("x"):
            pass
    assert "callback" in str(errors[0])


def test_closing_ends_the_thread_and_says_so_afterwards(server: ThreadServer) -> None:
    before = threading.active_count()
    client = Client(server.address)
    assert threading.active_count() == before, "nothing runs before the first call"
    client.ping()
    client.close()
    client.close()
    assert threading.active_count() == before
    with pytest.raises(ConnectError, match="closed"):
        client.ping()


def test_an_interrupt_ends_a_waiting_stream(server: ThreadServer) -> None:
    main = threading.main_thread().ident
    assert main is not None
    with Client(server.address) as client, client.subscribe("sync.silent") as updates:
        timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            updates.receive()
        timer.join()
        assert client.ping() > 0


def test_a_forked_child_gets_a_connection_of_its_own(server: ThreadServer) -> None:
    with Client(server.address) as client:
        client.publish("fork", "parent")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork, from 3.12 on
            child = os.fork()
        if child == 0:
            code = 1
            try:
                client.publish("fork", "child")
                client.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        client.publish("fork", "parent again")
        got = []
        for update in client.subscribe("fork", start="all"):
            got.append(update.message)
            if len(got) == 3:
                break
    assert got == ["parent", "child", "parent again"]


# ---- track ----


def test_a_tracked_loop_is_a_job(server: ThreadServer, client: Client) -> None:
    items = list(track(range(100), job_id="loop", description="counting", client=client))
    assert items == list(range(100))
    (state,) = [job for job in client.jobs() if job.job_id == "loop"]
    assert (state.status, state.percentage, state.completed, state.total) == (
        "completed",
        100,
        100,
        100,
    )
    assert state.current_step == "counting"


def test_a_loop_left_early_and_one_that_fails(client: Client) -> None:
    for item in track(range(10), job_id="left", client=client):
        if item == 3:
            break

    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(track(broken(), job_id="broken", client=client))
    states = {job.job_id: (job.status, job.error) for job in client.jobs()}
    assert states["left"] == ("cancelled", "the loop was left early")
    assert states["broken"] == ("failed", "ValueError: no more")


def test_a_loop_goes_on_without_a_server() -> None:
    started = time.monotonic()
    assert list(track(range(3), address="127.0.0.1:9")) == [0, 1, 2]
    assert time.monotonic() - started < 4


def test_tracking_costs_the_loop_next_to_nothing(server: ThreadServer, client: Client) -> None:
    count = 200_000
    started = time.perf_counter()
    for _ in track(range(count), job_id="fast", client=client):
        pass
    cost = (time.perf_counter() - started) / count
    print(f"track: {cost * 1e6:.2f} us an item")
    assert cost < 20e-6
    assert len([job for job in client.jobs() if job.job_id == "fast"]) == 1


def test_the_blocking_client_has_every_method_of_the_asynchronous_one() -> None:
    for one, other in ((AsyncClient, Client), (Query, SyncQuery), (JobHandle, SyncJob)):
        names = {name for name in dir(one) if not name.startswith("_")}
        assert names - set(dir(other)) <= {"on_reply", "note"}, one
        for name in names & set(dir(other)):
            assert getattr(other, name).__doc__, f"{other.__name__}.{name}"


def test_a_job_logs_with_fields(server: ThreadServer, client: Client) -> None:
    with client.job("fields") as job:
        job.log("at work", "warn", part=7)
    (entry,) = client.logs("fields")
    assert (entry.level, entry.fields["part"]) == ("warn", "7")
