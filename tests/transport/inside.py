"""What tests look at inside of a channel and of a connection."""

from __future__ import annotations

from asyncio import Task
from typing import Any

from streamkit.transport import Channel
from streamkit.transport.client.pool import Pool


def pool_of(channel: Channel) -> Pool:
    """The pool of a channel that goes over sockets."""
    assert isinstance(channel._pool, Pool)
    return channel._pool


def tasks_of(protocol: Any) -> set[Task[None]]:
    """The calls that a server's connection has in work."""
    tasks: set[Task[None]] = protocol.handler.tasks
    return tasks
