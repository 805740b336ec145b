"""The pictures of the page in docs/pictures, taken by Chromium of a server with something to see.

    make pictures

Small: WebP, each below forty kilobytes. Taken anew when the page changes.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from streamkit import AsyncClient, Server  # noqa: E402  # found by the line above
from tests.web.chromium import BINARY, Browser, Process, Tab  # noqa: E402  # after the path is set

FOLDER = ROOT / "docs" / "pictures"
LINES = [
    ("info", "order 1042 of 3 pieces to Lyon", {"region": "eu"}),
    ("info", "payment of 49.90 EUR accepted", {"region": "eu"}),
    ("debug", "cache has 1,204 entries", {}),
    ("warn", "the carrier answered after 2.1 s", {"carrier": "north"}),
    ("error", "stock of item 77 cannot be read: connection refused", {"item": "77"}),
    ("info", "order 1043 of 1 piece to Austin", {"region": "us"}),
]
JOBS = [
    ("import-customers", 2_000, 1_340, "row 1,340 of 2,000"),
    ("render-report", 120, 31, "page 31"),
    ("reindex", 50_000, 48_200, "shard 9"),
]
SQL = "select topic, count(*) as updates, max(time) as newest from updates group by topic"


async def live(client: AsyncClient, stack: AsyncExitStack) -> None:
    """Something to see in each panel."""
    async with client.log_writer("orders-api") as log:
        for n in range(24):
            level, text, fields = LINES[n % len(LINES)]
            await log.send(text, level=level, fields=fields)
    for n in range(24):
        region = ("eu", "us", "asia")[n % 3]
        told = {"number": 1040 + n, "pieces": n % 5 + 1}
        await client.publish(f"orders.{region}", told, metadata={"source": "shop"})
    for name, total, done, step in JOBS:
        job = await stack.enter_async_context(client.job(name, total=total, service="orders-api"))
        await job.advance(done, step=step)
    async with client.job("nightly-backup", total=10) as job:
        await job.advance(10)


async def panel(tab: Tab, name: str, ready: str) -> None:
    """Go to a panel and wait until there is something to see."""
    await tab.run(f"location.hash = {name!r}")
    await tab.until(ready)
    await asyncio.sleep(0.3)  # for pictures only: what moves comes to rest


async def main() -> None:
    """Take them all."""
    if not BINARY:
        raise SystemExit("no Chromium here: apt-get install chromium")
    process = Process()
    try:
        async with (
            Server(journal=":memory:", port=0, web=True) as server,
            AsyncClient(server.address) as client,
            AsyncExitStack() as stack,
        ):
            await live(client, stack)
            browser = Browser(process)
            for width, height, dark in ((1400, 700, False), (1400, 700, True), (400, 700, True)):
                tab = await browser.tab(width, height, dark)
                await tab.open(server.page_address)
                await tab.sees("Jobs")
                look = "dark" if dark else "light"
                kind = f"{look}-{width}" if width < 1000 else look
                await panel(tab, "jobs", "document.querySelectorAll('.job').length >= 4")
                await tab.picture(FOLDER / f"jobs-{kind}.webp")
                await panel(tab, "logs", "document.querySelectorAll('.row').length > 10")
                await tab.picture(FOLDER / f"logs-{kind}.webp")
                if width > 1000:
                    await panel(tab, "query", "document.querySelector('textarea')")
                    await tab.type("SQL", SQL)
                    await tab.click("Run")
                    await tab.sees("rows in")
                    await tab.picture(FOLDER / f"query-{kind}.webp")
            await browser.close()
    finally:
        process.stop()
    sizes = {path.name: path.stat().st_size for path in sorted(FOLDER.glob("*.webp"))}
    for name, size in sizes.items():
        print(f"{name}: {size / 1024:.0f} KiB")
    print(f"{sum(sizes.values()) / 1024:.0f} KiB in all, {datetime.now(UTC):%Y-%m-%d}")


if __name__ == "__main__":
    asyncio.run(main())
