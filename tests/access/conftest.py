"""A server with rules, and a file of rules."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from streamkit.codec import StreamkitCodec
from streamkit.transport import Channel
from tests.access.matrix import HOLDERS
from tests.access.servers import ROLES, client_of, serve, tokens_for


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "access.toml"
    path.write_text(ROLES)
    path.chmod(0o600)
    return path


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[tuple[Channel, dict[str, str]]]:
    """A server with two databases and some jobs, and a token for everybody."""
    for name in ("shop", "stock"):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.execute("CREATE TABLE jobs (id)")
    secrets, rules = tokens_for(HOLDERS)
    databases = {name: str(tmp_path / name) for name in ("shop", "stock")}
    async with (
        serve(access=rules, databases=databases, web=True) as address,
        Channel(address, codec=StreamkitCodec()) as channel,
        client_of(address, secrets["admin"]) as admin,
    ):
        for job_id in ("build-1", "build-2", "other"):
            async with admin.job(job_id):
                pass
        yield channel, secrets | {"address": address}
