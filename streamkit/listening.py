"""Addresses that a server listens on, and why one cannot be had, in one line."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from streamkit.errors import ConnectError

__all__ = ["answers", "bound", "explained", "in_use"]


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
        return socket.create_server(address[:2], family=family, backlog=1024)


def in_use(address: str) -> ConnectError:
    """The error of an address at which somebody listens already."""
    return ConnectError(
        f"{address} is in use",
        hint="Stop the server that listens there, or choose another address.",
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
