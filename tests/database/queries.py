"""Run queries below gRPC."""

from __future__ import annotations

import threading
from typing import Any

from streamkit.database import Databases, QueryPlan
from tests.database.google import messages, rows


async def frames_of(databases: Databases, sql: str, **plan: Any) -> bytes:
    """All the frames of a query on the database "db"."""
    out = b""
    async with databases.run("db", QueryPlan(sql=sql, **plan)) as frames:
        async for framed in frames:
            assert sum(1 for _ in messages(framed.data)) == framed.count
            out += framed.data if isinstance(framed.data, bytes) else b"".join(framed.data)
    return out


async def rows_of(databases: Databases, sql: str, **plan: Any) -> list[dict[str, str]]:
    return rows(await frames_of(databases, sql, **plan))


async def messages_of(databases: Databases, sql: str, **plan: Any) -> list[Any]:
    return list(messages(await frames_of(databases, sql, **plan)))


def query_threads(name: str = "streamkit-") -> int:
    """How many threads work for queries now."""
    return sum(thread.name.startswith(name) for thread in threading.enumerate())
