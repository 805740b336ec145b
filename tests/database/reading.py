"""A reader process: `python -m tests.database.reading ADDRESS SQL` prints how many rows it got."""

from __future__ import annotations

import asyncio
import sys

from streamkit.client import AsyncClient

BATCH = 500


async def main(address: str, sql: str) -> None:
    seen = 0
    async with AsyncClient(address) as client:
        query = client.query(sql, database="db", batch=BATCH)
        async with query:
            async for _ in query:
                seen += 1
    print(seen)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
