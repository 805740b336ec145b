"""File descriptors: as many as the system gives, and connections never take the last of them."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

try:
    import resource
except ImportError:  # not there on Windows, nor is such a limit
    resource = None  # type: ignore[assignment]  # looked at before each use

__all__ = ["few_left", "raise_limit", "wait_with"]

_SPARE = 256  # of descriptors beside those of connections, at most; an eighth of a small limit


def raise_limit(wanted: int) -> None:
    """Raise the soft limit of the process to what that many connections need, as far as the hard
    one allows; never lower it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + _SPARE
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        # The system may have another bound of its own: `few_left` holds for what there is.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def few_left(transport: asyncio.BaseTransport) -> bool:
    """Whether a new connection has one of the last descriptors, which files and others need.

    The system gives out the lowest number that is free, so the number tells.
    """
    sock = transport.get_extra_info("socket")
    if resource is None or sock is None:
        return False
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return False
    number: int = sock.fileno()
    return number >= soft - min(_SPARE, soft // 8)


def wait_with(listener: Any, backlog: int) -> None:
    """Let that many connections wait to be accepted at a socket, or what asyncio has in place of
    one, that listens already."""
    with socket.socket(fileno=os.dup(listener.fileno())) as same:
        same.listen(backlog)
