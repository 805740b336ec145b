"""`streamkit health` for those who ask every few seconds: containers and load balancers.

One question over one socket, in frames written by hand: importing what the other commands stand on
takes several times as long as the whole of this. What is not as simple as that (several addresses,
a context, any other option) is left to the command itself.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["probe"]

_FLAGS = {"--tls": "tls"}
_VALUES = {
    "-s": "server",
    "--server": "server",
    "--ca": "ca",
    "--cert": "cert",
    "--key": "key",
    "--connect-timeout": "seconds",
}
_STATUSES = {0: "unknown", 1: "serving", 2: "not serving", 3: "service unknown"}
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _END_HEADERS, _ACK, _PADDED = 1, 4, 1, 8
_LARGEST = 1 << 20


def probe(arguments: Sequence[str]) -> int | None:
    """Answer a `health` command line: 0 serving, 1 not, 3 not reached; None: not for this."""
    asked = _asked(arguments)
    if asked is None:
        return None
    server, service = asked["server"], asked["service"]
    try:
        with _connected(asked) as link:
            status = _status(link, server, service, tls="context" in asked)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        sys.stderr.write(f"streamkit: cannot connect to {server}: {reason}\n")
        return 3
    if status is None:
        sys.stderr.write(f"streamkit: {server} does not say whether {service!r} serves\n")
        return 1
    sys.stdout.write(_STATUSES.get(status, "unknown") + "\n")
    return 0 if status == 1 else 1


def _asked(arguments: Sequence[str]) -> dict[str, Any] | None:
    asked: dict[str, Any] = {"server": "", "service": "", "seconds": "5s"}
    rest = iter(arguments)
    for word in rest:
        name, sign, value = word.partition("=")
        if word in _FLAGS:
            asked[_FLAGS[word]] = True
        elif name in _VALUES:
            found = value if sign else next(rest, None)
            if not found:
                return None
            asked[_VALUES[name]] = found
        elif word.startswith("-") or asked["service"] or not _simple(word):
            return None
        else:
            asked["service"] = word
    if not asked["server"]:
        asked["server"] = os.environ.get("STREAMKIT_SERVER", "") or _default()
    seconds = asked["seconds"].removesuffix("s")
    several = "," in asked["server"] or "://" in asked["server"]
    if (
        not asked["server"]
        or several
        or not seconds.replace(".", "", 1).isdecimal()
        or float(seconds) <= 0
    ):
        return None
    asked["seconds"] = float(seconds)
    if asked.get("tls") or asked.get("ca") or asked.get("cert"):
        import ssl

        try:
            asked["context"] = context = ssl.create_default_context(cafile=asked.get("ca"))
            context.set_alpn_protocols(["h2"])
            if asked.get("cert"):
                context.load_cert_chain(asked["cert"], asked.get("key"))
        except OSError:
            return None  # the command itself says better what is wrong
    return asked


def _simple(word: str) -> bool:
    return word.isascii() and len(word) <= 100


def _default() -> str:
    """The usual address; "" where a context may say another."""
    import platformdirs

    folder = platformdirs.user_config_dir("streamkit", appauthor=False)
    named = os.environ.get("STREAMKIT_CONTEXT") or os.path.exists(f"{folder}/contexts.toml")
    return "" if named else "localhost:50051"


def _connected(asked: dict[str, Any]) -> socket.socket:
    server, seconds = asked["server"], asked["seconds"]
    if server.startswith("unix:"):
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(seconds)
        link.connect(server.removeprefix("unix:"))
        return link
    host, colon, port = server.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError("give HOST:PORT")
    link = socket.create_connection((host.strip("[]"), int(port)), timeout=seconds)
    context = asked.get("context")
    return link if context is None else context.wrap_socket(link, server_hostname=host.strip("[]"))


def _status(link: socket.socket, server: str, service: str, *, tls: bool) -> int | None:
    """The status in the answer; None for an answer without one."""
    authority = "localhost" if server.startswith("unix:") else server
    fields = (
        (":method", "POST"),
        (":scheme", "https" if tls else "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "streamkit-health"),
    )
    # Each a literal, neither compressed nor remembered.
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)
    name = service.encode()
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    link.sendall(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, block)
        + _frame(_DATA, _END_STREAM, 1, struct.pack(">BL", 0, len(message)) + message)
    )
    reader = link.makefile("rb")
    answer = b""
    while True:
        head = reader.read(9)
        if len(head) < 9:
            raise ValueError("the connection was closed")
        size = int.from_bytes(head[:3], "big")
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        if size > _LARGEST or len(answer) > _LARGEST:
            raise ValueError("this is no gRPC server")
        payload = reader.read(size)
        if kind == _SETTINGS and not flags & _ACK:
            link.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            link.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY or (kind == _RESET and stream == 1):
            return None
        elif stream == 1:
            if kind == _DATA:
                answer += payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
            if flags & _END_STREAM and kind in (_DATA, _HEADERS):
                return _read(answer)


def _read(answer: bytes) -> int | None:
    """The one field of a HealthCheckResponse, after gRPC's five bytes."""
    if len(answer) < 5 or answer[0]:
        return None
    message = answer[5:]
    return message[1] if message[:1] == b"\x08" and len(message) > 1 else 0


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(text: str) -> bytes:
    data = text.encode("latin-1")
    if len(data) > 126:
        raise ValueError("the address is too long")
    return bytes([len(data)]) + data
