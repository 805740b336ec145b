"""A memory journal and a channel to all handlers over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import pytest

from streamkit import testing
from streamkit.handlers import (
    HealthHandler,
    JobsHandler,
    LogsHandler,
    ProducerHandler,
    UpdatesHandler,
)
from streamkit.journal import Journal, open_journal
from streamkit.transport import Channel

Connected = Callable[..., AbstractAsyncContextManager[Channel]]


class Streams(UpdatesHandler, JobsHandler, LogsHandler):
    """The three journal streams as one service."""


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    async with await open_journal(":memory:") as journal:
        yield journal


@pytest.fixture
def health() -> HealthHandler:
    return HealthHandler(["streamservice.StreamService"])


@pytest.fixture(params=["socket", "inproc"])
def connected(request: Any) -> Connected:
    """`streamkit.testing.connected`, by each carrier."""
    return partial(testing.connected, carrier=request.param)


@pytest.fixture
async def channel(
    journal: Journal, health: HealthHandler, connected: Connected
) -> AsyncIterator[Channel]:
    handlers = [Streams(journal=journal), ProducerHandler(journal=journal), health]
    async with connected(handlers) as channel:
        yield channel
