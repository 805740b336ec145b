"""Who is at the other end of a connection, as far as the system vouches for it."""

from __future__ import annotations

import asyncio
import socket
from struct import Struct

__all__ = ["peer_certificate", "peer_name", "peer_uid"]

_UCRED = Struct("3i")  # pid, uid, gid


def peer_name(transport: asyncio.BaseTransport) -> str:
    """Return its address as gRPC writes it: "ipv4:host:port", "ipv6:[host]:port" or "unix:"."""
    address = transport.get_extra_info("peername")
    if isinstance(address, tuple):
        host, port = address[0], address[1]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
    return f"unix:{address}" if isinstance(address, str) else "unix:"


def peer_uid(transport: asyncio.BaseTransport) -> int | None:
    """Return the user at the other end of a unix socket, as the kernel noted it at the connect."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    uid: int = _UCRED.unpack(data)[1]
    return uid


def peer_certificate(transport: asyncio.BaseTransport) -> dict[str, object] | None:
    """Return its verified certificate as ssl.SSLSocket.getpeercert gives it."""
    tls = transport.get_extra_info("ssl_object")
    return None if tls is None else (tls.getpeercert() or None)
