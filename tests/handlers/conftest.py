"""A memory journal and a channel to all handlers over it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streamkit.handlers import (
    HealthHandler,
    JobsHandler,
    LogsHandler,
    ProducerHandler,
    UpdatesHandler,
)
from streamkit.journal import Journal, open_journal
from streamkit.testing import connected
from streamkit.transport import Channel


class Streams(UpdatesHandler, JobsHandler, LogsHandler):
    """The three journal streams as one service."""


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    async with await open_journal(":memory:") as journal:
        yield journal


@pytest.fixture
def health() -> HealthHandler:
    return HealthHandler(["streamservice.StreamService"])


@pytest.fixture
async def channel(journal: Journal, health: HealthHandler) -> AsyncIterator[Channel]:
    handlers = [Streams(journal=journal), ProducerHandler(journal=journal), health]
    async with connected(handlers) as channel:
        yield channel
