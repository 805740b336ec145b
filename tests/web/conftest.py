"""A server with a page, a client of it, and a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from streamkit import AsyncClient, Server
from tests.web.chromium import BINARY, Browser, Process, Tab

REBOUND = "*.rebound.example"
"""Names of somebody else that lead to this machine."""


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server(journal=":memory:", port=0, web=True) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.address) as client:
        yield client


@pytest.fixture(scope="session")
def chromium() -> Iterator[Process]:
    if not BINARY:
        pytest.skip("no Chromium here: `apt-get install chromium`")
    process = Process(f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1")
    yield process
    process.stop()


@pytest.fixture
async def browser(chromium: Process) -> AsyncIterator[Browser]:
    browser = Browser(chromium)
    yield browser
    await browser.close()


@pytest.fixture(
    params=[
        pytest.param((1400, False), id="wide"),
        pytest.param((1400, True), id="wide dark", marks=pytest.mark.soak),
        pytest.param((400, False), id="narrow", marks=pytest.mark.soak),
        pytest.param((400, True), id="narrow dark", marks=pytest.mark.soak),
    ]
)
def look(request: pytest.FixtureRequest) -> tuple[int, bool]:
    """Width and darkness of the page; all of them in the long run."""
    found: tuple[int, bool] = request.param
    return found


@pytest.fixture
async def tab(browser: Browser, server: Server, look: tuple[int, bool]) -> AsyncIterator[Tab]:
    """A page that is logged in. Nothing may have gone wrong in it at the end."""
    tab = await browser.tab(look[0], 800, look[1])
    await tab.open(server.page_address)
    await tab.sees("Jobs")
    yield tab
    assert tab.problems == []
