"""One server for all tests that do no harm to theirs, and servers of their own for the others."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.tools import ServerProcess


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that exists already, with 20,000 rows."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price REAL)")
        connection.executemany(
            "INSERT INTO items VALUES (?, ?, ?)",
            ((n, None if n % 10 == 0 else f"item {n}", n / 4) for n in range(1, 20_001)),
        )
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, shop: Path) -> Iterator[str]:
    """The address of a server that all tests of the session share."""
    store = tmp_path_factory.mktemp("store") / "store.db"
    process = ServerProcess(store, "--database", f"shop={shop}")
    yield process.address
    assert process.stop() == 0


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers of the test's own; those that still run at its end are stopped."""
    started: list[ServerProcess] = []

    def start(
        store: Path | str = tmp_path / "store.db", *options: str, port: int = 0
    ) -> ServerProcess:
        process = ServerProcess(store, *options, port=port)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.process.poll() is None:
            process.kill()


@pytest.fixture(scope="session")
def nowhere() -> str:
    """An address where no server is."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"localhost:{probe.getsockname()[1]}"
