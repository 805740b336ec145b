"""Streams of services of one's own as server-sent events, at the addresses that they name.

The words of the address are the fields of the request. An event's id is the position that its
message says, its fields joined by dots; `Last-Event-ID` (or `?after=`) goes on after it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote

from grpclib.const import Handler
from grpclib.encoding.base import CodecBase

from streamkit.codec import encode, from_json, to_json
from streamkit.codec.message.names import json_names
from streamkit.config import DoorLimits
from streamkit.doors.events import event, gap
from streamkit.doors.exchange import WebExchange, metadata_of
from streamkit.doors.http.requests import WebRequest, answer
from streamkit.doors.responses import EventResponse
from streamkit.doors.transcode import Shared, messages_in
from streamkit.errors import InvalidArgumentError, Status
from streamkit.offers import Offer
from streamkit.places import Places
from streamkit.terms import OLDEST_HEADER
from streamkit.transport import Service
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.server.outcome import Outcome

__all__ = ["OwnEvents"]

_TAKEN = ("/", "/session", "/methods.json", "/v1/updates", "/v1/logs", "/v1/jobs", "/v1/live")
_TEXTS = frozenset({"string", "bytes", "enum", "timestamp", "duration", "wrapper"})

Run = Callable[[WebExchange], asyncio.Future[None]]
Place = tuple[str | int, ...]


class OwnEvents:
    """Answers the addresses at which services offer their streams."""

    def __init__(self, service: Service, limits: DoorLimits) -> None:
        """InvalidArgumentError for what cannot be offered like that."""
        self._codec = service.codec
        self._limits = limits
        self._offered: dict[str, _Offered] = {}
        for path, offer in service.offers.items():
            address = offer.address
            if not address.startswith("/") or "?" in address or address in _TAKEN:
                raise InvalidArgumentError(f"as_events: {address!r} is no address to be had")
            if address in self._offered:
                raise InvalidArgumentError(f"as_events: two methods are offered at {address}")
            self._offered[address] = _Offered(path, service.mapping[path], offer, limits)

    def __contains__(self, address: str) -> bool:
        return address in self._offered

    async def answer(self, request: WebRequest, cors: Headers, run: Run) -> None:
        """Answer until the method has ended. InvalidArgumentError for what cannot be asked."""
        call = request.call
        if request.headers.get("content-type") or call.method not in ("GET", "HEAD"):
            answer(call, 405, "events are read with GET\n", ("allow", "GET"), *cors)
            return
        offered = self._offered[request.path]
        message = offered.request_of(request)
        place = offered.place_of(request)
        response = EventResponse(request, cors, False, {})
        pulse = _Pulse(response, self._limits.heartbeat)
        try:
            while True:
                if place:
                    offered.places.put(message, place)
                exchange = _Own(request, offered, encode(message), self._codec, response, place)
                await run(exchange)
                outcome = exchange.outcome
                if outcome is None or response.lost:
                    return
                further = self._past_gap(offered, exchange, outcome, response)
                if further is None:
                    break
                if not further:
                    message = offered.request_of(request, placed=False)
                place = further
        finally:
            pulse.stop()
        if outcome.status is Status.OK and response.begun:
            response.write(event("end", {}))
        response.ended(offered.name, outcome)
        response.end()

    @staticmethod
    def _past_gap(
        offered: _Offered, exchange: _Own, outcome: Outcome, response: EventResponse
    ) -> Place | None:
        """Tell a reader what it misses and return where it goes on, () at the beginning; None
        where the call ended for another reason."""
        place = exchange.place
        if not place:
            return None
        if outcome.status is Status.FAILED_PRECONDITION and not exchange.sent:
            response.write(gap(offered.name, 0, 0, "the position is of another life"))
            return ()
        oldest = dict(outcome.trailers).get(OLDEST_HEADER, "")
        number = place[-1]
        if outcome.status is not Status.OUT_OF_RANGE or not isinstance(number, int):
            return None
        if not oldest.isdigit() or int(oldest) <= number + 1:
            return None
        response.write(gap(offered.name, number + 1, int(oldest) - 1, "no longer kept"))
        return (*place[:-1], int(oldest) - 1)


class _Offered:
    """One method and what its events are made of."""

    def __init__(self, path: str, method: Handler, offer: Offer, limits: DoorLimits) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self.limits = limits
        self.kind: Any = method.request_type
        self._reply: Any = method.reply_type
        cardinality = method.cardinality
        if cardinality.client_streaming or not cardinality.server_streaming:
            raise InvalidArgumentError(f"as_events: {path} takes a stream or has a single reply")
        self._positioned = bool(offer.position)
        if offer.position:
            self.places = Places(
                "as_events", self.kind, self._reply, offer.position, offer.asked_by
            )
            for names in self.places.asked:
                if type(_default(self.kind, names)) not in (int, str):
                    raise InvalidArgumentError(
                        f"as_events: {'.'.join(names)!r} is neither a number nor a text"
                    )
        self.shared = Shared(self._events, limits)

    def request_of(self, request: WebRequest, *, placed: bool = True) -> Any:
        """Return the request that an address asks with; without `placed` from the beginning."""
        told: dict[str, Any] = {}
        names = json_names(self.kind)
        starts = {path[0] for path in self.places.asked} if self._positioned else set()
        for word, value in request.query:
            found = names.find(word)
            if word == "after" and self._positioned and (found is None or "." in value):
                continue
            if found is None:
                near = names.near(word)
                raise InvalidArgumentError(
                    f"{self.kind.__name__} has no field {word[:60]!r}",
                    hint=f"is it {near!r}?" if near else "",
                )
            field = found.field
            if not placed and field.name in starts:
                continue
            one = _value(field.kind, word, value)
            if field.repeated:
                values = told.setdefault(found.name, [])
                if len(values) == self.limits.patterns:
                    raise InvalidArgumentError(f"more than {len(values)} values of {word[:60]!r}")
                values.append(one)
            else:
                told[found.name] = one
        return from_json(self.kind, json.dumps(told))

    def place_of(self, request: WebRequest) -> Place:
        """Return the place after which a reader goes on; () for none."""
        if not self._positioned:
            return ()
        seen = request.headers.get("last-event-id", "")
        if not seen and ("." in (given := request.value("after")) or not self._has_after):
            seen = given
        if not seen:
            return ()
        parts = seen.rsplit(".", len(self.places.asked) - 1)
        if len(parts) != len(self.places.asked):
            raise InvalidArgumentError(f"{seen[:60]!r} is no position")
        place: list[str | int] = []
        for names, part in zip(self.places.asked, parts, strict=True):
            if type(_default(self.kind, names)) is str:
                place.append(unquote(part))
            elif part.isascii() and part.isdigit() and len(part) < 20:
                place.append(int(part))
            else:
                raise InvalidArgumentError(f"{seen[:60]!r} is no position")
        return tuple(place)

    @property
    def _has_after(self) -> bool:
        return json_names(self.kind).find("after") is not None

    def _events(self, frames: bytes) -> tuple[Place, Place, bytes]:
        """The places of the first and the last message in some frames, and all as events."""
        parts: list[bytes] = []
        first: Place = ()
        last: Place = ()
        for message in messages_in(self._reply, frames):
            if self._positioned:
                last = self.places.of(message)
                first = first or last
                parts.append(b"id: %b\n" % _id(last))
            parts.append(b"data: %b\n\n" % to_json(message).encode())
        return first, last, b"".join(parts)


class _Own(WebExchange):
    """A call whose replies are events."""

    carrier = "sse"

    def __init__(
        self,
        request: WebRequest,
        offered: _Offered,
        message: bytes,
        codec: CodecBase,
        response: EventResponse,
        place: Place,
    ) -> None:
        metadata = metadata_of(request.call.headers)
        super().__init__(request.call, offered.path, (message,), codec, metadata=metadata)
        self.outcome: Outcome | None = None
        self.place = place
        """After the last message that went out; at first, where the reader stands."""
        self.sent = False
        self._offered = offered
        self._response = response

    def put_headers(self, metadata: Headers, compression: str) -> None:
        self.headers_sent = True

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        first, last, data = self._offered.shared(parts)
        if not self.sent and self.place and _is_of_another_life(first, self.place):
            reason = "the position is of another life"
            self._response.write(gap(self._offered.name, 0, 0, reason))
        self.sent = True
        self.place = last
        return self._response.write(data)

    def put_status(self, outcome: Outcome) -> None:
        self.headers_sent = True
        self.outcome = outcome


class _Pulse:
    """Says something when nothing was said for a while, so that nobody takes silence for death."""

    def __init__(self, response: EventResponse, seconds: float) -> None:
        self._response = response
        self._seconds = seconds
        self._said = response.said
        self._timer = asyncio.get_running_loop().call_later(seconds, self._beat)

    def _beat(self) -> None:
        response = self._response
        if response.begun and response.said == self._said:
            response.write(b":\n\n")
        self._said = response.said
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._beat)

    def stop(self) -> None:
        self._timer.cancel()


def _is_of_another_life(first: Place, asked: Place) -> bool:
    """Whether what came first cannot follow the position that was asked for."""
    number, after = first[-1], asked[-1]
    backwards = isinstance(number, int) and isinstance(after, int) and number <= after
    return first[:-1] != asked[:-1] or backwards


def _default(kind: Any, names: Sequence[str]) -> Any:
    value = kind()
    for name in names:
        value = getattr(value, name)
    return value


def _value(kind: str, word: str, text: str) -> Any:
    """What a word of the address says, as JSON has it."""
    if kind in _TEXTS:
        return text
    if kind == "bool":
        if text not in ("", "1", "true", "0", "false"):
            raise InvalidArgumentError(f"{word}: {text[:40]!r} is neither true nor false")
        return text in ("", "1", "true")
    if kind in ("message", "map"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise InvalidArgumentError(f"{word}: {text[:40]!r} is no JSON") from None
    return text  # a number, which JSON may have as text


def _id(place: Place) -> bytes:
    first, *others = [
        quote(part, safe="") if isinstance(part, str) else str(part) for part in place
    ]
    return ".".join([first, *(part.replace(".", "%2E") for part in others)]).encode()
