"""A server with a page, a client of it, and a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streamkit import AsyncClient, Server
from tests.web.chromium import BINARY, Browser, Tab, chromium


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(journal=":memory:", port=0, web=True) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address) as client:
        yield client


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if not BINARY:
        pytest.skip("no Chromium here: `apt-get install chromium`")
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def tab(browser: Browser, server: Server) -> AsyncIterator[Tab]:
    """A page that is logged in. Nothing may have gone wrong in it at the end."""
    tab = await browser.tab()
    await tab.open(server.page_address)
    await tab.sees("Jobs")
    yield tab
    assert tab.problems == []
