"""Query results: the servers and clients of bench/query.py but for connectrpc's.

`python -m bench.stacks.queries serve STACK` and `... client STACK PORT SOURCE COLUMNS ROWS`.
The peers build rows as their guides do: a message object for each row, a str for each value.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, aclosing
from functools import cache
from typing import Any

import _duckdb
import duckdb
import grpc
import psycopg
import pyarrow as pa
from adbc_driver_manager import dbapi
from pyarrow import flight

from bench.stacks import load

METHOD = "/streamservice.StreamService/StreamQueryResults"
BATCH = 500
WARM = 5
ARROW_BATCH = 8192
FIRST = "SELECT * FROM {table}"


def path(source: str) -> str:
    """Where the data of this run is: a file, or the URL of PostgreSQL."""
    return os.environ[f"BENCH_{source.upper()}"]


def table(columns: str) -> str:
    return f"rows_{columns}"


# What the peers serve ---------------------------------------------------------------------------


def fetched(source: str, sql: str) -> Iterator[tuple[list[str], list[tuple[Any, ...]]]]:
    """The rows, in lists of a batch, by the usual driver of each database."""
    connection: Any
    if source == "sqlite":
        connection = sqlite3.connect(path(source))
        cursor = connection.execute(sql)
    elif source == "duckdb":
        connection = duckdb.connect(path(source), read_only=True)
        cursor = connection.execute(sql)
    else:
        connection = psycopg.connect(path(source))
        cursor = connection.cursor("rows")
        cursor.execute(sql)
    names = [column[0] for column in cursor.description]
    try:
        while rows := cursor.fetchmany(BATCH):
            yield names, rows
    finally:
        connection.close()


def peer_messages(pb: Any, source: str, sql: str) -> Iterator[Any]:
    for number, (names, rows) in enumerate(fetched(source, sql), 1):
        yield pb.QueryResult(
            rows=[
                pb.Row(columns={n: str(v) for n, v in zip(names, row, strict=True)}) for row in rows
            ],
            batch_number=number,
        )


def serve_grpcio() -> None:
    pb = load.schema()

    def query(request: Any, context: Any) -> Iterator[Any]:
        return peer_messages(pb, request.database, request.query)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    handler = grpc.unary_stream_rpc_method_handler(
        query,
        request_deserializer=pb.QueryRequest.FromString,
        response_serializer=pb.QueryResult.SerializeToString,
    )
    _, service, method = METHOD.split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    load.announce(port)
    load.wait_for_the_end()
    server.stop(None)


class Flight(flight.FlightServerBase):  # type: ignore[misc]  # an untyped base
    """Arrow Flight: a table from memory, or what DuckDB makes of a statement."""

    def do_get(self, context: Any, ticket: Any) -> Any:
        source, _, words = ticket.ticket.decode().partition(" ")
        if source == "memory":
            data = memory_table(words)
            reader = pa.RecordBatchReader.from_batches(data.schema, data.to_batches(ARROW_BATCH))
            return flight.RecordBatchStream(reader)
        statement = self._database().cursor().sql(words)
        return flight.RecordBatchStream(statement.to_arrow_reader(ARROW_BATCH))

    @staticmethod
    @cache
    def _database() -> Any:
        return duckdb.connect(path("duckdb"), read_only=True)


def serve_flight() -> None:
    server = Flight("grpc://127.0.0.1:0")
    load.announce(server.port)
    load.wait_for_the_end()
    server.shutdown()


_tables: dict[str, Any] = {}


def memory_table(columns: str) -> Any:
    """All the rows, in memory, made once."""
    if columns not in _tables:
        with duckdb.connect(path("duckdb"), read_only=True) as connection:
            reader = connection.sql(f"SELECT * FROM {table(columns)}").to_arrow_reader()
            _tables[columns] = reader.read_all().combine_chunks()
    return _tables[columns]


# What streamkit serves --------------------------------------------------------------------------


def serve_streamkit(forked: bool = True) -> None:
    from streamkit.codec import StreamkitCodec
    from streamkit.database import Databases, Source, open_source
    from streamkit.database.base import ColumnInfo, Parameters, Result
    from streamkit.handlers.queries import QueriesHandler
    from streamkit.transport import GrpcServer, run

    class MemoryResult(Result):
        arrow = True

        def __init__(self, data: Any) -> None:
            self._data = data
            self._place = 0

        def start(self) -> None:
            self.schema = self._data.schema
            self.columns = [ColumnInfo(name) for name in self.schema.names]

        def record_batch(self, size: int, max_bytes: int) -> Any | None:
            if self._place >= self._data.num_rows:
                return None
            part = self._data.slice(self._place, size)
            self._place += size
            return part.to_batches()[0]

        def cancel(self) -> None:
            self._place = self._data.num_rows

        def close(self) -> None:
            pass

    class MemorySource(Source):
        name = "memory"

        def open(self, sql: str, parameters: Parameters = (), *, seconds: float) -> Result:
            found = re.search(r"rows_(\d+)", sql)
            assert found is not None
            data = memory_table(found[1])
            return MemoryResult(pa.table({"n": [data.num_rows]}) if "count(*)" in sql else data)

        def tables(self) -> list[Any]:
            return []

        def describe(self, name: str) -> list[ColumnInfo]:
            return []

        def close(self) -> None:
            pass

    async def serve() -> None:
        sources: dict[str, Source] = {
            "sqlite": open_source("sqlite", path("sqlite")),
            "duckdb": open_source("duckdb", f"duckdb:///{path('duckdb')}"),
            "memory": MemorySource(),
        }
        if "BENCH_POSTGRESQL" in os.environ:
            sources["postgresql"] = open_source("postgresql", path("postgresql"))
        databases = Databases(sources, forked=forked)
        server = GrpcServer([QueriesHandler(databases=databases)], codec=StreamkitCodec())
        await server.start(port=0)
        load.announce(server.port)
        await asyncio.to_thread(load.wait_for_the_end)
        await server.close()

    run(serve())


# Clients ----------------------------------------------------------------------------------------


def read_with_grpcio(port: str, source: str, sql: str, rows: int) -> None:
    """The unmodified client of both grpcio's and streamkit's server."""
    pb = load.schema()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        query = channel.unary_stream(
            METHOD,
            request_serializer=pb.QueryRequest.SerializeToString,
            response_deserializer=pb.QueryResult.FromString,
        )
        for limit in (" LIMIT 2000", ""):
            began = time.perf_counter()
            first = seen = 0.0
            request = pb.QueryRequest(query=sql + limit, batch_size=BATCH, database=source)
            for message in query(request):
                first = first or time.perf_counter() - began
                seen += len(message.rows)
            took = time.perf_counter() - began
        assert seen == rows, seen
        load.report(rows=rows / took, first=first)


def read_first_in_turns(ports: str, source: str, sql: str, count: int) -> None:
    """How long the first batch takes from each of two servers, which take turns: the medians."""
    pb = load.schema()
    request = pb.QueryRequest(query=sql, batch_size=BATCH, database=source)
    found: dict[str, list[float]] = {port: [] for port in ports.split(",")}
    with ExitStack() as stack:
        queries = {}
        for port in found:
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
            queries[port] = channel.unary_stream(
                METHOD,
                request_serializer=pb.QueryRequest.SerializeToString,
                response_deserializer=pb.QueryResult.FromString,
            )
        for turn in range(count + WARM):
            for port in (*found,) if turn % 2 else (*reversed(found),):
                began = time.perf_counter()
                call = queries[port](request)
                next(call)
                took = time.perf_counter() - began
                call.cancel()
                if turn >= WARM:
                    found[port].append(took)
    ours, peer = (statistics.median(times) for times in found.values())
    load.report(ours=ours, peer=peer)


def read_with_streamkit(port: str, source: str, sql: str, rows: int) -> None:
    """Arrow, to record batches."""
    from streamkit.client import AsyncClient
    from streamkit.transport import run

    async def read() -> None:
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            for _ in range(2):
                began = time.perf_counter()
                seen = size = 0
                query = client.query(sql, database=source, batch=ARROW_BATCH, format="arrow")
                async with query, aclosing(query.record_batches()) as batches:
                    async for batch in batches:
                        seen += batch.num_rows
                        size += batch.nbytes
                took = time.perf_counter() - began
        assert seen == rows, seen
        load.report(rows=rows / took, megabytes=size / 1e6 / took)

    run(read())


def read_with_flight(port: str, source: str, words: str, rows: int) -> None:
    client = flight.connect(f"grpc://127.0.0.1:{port}")
    for _ in range(2):
        began = time.perf_counter()
        seen = size = 0
        for chunk in client.do_get(flight.Ticket(f"{source} {words}".encode())):
            seen += chunk.data.num_rows
            size += chunk.data.nbytes
        took = time.perf_counter() - began
    assert seen == rows, seen
    load.report(rows=rows / took, megabytes=size / 1e6 / took)


def read_from_database(source: str, sql: str, rows: int) -> None:
    """What the database gives by itself: the time of the first row, and Arrow of DuckDB."""
    began = time.perf_counter()
    next(fetched(source, sql))
    first = time.perf_counter() - began
    rate = driver = 0.0
    if source == "duckdb":
        with duckdb.connect(path(source), read_only=True) as connection:
            for _ in range(2):
                began = time.perf_counter()
                reader = connection.sql(sql).to_arrow_reader(ARROW_BATCH)
                seen = sum(batch.num_rows for batch in reader)
                rate = seen / (time.perf_counter() - began)
        driver = rate_of_driver(sql)
    load.report(first=first, rows=rate, driver=driver)


def rate_of_driver(sql: str) -> float:
    """Rows a second of DuckDB's ADBC driver, which streamkit's server reads from too."""
    with (
        dbapi.connect(
            driver=_duckdb.__file__,
            entrypoint="duckdb_adbc_init",
            db_kwargs={"path": path("duckdb"), "access_mode": "READ_ONLY"},
            autocommit=True,
        ) as connection,
        connection.cursor() as cursor,
    ):
        rate = 0.0
        for _ in range(2):
            began = time.perf_counter()
            cursor.execute(sql)
            seen = sum(batch.num_rows for batch in cursor.fetch_record_batch())
            rate = seen / (time.perf_counter() - began)
    return rate


def main() -> None:
    role, stack, *words = sys.argv[1:]
    if role == "serve":
        if stack in ("streamkit", "threads"):
            return serve_streamkit(forked=stack == "streamkit")
        return {"grpcio": serve_grpcio, "flight": serve_flight}[stack]()
    port, source, columns, count = words
    sql, rows = f"SELECT * FROM {table(columns)}", int(count)
    if stack == "grpcio":
        read_with_grpcio(port, source, sql, rows)
    elif stack == "streamkit":
        read_with_streamkit(port, source, sql, rows)
    elif stack == "turns":
        read_first_in_turns(port, source, sql, rows)
    elif stack == "flight":
        read_with_flight(port, source, columns if source == "memory" else sql, rows)
    else:
        read_from_database(source, sql, rows)


if __name__ == "__main__":
    main()
