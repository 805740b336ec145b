"""A response of server-sent events: how it begins, what stands in it, how it ends."""

from __future__ import annotations

import asyncio
import json

from streamkit.doors.connect import error_json, http_status
from streamkit.doors.events import EventSource, event
from streamkit.doors.http.requests import WebRequest, answer
from streamkit.errors import Status
from streamkit.terms import RECONNECT_HEADER
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.server.outcome import Outcome

__all__ = ["EventResponse"]

_HEADERS = [
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store"),
    ("x-accel-buffering", "no"),
    ("x-content-type-options", "nosniff"),
]
_RETRY = b"retry: 1000\n\n"
_QUIET = 0.05
"""Seconds until a response without an event begins, so that its reader knows that it is connected.
Until then it may still become an error, or the answer that nothing is to come."""


class EventResponse:
    """What one or several sources write into."""

    def __init__(
        self, request: WebRequest, cors: Headers, shared: bool, places: dict[str, str]
    ) -> None:
        """`shared`: by several sources."""
        self._call = request.call
        self._cors = cors
        self.shared = shared
        self.places = places
        """Source -> the position that its reader has reached."""
        self.begun = False
        """Whether anything was said."""
        self.said = 0
        """How often anything was."""
        self._over = False
        self._timer = asyncio.get_running_loop().call_later(_QUIET, self.begin)

    @property
    def lost(self) -> bool:
        return self._call.lost

    def begin(self) -> None:
        """Begin the response unless that is done."""
        if not self.begun and not self._over:
            self.begun = True
            self._timer.cancel()
            self._call.start(200, [*_HEADERS, *self._cors])
            self._call.write((_RETRY,))

    def write(self, data: bytes) -> bool:
        """Add events; True: its writer is to wait."""
        self.begin()
        self.said += 1
        return self._call.write((data,))

    def add(self, source: EventSource, epoch: str, found: list[tuple[int, bytes]]) -> bool:
        """Add events that need the places of all sources as ids."""
        self.begin()
        parts = []
        name = f"event: {source.name}\n".encode()
        for number, text in found:
            self.places[source.name] = f"{epoch}.{number}"
            place = ",".join(f"{key}:{value}" for key, value in self.places.items() if value)
            kind = name if text.startswith(b"data:") else b""
            parts.append(b"id: %b\n%b%b" % (place.encode(), kind, text))
        return self._call.write(parts)

    def ended(self, source: str, outcome: Outcome) -> None:
        """A source has ended: say why, as an answer where nothing was said before."""
        if outcome.status is Status.OK:
            if not self.begun and not self.shared:
                self._over = True
                self._timer.cancel()
                answer(self._call, 204, "", *self._cors)  # nothing is to come: do not ask again
            return
        told = error_json(outcome)
        if dict(outcome.trailers).get(RECONNECT_HEADER) == "1":
            self.write(event("reconnect", {}))
        elif self.begun or self.shared:
            self.write(event("error", {"source": source, **told}))
        else:
            self._over = True
            self._timer.cancel()
            text = json.dumps(told) + "\n"
            answer(
                self._call,
                http_status(outcome.status),
                text,
                *self._cors,
                kind="application/json",
            )

    def end(self) -> None:
        """Nothing more comes."""
        self._timer.cancel()
        if not self._over:
            self.begin()
            self._over = True
            self._call.end()
