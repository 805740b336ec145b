"""Which pages of other places may use the doors: none, unless the operator names their origins."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from streamkit.errors import InvalidArgumentError
from streamkit.terms import EPOCH_HEADER, POSITION_HEADER, RECONNECT_HEADER
from streamkit.transport.grpc.metadata import Headers

__all__ = ["Cors"]

_ALLOW = (
    "content-type, x-grpc-web, x-user-agent, grpc-timeout, authorization, last-event-id, "
    "connect-protocol-version, connect-timeout-ms, traceparent, tracestate"
)
_EXPOSE = (
    "grpc-status, grpc-message, grpc-status-details-bin, "
    f"{RECONNECT_HEADER}, {EPOCH_HEADER}, {POSITION_HEADER}"
)
_SECONDS = "7200"  # more is cut by Chrome


class Cors:
    """Compares origins letter by letter; never mirrors one that was not named."""

    def __init__(self, origins: Iterable[str]) -> None:
        """InvalidArgumentError for what is no origin (scheme, host and port, nothing else)."""
        self.origins = frozenset(origins)
        for origin in self.origins:
            parts = urlsplit(origin)
            if f"{parts.scheme}://{parts.netloc}" != origin or parts.scheme not in (
                "http",
                "https",
            ):
                raise InvalidArgumentError(
                    f"{origin!r} is no origin", hint="write it as https://app.example.com"
                )

    def preflight(self, origin: str) -> Headers | None:
        """Return the headers that answer a browser's question; None: not allowed."""
        if origin not in self.origins:
            return None
        return [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "POST, GET"),
            ("access-control-allow-headers", _ALLOW),
            ("access-control-max-age", _SECONDS),
            ("vary", "origin"),
        ]

    def headers(self, origin: str) -> Headers:
        """Return what a response to a page of this origin carries."""
        if not self.origins:
            return []
        if origin not in self.origins:
            return [("vary", "origin")]
        return [
            ("access-control-allow-origin", origin),
            ("access-control-expose-headers", _EXPOSE),
            ("vary", "origin"),
        ]
