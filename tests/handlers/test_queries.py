"""StreamQueryResults over a real connection, with streamkit's client and with grpcio's."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from streamkit.codec import StreamkitCodec
from streamkit.config import QueryLimits
from streamkit.database import Databases, SqliteSource, StoreSource
from streamkit.errors import (
    DeadlineError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
    StreamkitError,
)
from streamkit.generated.streamservice import Parameter, PayloadFormat, QueryRequest, QueryResult
from streamkit.handlers.queries import QueriesHandler, parameters_of, plan_of
from streamkit.transport import Channel, ClientCall, GrpcServer
from tests.database.engines import UNBOUNDED
from tests.database.google import QueryResult as GoogleQueryResult
from tests.handlers.calls import SERVICE, rest
from tests.handlers.conftest import Connected

METHOD = SERVICE + "StreamQueryResults"
ROWS = 2500
LIMITS = QueryLimits(max_concurrent=4, max_wait=0.3, max_rows=5000)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("queries") / "store.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE logs(sequence INTEGER PRIMARY KEY, level TEXT, message TEXT)")
    connection.executemany(
        "INSERT INTO logs(level, message) VALUES (?, ?)",
        ((("info", "warn")[i % 2], f"line {i}") for i in range(ROWS)),
    )
    connection.commit()
    connection.close()
    return path


@pytest.fixture
async def databases(file: Path) -> AsyncIterator[Databases]:
    sources = {"": StoreSource(file, LIMITS), "copy": SqliteSource("copy", file, LIMITS)}
    databases = Databases(sources, LIMITS)
    yield databases
    await databases.close()


@pytest.fixture
async def channel(databases: Databases, connected: Connected) -> AsyncIterator[Channel]:
    async with connected([QueriesHandler(databases=databases)]) as channel:
        yield channel


def unbounded(expression: str) -> str:
    """Rows of it, without end."""
    return UNBOUNDED["sqlite"].replace("SELECT x FROM n", f"SELECT {expression} FROM n")


def ask(
    channel: Channel, sql: str, **more: Any
) -> AbstractAsyncContextManager[ClientCall[QueryRequest, QueryResult]]:
    request = QueryRequest(query=sql, **more)
    return channel.stream(METHOD, QueryRequest, QueryResult, request=request)


async def result(channel: Channel, sql: str, **more: Any) -> list[QueryResult]:
    async with ask(channel, sql, **more) as call:
        return await rest(call)


async def gone(databases: Databases) -> float:
    """Wait until no query runs; the processor time that this process used meanwhile, which a
    query that goes on uses, and a machine with other work does not."""
    began = time.process_time()
    async with asyncio.timeout(60):
        while databases.running:
            await asyncio.sleep(0.001)
    return time.process_time() - began


async def test_a_plain_request_gets_batches_of_100(channel: Channel) -> None:
    got = await result(channel, "SELECT * FROM logs ORDER BY sequence")

    assert [len(message.rows) for message in got] == [100] * 25
    assert [message.batch_number for message in got] == list(range(1, 26))
    assert got[-1].is_last
    assert got[-1].total_batches == 25
    assert not got[0].columns
    assert got[0].rows[0].columns == {"sequence": "1", "level": "info", "message": "line 0"}


async def test_what_a_streamkit_client_may_ask_for(channel: Channel) -> None:
    first, *_ = await result(channel, "SELECT level FROM logs", batch_size=1000, columns=True)
    assert [(c.name, c.type, c.nullable) for c in first.columns] == [("level", "TEXT", True)]
    assert len(first.rows) == 1000
    (named,) = await result(
        channel,
        "SELECT :a AS a, :b AS b, :c AS c, :d AS d, :e AS e, :f AS f, :g AS g, :h AS h",
        parameters=[
            Parameter(name="a", text="x"),
            Parameter(name="b", integer=-7),
            Parameter(name="c", real=0.5),
            Parameter(name="d", blob=b"\xff"),
            Parameter(name="e", boolean=True),
            Parameter(name="f", timestamp=datetime(2026, 1, 1, tzinfo=UTC)),
            Parameter(name="g", decimal="1.50"),
            Parameter(name="h", null=True),
        ],
        database="copy",
    )
    assert named.rows[0].columns == {
        "a": "x",
        "b": "-7",
        "c": "0.5",
        "d": "ff",
        "e": "1",
        "f": "2026-01-01T00:00:00Z",
        "g": "1.50",
    }
    arrow = await result(channel, "SELECT 1 AS a", format=PayloadFormat.ARROW)
    assert all(message.arrow_ipc and not message.rows for message in arrow)
    small = await result(channel, "SELECT message FROM logs", max_message_bytes=1000)
    assert max(len(bytes(message)) for message in small) < 1100


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (QueryRequest(), "query: is empty"),
        (QueryRequest(query="  \n"), "query: is empty"),
        (QueryRequest(query="SELECT 1", batch_size=-1), "batch_size: must not be negative"),
        (QueryRequest(query="SELECT 1", max_message_bytes=-1), "max_message_bytes"),
        (QueryRequest(query="SELECT 1", timeout=timedelta(seconds=-1)), "timeout"),
        (QueryRequest(query="SELECT 1", format=7), "format"),  # type: ignore[arg-type]  # wrong on purpose
        (QueryRequest(query="SELECT 1", parameters=[Parameter()]), r"parameters\[0\]: has no"),
        (
            QueryRequest(query="SELECT 1", parameters=[Parameter(decimal="x")]),
            r"parameters\[0\]\.decimal",
        ),
        (
            QueryRequest(query="SELECT 1", parameters=[Parameter(decimal="1e999999999")]),
            r"parameters\[0\]\.decimal: has more than 1000 digits",
        ),
        (
            QueryRequest(query="SELECT 1", parameters=[Parameter(decimal="-1e-999999999")]),
            r"parameters\[0\]\.decimal: has more than 1000 digits",
        ),
        (
            QueryRequest(query="SELECT 1", parameters=[Parameter(decimal="1" * 1_000_000)]),
            r"parameters\[0\]\.decimal: has more than 1000 digits",
        ),
        (
            QueryRequest(query="SELECT 1", parameters=[Parameter(null=True)] * 32_767),
            "parameters: 32767 are more than 32766",
        ),
        (
            QueryRequest(
                query="SELECT 1", parameters=[Parameter(name="a", integer=1), Parameter(integer=2)]
            ),
            "parameters: give every one a name",
        ),
        (
            QueryRequest(query="SELECT 1", parameters=[Parameter(name="a", integer=1)] * 2),
            "a name is given twice",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_bad_request_names_its_field(
    channel: Channel, request_: QueryRequest, words: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=words) as failed:
        async with channel.stream(METHOD, QueryRequest, QueryResult, request=request_) as call:
            await rest(call)
    assert failed.value.status.name == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("sql", "more", "error", "words"),
    [
        ("SELECT * FROM nowhere", {}, InvalidArgumentError, "no such table: nowhere"),
        ("DELETE FROM logs", {}, InvalidArgumentError, "read-only"),
        ("SELECT 1; SELECT 2", {}, InvalidArgumentError, "one statement"),
        ("SELECT 1", {"database": "x"}, NotFoundError, "no database 'x'; this server has: copy"),
        (
            unbounded("max(x)"),
            {"timeout": timedelta(seconds=0.2)},
            DeadlineError,
            r"longer than 0\.2 s",
        ),
        (UNBOUNDED["sqlite"], {}, LimitError, "more than 5000 rows"),
        ("SELECT message FROM logs", {"max_message_bytes": 8}, LimitError, "a row of"),
    ],
)
async def test_a_failed_query_has_one_clear_status(
    channel: Channel,
    databases: Databases,
    sql: str,
    more: dict[str, Any],
    error: type[StreamkitError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        await result(channel, sql, **more)
    await gone(databases)
    assert len(await result(channel, "SELECT 1 AS a")) == 1


async def test_a_result_that_is_too_large_is_not_asked_for_again(channel: Channel) -> None:
    async with ask(channel, UNBOUNDED["sqlite"]) as call:
        with pytest.raises(LimitError):
            async for _ in call:
                pass
    assert call.trailing_metadata is not None
    assert call.trailing_metadata["grpc-retry-pushback-ms"] == "-1"


async def test_rows_before_a_failure_arrive(channel: Channel) -> None:
    sql = unbounded("CASE WHEN x < 250 THEN x ELSE zeroblob(2000000) END AS x")
    got: list[QueryResult] = []
    with pytest.raises(InvalidArgumentError, match="too big"):
        async with ask(channel, sql) as call:
            async for message in call:
                got.append(message)  # noqa: PERF401  # what came before the error counts
    assert [len(message.rows) for message in got[:2]] == [100, 100]
    assert not got[-1].is_last


async def test_the_server_is_told_to_stop_within_100_ms(
    channel: Channel, databases: Databases
) -> None:
    times = []
    for _ in range(20):
        async with ask(channel, unbounded("x % 7 AS x")) as call:
            await call.receive()
        times.append(await gone(databases))
    print(f"\nthe query ended after {max(times) * 1e3:.1f} ms of work at most")
    assert sorted(times)[len(times) // 2] < 0.1


async def test_a_client_that_stops_reading_stops_the_cursor(
    channel: Channel, databases: Databases
) -> None:
    wide = unbounded("x, hex(zeroblob(2000)) AS wide")
    async with ask(channel, wide) as call:
        await call.receive()
        (query,) = databases._running
        rows = -1
        async with asyncio.timeout(60):
            while rows != query._messages.rows:  # until flow control has stopped it
                rows = query._messages.rows
                await asyncio.sleep(0.2)
        assert rows < 5000
        assert databases.running == 1
    await gone(databases)


@contextlib.asynccontextmanager
async def served(databases: Databases) -> AsyncIterator[str]:
    server = GrpcServer([QueriesHandler(databases=databases)], codec=StreamkitCodec())
    await server.start(port=0)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.close()


async def test_a_grpcio_client_gets_everything(databases: Databases) -> None:
    request = bytes(QueryRequest(query="SELECT * FROM logs ORDER BY sequence", batch_size=999))
    async with served(databases) as address, grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_stream(
            METHOD, request_serializer=None, response_deserializer=GoogleQueryResult.FromString
        )
        got = [message async for message in call(request)]
        assert [len(message.rows) for message in got] == [999, 999, 502]
        assert dict(got[0].rows[1].columns) == {
            "sequence": "2",
            "level": "warn",
            "message": "line 1",
        }
        assert got[-1].is_last
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async for _ in call(bytes(QueryRequest(query="SELEC"))):
                pass
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert failed.value.details() == 'near "SELEC": syntax error'
        with pytest.raises(grpc.aio.AioRpcError) as late:
            endless = unbounded("max(x)")
            async for _ in call(bytes(QueryRequest(query=endless)), timeout=0.3):
                pass
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert await gone(databases) < 1


async def test_a_client_that_vanishes_ends_its_queries(databases: Databases) -> None:
    async with served(databases) as address:
        channel = Channel(address, codec=StreamkitCodec())
        calls = contextlib.AsyncExitStack()
        for _ in range(4):
            call = await calls.enter_async_context(ask(channel, unbounded("x % 7 AS x")))
            await call.receive()
        await channel.aclose()
        took = await gone(databases)
        print(f"\nfour queries of a lost connection ended after {took * 1e3:.1f} ms of work")
        assert took < 1
        with contextlib.suppress(StreamkitError):
            await calls.aclose()


def test_the_plan_applies_the_limits() -> None:
    limits = QueryLimits(max_seconds=5, max_message=1000, max_message_asked=2000)
    plan = plan_of(QueryRequest(query="SELECT 1"), limits)
    assert (plan.batch_rows, plan.max_message, plan.seconds) == (100, 1000, 5)
    asked = QueryRequest(
        query="SELECT 1", batch_size=7, max_message_bytes=9000, timeout=timedelta(seconds=9)
    )
    plan = plan_of(asked, limits)
    assert (plan.batch_rows, plan.max_message, plan.seconds) == (7, 2000, 5)
    arrow = plan_of(
        QueryRequest(query="SELECT 1", format=PayloadFormat(PayloadFormat.ARROW)), limits
    )
    assert (arrow.arrow, arrow.batch_rows) == (True, 8192)
    assert parameters_of([], QueryLimits()) == []


@pytest.mark.parametrize(
    ("text", "digits"),
    [("0", 1), ("1e999", 1000), ("1e-998", 999), ("12.50", 4), ("0e5", 6), ("-1E+3", 4)],
)
def test_a_decimal_is_as_long_as_it_is_written_out(text: str, digits: int) -> None:
    parameters = [Parameter(decimal=text)]
    assert parameters_of(parameters, QueryLimits(max_digits=digits)) == [Decimal(text)]
    if digits > 1:
        with pytest.raises(InvalidArgumentError, match="digits"):
            parameters_of(parameters, QueryLimits(max_digits=digits - 1))
