"""What an operator writes, what is missing, and what never appears in a message."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamkit.config import QueryLimits
from streamkit.database import Databases, SqliteSource, extras, open_source
from streamkit.database.sources.adbc.shared import SharedDatabase
from streamkit.errors import (
    InvalidArgumentError,
    PreconditionError,
    QueryError,
    StreamkitError,
)
from tests.database.engines import Engine, Postgres
from tests.database.queries import rows_of

SECRET = "hunter2-secret"


def opened(url: str, limits: QueryLimits | None = None) -> None:
    """Use a source as the first query does."""
    source = open_source("db", url, limits)
    try:
        result = source.open("SELECT 1 AS a", seconds=5)
        try:
            result.start()
        finally:
            result.close()
    finally:
        source.close()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [
        ("/nowhere/x.db", PreconditionError, "database 'db': its file is not there"),
        ("sqlite:///nowhere/x.db", PreconditionError, "its file is not there"),
        ("/etc/passwd", PreconditionError, "file is not a database"),
        ("duckdb:///nowhere/x.duckdb", PreconditionError, "it is not there"),
        (
            f"postgresql://bob:{SECRET}@127.0.0.1:{{port}}/x",
            PreconditionError,
            "connection refused",
        ),
        (f"postgresql://bob:{SECRET}@nowhere.invalid/x", PreconditionError, "host is not known"),
        (f"postgresql://bob:{SECRET}@@x/y?z=1", PreconditionError, "URL is not valid"),
        (f"postgresql://bob:{SECRET} x@x/y", PreconditionError, "URL is not valid"),
        (f"postgresql://bob:{SECRET}%zz@x/y", PreconditionError, "URL is not valid"),
        (f"postgresql://bob:{SECRET}[x@127.0.0.1:{{port}}/y", PreconditionError, "refused"),
        (f"postgresql://bob:{SECRET}@[::1/y", PreconditionError, "URL is not valid"),
        (f"postgresql://x/y?user=b&password={SECRET}=a", PreconditionError, "URL is not valid"),
        (f"postgresql://127.0.0.1:{{port}}/y?password={SECRET}", PreconditionError, "refused"),
        (f"oracle://bob:{SECRET}@x/y", InvalidArgumentError, "no such kind of URL"),
        (f"adbc+nothing://bob:{SECRET}@x", PreconditionError, "pip install adbc-driver-nothing"),
    ],
)
def test_what_cannot_be_opened_is_said_without_secrets(
    url: str,
    error: type[StreamkitError],
    words: str,
    closed_port: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(error, match=words) as failed:
        opened(url.replace("{port}", str(closed_port)))
    assert SECRET not in str(failed.value) + failed.value.hint + caplog.text
    assert "\n" not in str(failed.value)


def test_a_wrong_password_is_refused(postgres: Postgres, caplog: pytest.LogCaptureFixture) -> None:
    rules = Path(postgres.folder) / "pg_hba.conf"
    rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
    postgres.execute("CREATE ROLE locked LOGIN PASSWORD 'the right one'", "SELECT pg_reload_conf()")
    url = f"postgresql://locked:{{}}@/postgres?host={postgres.socket}"

    in_query = f"postgresql:///postgres?host={postgres.socket}&user=locked&password={{}}"
    for wrong in (url.format(SECRET), url.format(""), in_query.format(SECRET)):
        with pytest.raises(PreconditionError, match="refused this server's login") as failed:
            opened(wrong)
        assert SECRET not in str(failed.value) + caplog.text
    opened(url.format("the%20right%20one"))
    opened(in_query.format("the%20right%20one"))


def test_a_file_of_another_kind(sqlite_engine: Engine) -> None:
    with pytest.raises(PreconditionError, match="not a DuckDB database"):
        opened(f"duckdb:///{sqlite_engine.url}")


@pytest.mark.parametrize(
    ("missing", "url", "words"),
    [
        ("pyarrow", "duckdb:///x.duckdb", "needs pyarrow: pip install 'streamkit-grpc\\[arrow\\]'"),
        ("duckdb", "csv:///x.csv", "needs duckdb: pip install 'streamkit-grpc\\[arrow\\]'"),
        (
            "adbc_driver_postgresql",
            f"postgresql://bob:{SECRET}@x/y",
            "needs adbc_driver_postgresql: pip install 'streamkit-grpc\\[arrow\\]'",
        ),
    ],
)
def test_a_missing_driver_names_the_extra(
    missing: str, url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "has", lambda module: module != missing)
    with pytest.raises(PreconditionError, match=words) as failed:
        open_source("db", url)
    assert SECRET not in str(failed.value)


async def test_sqlite_needs_no_extra(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(module: str) -> None:
        raise AssertionError(f"{module} was imported")

    monkeypatch.setattr("streamkit.database.extras.import_module", absent)
    monkeypatch.setattr("streamkit.database.encoding.pieces.has", lambda module: False)
    databases = Databases({"db": open_source("db", sqlite_engine.url)}, forked=False)
    sql = "SELECT a.id FROM people a, people b LIMIT 30000"
    assert len(await rows_of(databases, sql)) == 30_000
    monkeypatch.setattr("streamkit.database.extras.find_spec", lambda module: None)
    with pytest.raises(PreconditionError, match="an Arrow result needs pyarrow"):
        await rows_of(databases, "SELECT 1", arrow=True)
    await databases.close()


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[Databases]:
    (tmp_path / "orders.csv").write_text("id,item\n1,apple\n2,pear\n")
    (tmp_path / "private.csv").write_text(f"a\n{SECRET}\n")
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(3):
        pq.write_table(pa.table({"n": [number]}), parts / f"{number}.parquet")
    databases = Databases(
        {
            "db": open_source("db", f"csv:///{tmp_path}/orders.csv"),
            "parts": open_source("parts", f"parquet:///{parts}/*.parquet"),
        }
    )
    yield databases
    await databases.close()


async def test_csv_and_parquet_files_are_tables(files: Databases, tmp_path: Path) -> None:
    assert [table.name for table in await files.tables("db")] == ["orders"]
    assert [table.name for table in await files.tables("parts")] == ["parts"]
    assert [c.name for c in await files.describe("orders", "db")] == ["id", "item"]
    assert await rows_of(files, "SELECT item FROM orders WHERE id = :id", parameters={"id": 2}) == [
        {"item": "pear"}
    ]
    (tmp_path / "orders.csv").write_text("id,item\n3,plum\n")
    assert await rows_of(files, "SELECT item FROM orders") == [{"item": "plum"}]
    for sql in (
        f"SELECT * FROM read_csv('{tmp_path}/private.csv')",
        f"SELECT * FROM '{tmp_path}/private.csv'",
        f"COPY orders TO '{tmp_path}/orders.csv'",
        f"COPY orders TO '{tmp_path}/new.csv'",
        "CREATE TABLE t AS SELECT 1",
    ):
        with pytest.raises(QueryError):
            await rows_of(files, sql)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["orders.csv", "private.csv"]


async def test_another_duckdb_file_in_the_same_place_is_seen(tmp_path: Path) -> None:
    def make(name: str, value: int) -> Path:
        with duckdb.connect(str(tmp_path / name)) as connection:
            connection.execute(f"CREATE TABLE t AS SELECT {value} AS a")
        return tmp_path / name

    path = make("data.duckdb", 1)
    databases = Databases({"db": open_source("db", f"duckdb:///{path}")})
    assert await rows_of(databases, "SELECT a FROM t") == [{"a": "1"}]
    make("next.duckdb", 2).rename(path)
    assert await rows_of(databases, "SELECT a FROM t") == [{"a": "2"}]
    await databases.close()


def test_an_idle_database_is_given_up() -> None:
    closed = threading.Event()
    opened_times = 0

    class Root:
        def adbc_clone(self) -> Root:
            return self

        def close(self) -> None:
            closed.set()

    def open_root() -> Root:
        nonlocal opened_times
        opened_times += 1
        return Root()

    shared = SharedDatabase(idle_seconds=0.05)
    shared.connect(open_root)
    shared.connect(open_root)
    shared.release()
    assert not closed.wait(0.2)
    shared.release()
    assert closed.wait(5)
    shared.connect(open_root)
    assert opened_times == 2
    shared.close()


def test_urls_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sqlite_engine: Engine
) -> None:
    path = Path(sqlite_engine.url)
    monkeypatch.chdir(path.parent)
    for url in (str(path), path.name, f"sqlite:///{path}", f"sqlite://{path}", f"sqlite:{path}"):
        opened(url)
    opened(f"sqlite:///{path.name}")
    assert isinstance(open_source("db", "C:\\data\\x.db"), SqliteSource)


def test_a_plain_path_is_told_by_what_the_file_holds(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.db")) as connection:
        connection.execute(f"COPY (SELECT 1 AS x) TO '{tmp_path}/b.data' (FORMAT parquet)")
        connection.execute(f"COPY (SELECT 1 AS x) TO '{tmp_path}/c.csv' (FORMAT csv)")
        connection.execute("CREATE TABLE t(x INTEGER)")
    tables = {
        name: [table.name for table in open_source("db", str(tmp_path / name)).tables()]
        for name in ("a.db", "b.data", "c.csv")
    }
    assert tables == {"a.db": ["t"], "b.data": ["b"], "c.csv": ["c"]}
