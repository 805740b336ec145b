"""What a service manager of systemd's kind is told and gives: $NOTIFY_SOCKET and $LISTEN_FDS."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

__all__ = ["given_listener", "notify", "supervised"]

_FIRST = 3
_EVERY = 1.0
_LONGER = 10_000_000
"""Microseconds that a server which still drains asks for, every second."""


def notify(*lines: str) -> None:
    """Tell the manager; nothing happens where there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    import socket  # not before it is needed: `--help` imports this module as well

    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)  # a manager that does not read must not hold up anything
        channel.connect("\0" + address[1:] if address[0] == "@" else address)
        channel.sendall("\n".join(lines).encode())


def given_listener() -> socket.socket | None:
    """The first socket that the manager has opened for this process, taken once."""
    ours = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    count = os.environ.pop("LISTEN_FDS", "")
    if not (ours and count.isdigit() and int(count)):
        return None
    import socket

    os.set_inheritable(_FIRST, False)
    return socket.socket(fileno=_FIRST)


@asynccontextmanager
async def supervised(
    status: str, on_drain: Callable[[Callable[[], None]], None]
) -> AsyncIterator[None]:
    """Tell the manager that the server is ready, that its loop lives, and that it goes.

    `on_drain` is given what is to be called when the server begins to go: from then on more time
    is asked for, until the block is left.
    """
    import asyncio  # in functions: `--help` imports this module and needs no loop

    tasks = [asyncio.create_task(_watchdog())]

    def stopping() -> None:
        notify("STOPPING=1", "STATUS=letting calls end")
        tasks.append(asyncio.create_task(_extend()))

    on_drain(stopping)
    notify("READY=1", f"STATUS={status}")
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watchdog() -> None:
    """A loop that hangs says nothing, and is started anew by the manager."""
    import asyncio

    usec = os.environ.get("WATCHDOG_USEC", "")
    if usec.isdigit() and os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
        while True:
            notify("WATCHDOG=1")
            await asyncio.sleep(int(usec) / 2e6)


async def _extend() -> None:
    import asyncio

    while True:
        notify(f"EXTEND_TIMEOUT_USEC={_LONGER}")
        await asyncio.sleep(_EVERY)
