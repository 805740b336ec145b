"""Statements run in processes of their own: bounded, ended for real, and gone with their server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from streamkit.config import QueryLimits
from streamkit.database import Databases, QueryPlan, open_source
from streamkit.database.base import Result
from streamkit.database.running.children import Child
from streamkit.database.running.parcels import Ended, Parcel, packed, unpacked
from streamkit.database.running.processes import NURSERY
from streamkit.database.sources.sqlite.source import SqliteSource
from streamkit.errors import DeadlineError, LimitError, QueryError, StreamkitError
from tests.database.engines import Engine
from tests.database.queries import rows_of

MIB = 1 << 20
COUNT = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 100000) "
ONE_LONG_CALL = (
    "SELECT length(replace(hex(zeroblob(500000)), hex(zeroblob(250000)) || '1', ''))"
    " + length(replace(hex(zeroblob(500001)), hex(zeroblob(250000)) || '1', ''))"
)
LONG_COMPILATION = (
    "WITH t0(x) AS (SELECT 1), "
    + ", ".join(f"t{i}(x) AS (SELECT a.x FROM t{i - 1} a, t{i - 1} b)" for i in range(1, 23))
    + " SELECT count(*) FROM t22"
)
"""Every name stands for two of the one before: four million selects, before the first step."""
MUCH_MEMORY = {
    "sqlite": [
        COUNT + "SELECT json_group_array(hex(zeroblob(400000))) FROM n",
        COUNT + "SELECT json_group_object(x, hex(zeroblob(400000))) FROM n",
        LONG_COMPILATION,
    ],
    "duckdb": [
        "SELECT len(list_sort(range(500000000)))",
        "SELECT length(repeat('x', 1000000000))",
        "SELECT length(lpad('x', 1000000000, 'y'))",
    ],
}


@pytest.fixture
async def databases(sqlite_engine: Engine) -> AsyncIterator[Databases]:
    databases = Databases({"db": open_source("db", sqlite_engine.url)})
    await rows_of(databases, "SELECT 1")
    async with asyncio.timeout(30):
        while making := asyncio.all_tasks() - {asyncio.current_task()}:  # those kept ready
            await asyncio.wait(making)
    yield databases
    await databases.close()


def alive(numbers: set[int]) -> set[int]:
    return {
        number
        for number in numbers
        if psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    }


async def gone(numbers: set[int]) -> None:
    async with asyncio.timeout(30):
        while alive(numbers):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("sql", [ONE_LONG_CALL, LONG_COMPILATION], ids=["call", "compilation"])
async def test_what_cannot_be_interrupted_ends_in_time(databases: Databases, sql: str) -> None:
    began = time.monotonic()
    busy = [rows_of(databases, sql, seconds=0.5) for _ in range(8)]
    ended = await asyncio.gather(*busy, return_exceptions=True)
    took = time.monotonic() - began
    assert {type(error) for error in ended} <= {DeadlineError, LimitError}
    began = time.monotonic()
    assert await rows_of(databases, "SELECT 1 AS a") == [{"a": "1"}]
    waited = time.monotonic() - began
    print(f"\n8 statements that were given 0.5 s took {took:.2f} s; one after them {waited:.2f} s")
    assert took < 5  # the aim is 0.8 s on a machine that does nothing else
    assert waited < 5  # the aim is 1 s
    assert databases.running == 0


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
async def test_memory_is_bounded_for_real(kind: str, request: pytest.FixtureRequest) -> None:
    engine: Engine = request.getfixturevalue(f"{kind}_engine")
    limits = QueryLimits(max_memory=64 * MIB)
    databases = Databases({"db": open_source("db", engine.url, limits)}, limits)
    await rows_of(databases, "SELECT 1")
    ours = psutil.Process().memory_info().rss
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            for number in alive(databases.processes):
                with contextlib.suppress(psutil.NoSuchProcess):
                    most = max(most, psutil.Process(number).memory_info().rss)
            await asyncio.sleep(0.01)

    watching = asyncio.create_task(watch())
    for sql in MUCH_MEMORY[kind]:
        with pytest.raises((LimitError, QueryError, DeadlineError)):
            await rows_of(databases, sql, seconds=3.0)
    watching.cancel()
    assert await rows_of(databases, "SELECT 1 AS a") == [{"a": "1"}]
    print(f"\n{kind}: the largest process had {most >> 20} MiB")
    assert most < 512 * MIB
    assert psutil.Process().memory_info().rss - ours < 64 * MIB
    await databases.close()


async def test_a_cancelled_query_leaves_its_process_for_the_next(databases: Databases) -> None:
    unbounded = COUNT.replace("100000", "100000000") + "SELECT x FROM n"
    before = databases.processes
    for _ in range(20):
        async with databases.run("db", QueryPlan(sql=unbounded)) as frames:
            await anext(frames)
        assert databases.running == 0
    assert databases.processes & before
    assert len(databases.processes) <= 3


async def test_a_process_that_dies_is_told_and_replaced(databases: Databases) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    running = asyncio.create_task(rows_of(databases, endless))
    async with asyncio.timeout(30):
        while not databases.statements:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        killed = databases.processes
        for number in killed:
            os.kill(number, signal.SIGKILL)
        with pytest.raises(LimitError, match="process was ended"):
            await running
        await gone(killed)
    assert await rows_of(databases, "SELECT 1 AS a") == [{"a": "1"}]


class ThreadlessSource(SqliteSource):
    """Says where it was asked, and what Python says where there is no memory for a thread."""

    def open(self, *_: Any, **__: Any) -> Result:
        self.path.write_text(str(os.getpid()))
        raise RuntimeError("can't start new thread")


async def test_a_process_without_memory_for_a_thread_takes_no_other_request(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    databases = Databases({"db": ThreadlessSource("db", told)})
    with pytest.raises(LimitError, match="of memory, the server's limit"):
        await rows_of(databases, "SELECT 1")
    await gone({int(told.read_text())})
    await databases.close()


async def test_a_lost_nursery_is_replaced(databases: Databases) -> None:
    nursery, children = NURSERY.number, databases.processes
    assert nursery is not None
    os.kill(nursery, signal.SIGKILL)
    if sys.platform == "linux":
        await gone(children)
    assert await rows_of(databases, "SELECT 1 AS a") == [{"a": "1"}]
    assert NURSERY.number != nursery


async def test_a_query_whose_process_goes_with_its_nursery_begins_again(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = databases.processes
    assert NURSERY.number is not None
    os.kill(NURSERY.number, signal.SIGKILL)
    while alive(children):
        time.sleep(0.01)  # the loop is to notice nothing yet
    # As if they had ended only after one was chosen.
    monkeypatch.setattr(Child, "there", lambda self: not self.lost)
    assert await rows_of(databases, "SELECT 1 AS a") == [{"a": "1"}]


async def test_a_nursery_that_is_dying_may_look_alive(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = databases.processes
    assert NURSERY.number is not None
    os.kill(NURSERY.number, signal.SIGKILL)
    while alive(children):
        time.sleep(0.01)
    monkeypatch.setattr(Child, "there", lambda self: not self.lost)
    looks = iter([True, True])
    seen = NURSERY.alive
    monkeypatch.setattr(NURSERY, "alive", lambda: next(looks, None) or seen())
    assert await rows_of(databases, "SELECT 1 AS a") == [{"a": "1"}]
    assert next(looks, None) is None


async def test_closing_ends_the_processes(sqlite_engine: Engine) -> None:
    databases = Databases({"db": open_source("db", sqlite_engine.url)})
    await rows_of(databases, "SELECT 1")
    children = databases.processes
    assert alive(children)
    await databases.close()
    await gone(children)


async def test_closing_when_no_query_has_run_for_a_while(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.database.running.children._DISK_INTERVAL", 0.01)
    databases = Databases({"db": open_source("db", sqlite_engine.url)})
    await rows_of(databases, "SELECT 1")
    numbers = databases.processes
    await asyncio.sleep(0.02)  # the look at their files that was due has found no query
    await databases.close()
    await gone(numbers)


_SERVER = """
import asyncio, sys
from streamkit.database import Databases, QueryPlan, open_source
from streamkit.database.running.processes import NURSERY
async def main():
    databases = Databases({"db": open_source("db", sys.argv[1])})
    async with databases.run("db", QueryPlan(sql="SELECT 1")) as frames:
        async for _ in frames: pass
    async def hostile():
        async with databases.run("db", QueryPlan(sql=sys.argv[2])) as frames:
            async for _ in frames: pass
    tasks = [asyncio.create_task(hostile()) for _ in range(3)]
    while databases.statements < 3 or len(databases.processes) < 3:
        await asyncio.sleep(0.01)
    print(NURSERY.number, *databases.processes, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
async def test_processes_die_with_their_server(
    tmp_path: Path, sqlite_engine: Engine, number: signal.Signals
) -> None:
    """Also in the midst of what cannot be interrupted."""
    command = [sys.executable, "-c", _SERVER, sqlite_engine.url, ONE_LONG_CALL]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        line = await asyncio.to_thread(server.stdout.readline)
        theirs = {int(word) for word in line.split()}
        assert len(alive(theirs)) >= 4
        server.send_signal(number)
        await asyncio.to_thread(server.wait, 30)
    await gone(theirs)


def test_a_parcel_of_a_child_is_data_only() -> None:
    """What names an error it has not is a fault; nothing is looked up beyond the errors."""
    _, header, *_ = packed(Ended(QueryError("no such table: a", hint="look")))
    told = unpacked(bytes(header), memoryview(b""))
    assert isinstance(told, Ended)
    assert type(told.error) is QueryError
    assert (str(told.error), told.error.hint) == ("no such table: a", "look")
    strange = bytes(header).replace(b"QueryError", b"error_from_status")
    told = unpacked(strange, memoryview(b""))
    assert isinstance(told, Ended)
    assert isinstance(told.error, StreamkitError)
    _, header, *data = packed(Parcel(None, [], True))
    assert unpacked(bytes(header), memoryview(b"".join(data))) == Parcel(None, [], True)
