"""A server with a door, and clients of both kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streamkit import AsyncClient
from tests.client.servers import memory_server


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async with memory_server(web=True, allow_origins=["https://app.example"]) as address:
        yield address


@pytest.fixture
async def client(server: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server) as client:
        yield client
