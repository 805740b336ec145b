"""A server process with one database, "db": `python -m tests.database.serving STORE URL` prints its
address and serves until SIGTERM. Its queries may run for long: a reader of millions of rows may
have to share its machine."""

from __future__ import annotations

import asyncio
import sys

from streamkit.config import QueryLimits
from streamkit.server import Server


async def main(store: str, url: str) -> None:
    limits = QueryLimits(max_seconds=3600)
    async with Server(journal=store, databases={"db": url}, port=0, query_limits=limits) as server:
        print(server.address, flush=True)
        await server.serve()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
