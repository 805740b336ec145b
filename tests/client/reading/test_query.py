"""Query against a scripted channel, and once against a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import betterproto
import duckdb
import pyarrow
import pytest

from streamkit.client import AsyncClient, Query, Reconnect
from streamkit.client.reading.pulse import Pulse
from streamkit.client.reading.query import make_request
from streamkit.client.retry import Retry
from streamkit.config import Backoff, QueryLimits
from streamkit.errors import ConnectError, InternalError, InvalidArgumentError, QueryError
from streamkit.generated.streamservice import (
    Column,
    PayloadFormat,
    QueryRequest,
    QueryResult,
    Row,
)
from streamkit.testing import serve
from streamkit.transport import Channel
from tests.client.fakes import FakeChannel


def result(number: int, *rows: str, last: bool = False, total: int = 0) -> QueryResult:
    return QueryResult(
        rows=[Row(columns={"n": row}) for row in rows],
        batch_number=number,
        is_last=last,
        total_rows=total,
        columns=[Column(name="n", type="INTEGER")] if number == 1 else [],
    )


async def no_sleep(delay: float) -> None:
    return None


def query(
    channel: FakeChannel, *, patient: bool = True, pulse: Pulse | None = None, **options: Any
) -> Query:
    settings: dict[str, Any] = {
        "database": "",
        "batch": 2,
        "columns": True,
        "timeout": None,
        "format": "rows",
    }
    request = make_request("select n from t", (), **settings | options)
    how = Reconnect(
        lambda: Retry(Backoff(jitter=0.0), chance=lambda: 0.5), patient=patient, sleep=no_sleep
    )
    return Query(channel, request, how, pulse=pulse)  # type: ignore[arg-type]  # the fake has what is used


async def play(path: str, request: Any) -> AsyncIterator[Any]:
    yield [result(1, "1", "2"), result(2, "3", "4")]
    yield [result(3, "5", last=True, total=5)]


async def test_rows_come_in_order() -> None:
    async with query(FakeChannel(play)) as rows:
        assert [(c.name, c.type) for c in rows.columns] == [("n", "INTEGER")]
        assert [row["n"] async for row in rows] == [1, 2, 3, 4, 5]
        assert rows.total_rows == 5


async def test_batches_are_the_servers() -> None:
    async with query(FakeChannel(play)) as rows, aclosing(rows.batches()) as batches:
        assert [batch.batch_number async for batch in batches] == [1, 2, 3]


async def test_reading_can_go_on_after_a_break() -> None:
    async with query(FakeChannel(play)) as rows:
        async with aclosing(rows.batches()) as batches:
            assert (await anext(batches)).batch_number == 1
        async with aclosing(rows.batches()) as batches:
            assert [batch.batch_number async for batch in batches] == [2, 3]


async def test_leaving_early_cancels_the_query() -> None:
    channel = FakeChannel(play)
    async with query(channel) as rows:
        assert channel.open_calls
        await anext(rows.rows())
    assert not channel.open_calls


async def test_before_its_first_batch_a_query_is_repeated() -> None:
    attempts = 0

    async def late(path: str, request: Any) -> AsyncIterator[Any]:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise ConnectError("away")
        yield [result(1, "1", last=True)]

    async with query(FakeChannel(late)) as rows:
        assert [row["n"] async for row in rows] == [1]
    assert attempts == 3


async def test_a_query_cut_while_it_waits_asks_for_quicker_signs_of_life() -> None:
    loop, pulse = asyncio.get_running_loop(), Pulse(15.0)
    real, later = loop.time, 0.0
    loop.time = lambda: real() + later  # type: ignore[method-assign]  # six seconds in a moment

    async def cut(path: str, request: Any) -> AsyncIterator[Any]:
        nonlocal later
        if not later:
            yield [QueryResult()]
            later = 6.0
            error = InternalError("the server reset the stream: INTERNAL_ERROR")
            error.ending = "reset INTERNAL_ERROR"
            raise error
        yield [result(1, "1", last=True)]

    async with query(FakeChannel(cut), pulse=pulse) as rows:
        assert [row["n"] async for row in rows] == [1]
    assert pulse.interval == pytest.approx(2.0, abs=0.5)


async def test_after_its_first_batch_it_never_is() -> None:
    async def breaks(path: str, request: Any) -> AsyncIterator[Any]:
        yield [result(1, "1", "2")]
        raise ConnectError("lost")

    channel = FakeChannel(breaks)
    got = []
    with pytest.raises(ConnectError):
        async with query(channel) as rows:
            async for row in rows:
                got.append(row["n"])  # noqa: PERF401  # kept when the loop ends by an error
    assert got == [1, 2]
    assert len(channel.requests) == 1


async def test_a_wrong_statement_is_not_repeated() -> None:
    async def wrong(path: str, request: Any) -> AsyncIterator[Any]:
        raise QueryError("near 'selec': syntax error")
        yield

    channel = FakeChannel(wrong)
    with pytest.raises(QueryError):
        await query(channel).start()
    assert len(channel.requests) == 1


async def test_a_truncated_result_is_an_error_and_not_an_end() -> None:
    async def short(path: str, request: Any) -> AsyncIterator[Any]:
        yield [result(1, "1", "2")]

    with pytest.raises(InternalError, match="last batch"):
        async with query(FakeChannel(short)) as rows:
            async for _ in rows:
                pass


async def test_a_status_after_the_last_batch_counts() -> None:
    async def late(path: str, request: Any) -> AsyncIterator[Any]:
        yield [result(1, "1", last=True)]
        raise QueryError("the count failed")

    with pytest.raises(QueryError):
        async with query(FakeChannel(late)) as rows:
            async for _ in rows:
                pass


def test_parameters_keep_their_types() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    values = [None, True, 7, 2**70, 1.5, "x", b"\0", moment, Decimal("1.20")]
    request = make_request(
        "q", values, database="d", batch=3, columns=False, timeout=1.5, format="arrow"
    )
    sent = [betterproto.which_one_of(p, "value") for p in request.parameters]
    assert sent == [
        ("null", True),
        ("boolean", True),
        ("integer", 7),
        ("decimal", str(2**70)),
        ("real", 1.5),
        ("text", "x"),
        ("blob", b"\0"),
        ("timestamp", moment),
        ("decimal", "1.20"),
    ]
    assert (request.database, request.batch_size, request.columns) == ("d", 3, False)
    assert request.format == PayloadFormat.ARROW
    assert request.timeout.total_seconds() == 1.5
    named = make_request(
        "q", {"a": 1}, database="", batch=0, columns=True, timeout=None, format="rows"
    )
    assert named.parameters[0].name == "a"


async def test_arrow_needs_an_arrow_query() -> None:
    async with query(FakeChannel(play)) as rows:
        with pytest.raises(InvalidArgumentError, match="format='arrow'"):
            await rows.to_arrow()
    async with query(FakeChannel(play), format="arrow") as rows:
        with pytest.raises(InvalidArgumentError, match="rows"):
            async for _ in rows:
                pass


async def test_an_arrow_table_is_put_together_from_its_messages() -> None:
    table = pyarrow.table({"n": list(range(1000)), "s": [str(n) for n in range(1000)]})
    parts = [table.schema.serialize().to_pybytes()]
    parts += [batch.serialize().to_pybytes() for batch in table.to_batches(max_chunksize=300)]
    parts.append(b"")  # the last message may have nothing but the end

    async def arrow(path: str, request: Any) -> AsyncIterator[Any]:
        assert request.format == PayloadFormat.ARROW
        for number, part in enumerate(parts, 1):
            yield [QueryResult(arrow_ipc=part, is_last=number == len(parts))]

    assert (await query(FakeChannel(arrow)).to_arrow()).equals(table)


async def test_a_real_arrow_query(tmp_path: Any) -> None:
    path = tmp_path / "numbers.duckdb"
    with duckdb.connect(str(path)) as database:
        database.execute("CREATE TABLE t AS SELECT i AS n, 'row ' || i AS s FROM range(20000) r(i)")
    async with (
        serve(databases={"numbers": f"duckdb:///{path}"}) as address,
        AsyncClient(address) as client,
    ):
        table = await client.query("select * from t", database="numbers", batch=8192).to_arrow()
        assert table.column("n").to_pylist() == list(range(20_000))
        few = client.query("select * from t where n < ?", [5], database="numbers", format="arrow")
        async with few:
            assert [column.name for column in few.columns] == ["n", "s"]
            assert (await few.to_arrow()).num_rows == 5
        async with client.query("select * from t", database="numbers", batch=8192) as rows:
            with pytest.raises(InvalidArgumentError, match="format='arrow'"):
                await anext(rows.record_batches())
        stream = client.query("select * from t", database="numbers", batch=8192, format="arrow")
        async with stream:
            batches = [batch async for batch in stream.record_batches()]
        assert stream.schema is not None
        assert stream.schema.names == ["n", "s"]
        assert [batch.num_rows for batch in batches] == [8192, 8192, 3616]
        assert pyarrow.Table.from_batches(batches).equals(table)
        buffers = [buffer for array in batches[0].columns for buffer in array.buffers() if buffer]
        assert all(buffer.address % 8 == 0 for buffer in buffers)
        async with client.query("select * from t", database="numbers", format="arrow") as plain:
            assert {type(part.arrow_ipc) async for part in plain.batches()} == {bytes}
        async with client.query("select * from t", database="numbers", batch=500) as rows:
            assert [int(row["n"]) async for row in rows] == list(range(20_000))


@pytest.mark.parametrize("work", ["rows", "to_arrow"])
async def test_what_is_cancelled_before_its_first_batch_ends_on_the_server(work: str) -> None:
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    limits = QueryLimits(max_concurrent=1, max_wait=2.0)
    async with serve(query_limits=limits) as address, AsyncClient(address) as client:

        async def run() -> None:
            if work == "to_arrow":
                await client.query(endless).to_arrow()
            async with client.query(endless) as rows:
                await anext(rows.rows())

        task = asyncio.create_task(run())
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with client.query("SELECT 1 AS a") as rows:  # the server's one place is free again
            assert [row async for row in rows] == [{"a": 1}]


async def test_a_real_query(tmp_path: Any) -> None:
    async with serve(journal=str(tmp_path / "store.db")) as address, AsyncClient(address) as client:
        for number in range(5):
            await client.publish("a", str(number))
        sql = "select topic, message from updates where message >= ? order by message"
        async with client.query(sql, ["2"], batch=2) as rows:
            assert [column.name for column in rows.columns] == ["topic", "message"]
            assert [row async for row in rows] == [
                {"topic": "a", "message": str(number)} for number in (2, 3, 4)
            ]
            assert (rows.total_rows, rows.total_batches) == (3, 2)
        async with client.query("select 1 where 0") as rows:
            assert [row async for row in rows] == []
        with pytest.raises(InvalidArgumentError):
            await client.query("selec").start()
        assert "updates" in [table.name for table in await client.tables()]
        schema = await client.describe("updates")
        assert {"topic", "message"} <= {column.name for column in schema.columns}
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_signs_of_life_are_no_batches() -> None:
    async def beating(path: str, request: Any) -> AsyncIterator[Any]:
        yield [QueryResult()]
        yield [QueryResult(), result(1, "1"), QueryResult()]
        yield [QueryResult()]
        yield [result(2, "2", last=True, total=2)]

    async with query(FakeChannel(beating)) as rows:
        assert [row["n"] async for row in rows] == [1, 2]
        assert rows.total_rows == 2


async def test_a_slow_query_says_that_it_is_alive() -> None:
    """As it must to come through a proxy that ends what is silent."""
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4000000) "
    async with serve() as address:
        channel = Channel(address)
        request = QueryRequest(query=slow + "SELECT count(*) AS n FROM n")
        kinds = {}
        for seconds in (0.0, 0.01):
            request.heartbeat = timedelta(seconds=seconds)
            path = "/streamservice.StreamService/StreamQueryResults"
            async with channel.stream(path, QueryRequest, QueryResult, request=request) as call:
                results = [message async for message in call]
            kinds[seconds] = [message.batch_number for message in results]
            assert results[-1].rows[0].columns == {"n": "4000000"}
        await channel.aclose()
    assert kinds[0.0] == [1], "who does not ask is not bothered"
    assert kinds[0.01][-1] == 1
    assert set(kinds[0.01][:-1]) == {0}
