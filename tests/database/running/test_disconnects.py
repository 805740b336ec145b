"""A client that goes away ends its statement on the database's server."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from streamkit.database import Databases, open_source
from streamkit.generated.streamservice import QueryRequest, QueryResult
from streamkit.handlers.queries import QueriesHandler
from streamkit.testing import connected
from tests.database.engines import UNBOUNDED, Postgres

METHOD = "/streamservice.StreamService/StreamQueryResults"


async def test_a_lost_client_ends_the_statement_on_postgresql(postgres: Postgres) -> None:
    databases = Databases({"pg": open_source("pg", postgres.url)})
    request = QueryRequest(query=UNBOUNDED["postgresql"], database="pg")
    with postgres.cursor() as watch:
        assert active(watch) == 0
        async with connected([QueriesHandler(databases=databases)]) as channel:
            async with channel.stream(METHOD, QueryRequest, QueryResult, request=request) as call:
                await call.receive()
                assert active(watch) >= 1
                began = time.monotonic()
            while active(watch):
                await asyncio.sleep(0.01)
            took = time.monotonic() - began
    print(f"\nPostgreSQL was idle again after {took * 1e3:.0f} ms")
    assert took < 60  # the aim is 1 s on a machine that does nothing else
    await databases.close()


def active(watch: Any) -> int:
    watch.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'reader'"
    )
    return int(watch.fetchone()[0])
