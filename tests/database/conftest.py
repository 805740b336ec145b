"""The databases, each made once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streamkit.database import Databases, open_source
from tests.database.engines import Engine, make_duckdb, make_sqlite


@pytest.fixture(scope="session")
def sqlite_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_sqlite(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def duckdb_engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_duckdb(tmp_path_factory.mktemp("duckdb"))


@pytest.fixture(params=["sqlite", "duckdb", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "postgresql":
        return Engine("postgresql", request.getfixturevalue("postgres").url)
    found: Engine = request.getfixturevalue(f"{request.param}_engine")
    return found


@pytest.fixture
async def databases(engine: Engine) -> AsyncIterator[Databases]:
    databases = Databases({"db": open_source("db", engine.url)})
    yield databases
    await databases.close()
    assert databases.running == 0
