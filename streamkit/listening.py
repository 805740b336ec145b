"""Addresses that a server listens on, and why one cannot be had, in one line."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from streamkit.errors import ConnectError

__all__ = ["SharedPort", "answers", "bound", "bound_path", "explained", "in_use"]

_BACKLOG = 1024


def answers(path: str) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens; connections wait in it until somebody takes them.

    ConnectError for an address that cannot be had.
    """
    with explained(f"{host}:{port}"):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


def bound_path(path: str) -> socket.socket:
    """Return a unix socket that listens; its name stays when it is closed. ConnectError for one on
    which somebody listens, or that cannot be had."""
    if answers(path):
        raise in_use(f"unix:{path}")
    with explained(f"unix:{path}"):
        with suppress(FileNotFoundError):  # there was none
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)  # of a process that ended without doing so
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(path)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener


class SharedPort:
    """One port for several processes, each with a socket of its own among which the system divides
    what connects; where it cannot, they share one. ConnectError for an address that cannot be had.
    """

    def __init__(self, host: str, port: int) -> None:
        first = bound(host, port)  # fails where somebody listens, whoever that is
        self._address = first.getsockname()[:2]
        self._family = first.family
        self._kept = first
        self.divided = hasattr(socket, "SO_REUSEPORT")
        if self.divided:
            first.close()
            with explained(f"{host}:{port}"):
                self._kept = self._made()  # holds the port, and listens to nobody

    @property
    def port(self) -> int:
        return int(self._address[1])

    def listener(self) -> socket.socket:
        """Return a socket that listens, for one process: close it when that has it."""
        if not self.divided:
            return self._kept.dup()
        made = self._made()
        made.listen(_BACKLOG)
        return made

    def close(self) -> None:
        self._kept.close()

    def _made(self) -> socket.socket:
        made = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if self._family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(self._address)
        except BaseException:
            made.close()
            raise
        return made


def in_use(address: str) -> ConnectError:
    """The error of an address at which somebody listens already."""
    return ConnectError(
        f"{address} is in use",
        hint="stop the server that listens there, or choose another address",
    )


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn what the system says about an address into a ConnectError."""
    try:
        yield
    except socket.gaierror:
        raise ConnectError(f"{address}: no such host") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise in_use(address) from None
        if error.errno == errno.EACCES:
            hint = "Ports below 1024 need special rights." if "unix:" not in address else ""
            raise ConnectError(f"not allowed to listen on {address}", hint=hint) from None
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConnectError(f"cannot listen on {address}: {reason}") from None
