"""The world of `streamkit demo`: a real server and real producers, in a place of their own.

Everything goes through the same client and the same wire as anybody's programs. The store and the
database live in a temporary directory that goes away with the world.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sqlite3
import tempfile
import unicodedata
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from streamkit.cli.session import DEFAULT_SERVER
from streamkit.client import AsyncClient, LogWriter, Publisher
from streamkit.errors import ConnectError
from streamkit.server import Server

__all__ = ["DATABASE", "JOBS", "World", "open_world"]

DATABASE = "unicode"
JOBS = ("import", "crawl", "deploy")
PLANE = 0x10000
"""Characters that are imported before the import begins again."""
SLICE = 2048
"""Characters that one import job loads."""

_SCHEMA = """
CREATE TABLE characters (code INTEGER PRIMARY KEY, name TEXT, category TEXT, letter TEXT);
CREATE VIEW categories AS SELECT category, count(*) AS characters, min(name) AS example
  FROM characters GROUP BY category ORDER BY characters DESC LIMIT 8;
"""
_PATHS = ("/orders", "/orders/{n}", "/customers/{n}", "/health", "/search?q={n}", "/login")
_WORK = ("thumbnail {n}.png", "invoice {n}", "newsletter to {n}", "cleanup of session {n}")


class World:
    """A running demo: where it is, and the ids of the jobs that run now."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.address = server.address.replace("127.0.0.1", "localhost")
        self.page = server.page_address
        """Where the page is opened, once; "" for a world without one."""
        self.database = directory / "unicode.db"
        self.jobs: dict[str, str] = {}
        self.on_jobs: Callable[[], None] = lambda: None
        """Called when a job took the place of another."""

    def command(self, text: str) -> str:
        """A command line as it has to be typed to reach this world."""
        verb, _, rest = text.partition(" ")
        where = "" if self.address == DEFAULT_SERVER else f" -s {self.address}"
        return f"streamkit {verb}{where} {rest}".rstrip()


@contextlib.asynccontextmanager
async def open_world(
    chance: random.Random | None = None, *, web: bool = False
) -> AsyncIterator[World]:
    """Start the server and the producers; stop them and remove every trace at the end."""
    dice = chance or random.Random()
    with tempfile.TemporaryDirectory(prefix="streamkit-demo-") as name:
        directory = Path(name)
        await asyncio.to_thread(_make_database, directory / "unicode.db")
        server = await _start(directory, web)
        world = World(server, directory)
        try:
            async with AsyncClient(world.address) as client:
                tasks = [
                    asyncio.create_task(_forever(work))
                    for work in (
                        lambda: _api(client, dice),
                        lambda: _worker(client, dice),
                        lambda: _topics(client, dice),
                        lambda: _imports(client, world),
                        lambda: _crawls(client, world, dice),
                        lambda: _deploys(client, world, dice),
                    )
                ]
                try:
                    yield world
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await server.stop(grace=0.1)


async def _start(directory: Path, web: bool) -> Server:
    """Serve on the usual port if it is free, so that the commands need no address."""

    def make(port: int) -> Server:
        store, databases = directory / "store.db", {DATABASE: str(directory / "unicode.db")}
        return Server(journal=store, databases=databases, port=port, web=web)

    usual = make(int(DEFAULT_SERVER.rpartition(":")[2]))
    try:
        await usual.start()
    except ConnectError:
        other = make(0)
        await other.start()
        return other
    return usual


async def _forever(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """A producer that fails is no reason for the others to stop; it starts again."""
    while True:
        with contextlib.suppress(ConnectError):  # the server may come back
            await work()
        await asyncio.sleep(1)


async def _api(client: AsyncClient, dice: random.Random) -> None:
    async with client.log_writer("api") as log:
        while True:
            path = dice.choice(_PATHS).format(n=dice.randint(1, 999))
            status = dice.choices((200, 201, 404, 500), (80, 10, 7, 3))[0]
            took = int(dice.lognormvariate(3, 0.8))
            level = "error" if status == 500 else "warn" if status == 404 or took > 100 else "info"
            log.write(f"GET {path} {status} in {took} ms", level, {"status": status})
            if status == 500:
                log.write(
                    "Traceback (most recent call last):\n"
                    '  File "orders.py", line 42, in total\n'
                    "ZeroDivisionError: division by zero",
                    "error",
                )
            await asyncio.sleep(dice.expovariate(4))


async def _worker(client: AsyncClient, dice: random.Random) -> None:
    async with client.log_writer("worker") as log:
        while True:
            await _one_task(log, dice.choice(_WORK).format(n=dice.randint(1, 9999)), dice)


async def _one_task(log: LogWriter, task: str, dice: random.Random) -> None:
    log.write(f"started {task}", "debug")
    await asyncio.sleep(dice.uniform(0.2, 0.8))
    if dice.random() < 0.1:
        log.write(f"{task} failed, trying again: connection reset", "warn")
        await asyncio.sleep(0.3)
    log.write(f"finished {task}")


async def _topics(client: AsyncClient, dice: random.Random) -> None:
    prices = {"prices.btc": 61_000.0, "prices.gold": 2_350.0, "prices.oil": 78.0}
    async with client.publisher() as publisher:
        for number in itertools.count(1):
            topic = dice.choice(list(prices))
            prices[topic] *= 1 + dice.gauss(0, 0.002)
            await publisher.send(topic, {"price": round(prices[topic], 2)})
            if number % 4 == 0:
                await _order(publisher, number, dice)
            await asyncio.sleep(dice.uniform(0.1, 0.4))


async def _order(publisher: Publisher, number: int, dice: random.Random) -> None:
    region = dice.choice(("eu", "us", "asia"))
    order = {"order": 1000 + number // 4, "items": dice.randint(1, 9)}
    await publisher.send(f"orders.{region}", order)


async def _imports(client: AsyncClient, world: World) -> None:
    """Jobs that do what they say: the rows are those of the `unicode` database."""
    with contextlib.closing(_connect(world.database)) as connection:
        for number in itertools.count(1):
            start = (number - 1) * SLICE % PLANE
            if start == 0:
                connection.execute("DELETE FROM characters")
            job_id = f"import-{number}"
            async with client.job(job_id, total=SLICE, step=f"from U+{start:04X}") as job:
                _starts(world, "import", job_id)
                for code in range(start, start + SLICE, 32):
                    _insert(connection, code, 32)  # less than a millisecond
                    await job.advance(32, step=f"U+{code:04X}")
                    await asyncio.sleep(0.1)
            await asyncio.sleep(2)


async def _crawls(client: AsyncClient, world: World, dice: random.Random) -> None:
    """Jobs whose total nobody knows."""
    for number in itertools.count(1):
        job_id = f"crawl-{number}"
        async with client.job(job_id) as job:
            _starts(world, "crawl", job_id)
            for page in range(dice.randint(40, 90)):
                await job.advance(step=f"page /{page % 10}/{page}")
                await asyncio.sleep(dice.uniform(0.05, 0.3))
        await asyncio.sleep(2)


async def _deploys(client: AsyncClient, world: World, dice: random.Random) -> None:
    """Jobs that fail, with a log that says why."""
    for number in itertools.count(1):
        job_id, machines = f"deploy-{number}", 8
        async with client.job(job_id, total=machines) as job:
            _starts(world, "deploy", job_id)
            for machine in range(1, machines):
                await job.update(step=f"machine {machine} of {machines}", completed=machine - 1)
                await job.log(f"machine {machine}: new version started")
                await asyncio.sleep(dice.uniform(0.5, 1.0))
            await job.log(f"machine {machines}: does not answer", "error")
            await job.finish("failed", f"machine {machines} does not answer")
        await asyncio.sleep(4)


def _starts(world: World, kind: str, job_id: str) -> None:
    world.jobs[kind] = job_id
    world.on_jobs()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    return connection


def _make_database(path: Path) -> None:
    with contextlib.closing(_connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(_SCHEMA)
        _insert(connection, 0, 128)


def _insert(connection: sqlite3.Connection, start: int, count: int) -> None:
    letters = [chr(code) for code in range(start, start + count)]
    rows = [
        (ord(letter), unicodedata.name(letter, ""), unicodedata.category(letter), letter)
        for letter in letters
        if unicodedata.category(letter) not in ("Cn", "Cs", "Cc")
    ]
    connection.execute("BEGIN")
    connection.executemany("INSERT OR REPLACE INTO characters VALUES (?, ?, ?, ?)", rows)
    connection.execute("COMMIT")
