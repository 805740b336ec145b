"""Fixtures and short names of the channel's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio

from streamkit.codec import StreamkitCodec
from streamkit.testing import InProcess
from streamkit.transport import Channel

NewChannel = Callable[..., Channel]
Target = str | InProcess
"""Where a channel leads: an address, or handlers in this process."""


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[NewChannel]:
    """Make channels that are closed with the test."""
    async with AsyncExitStack() as stack:

        def new(target: Target, **settings: Any) -> Channel:
            if isinstance(target, InProcess):
                settings["carrier"] = target
                target = target.target
            channel = Channel(target, codec=StreamkitCodec(), **settings)
            stack.push_async_callback(channel.aclose)
            return channel

        yield new
