"""Server-sent events: the journal's streams for EventSource, curl and everything that reads lines.

`Last-Event-ID` (or `?after=`) goes on where any reader stopped, behind whatever door. Where several
sources share a response, each event has the source's name, and its id is the places of all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from grpclib.encoding.base import CodecBase

from streamkit.codec import encode
from streamkit.config import DoorLimits
from streamkit.doors.events import (
    JOB,
    JOBS,
    LOGS,
    SOURCES,
    UPDATES,
    EventSource,
    Makers,
    gap,
    plain,
    threaded,
)
from streamkit.doors.exchange import WebExchange, metadata_of
from streamkit.doors.http.requests import WebRequest, answer
from streamkit.doors.responses import EventResponse
from streamkit.doors.transcode import Shared
from streamkit.errors import InvalidArgumentError, Status
from streamkit.generated.streamservice import (
    JobRequest,
    LogRequest,
    Position,
    StartFrom,
    StreamOptions,
    SubscribeRequest,
    WatchJobsRequest,
)
from streamkit.terms import EPOCH_HEADER
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.server.outcome import Outcome

__all__ = ["EventDoor", "log_request"]

Run = Callable[[WebExchange], asyncio.Future[None]]
"""Starts a call; the future is done when it is over."""


class EventDoor:
    """Answers the addresses below /v1/."""

    def __init__(self, codec: CodecBase, limits: DoorLimits) -> None:
        self._codec = codec
        self._limits = limits
        self._plain = Makers(plain, limits)
        self._threaded = Makers(threaded, limits)

    async def answer(self, request: WebRequest, cors: Headers, run: Run) -> None:
        """Answer until the last source has ended. InvalidArgumentError for what cannot be asked."""
        if request.headers.get("content-type") or request.call.method not in ("GET", "HEAD"):
            answer(request.call, 405, "events are read with GET\n", ("allow", "GET"))
            return
        sources, job = _sources(request)
        if not sources:
            answer(request.call, 404, "no such events; try /v1/updates, /v1/logs, /v1/jobs/ID\n")
            return
        seen = request.headers.get("last-event-id", "") or request.value("after")
        shared = request.path == "/v1/live"
        places = _places(seen) if shared else {sources[0].name: seen}

        def message(source: EventSource, place: str | None) -> bytes:
            return _message(source, request, self._limits, place, job)

        first = [message(source, places.get(source.name, "")) for source in sources]
        response = EventResponse(request, cors, shared, places)
        async with asyncio.TaskGroup() as group:
            for source, asked in zip(sources, first, strict=True):
                group.create_task(self._read(source, request, asked, message, response, run))
        response.end()

    async def _read(
        self,
        source: EventSource,
        request: WebRequest,
        asked: bytes,
        message: Callable[[EventSource, str | None], bytes],
        response: EventResponse,
        run: Run,
    ) -> None:
        makers = self._threaded if response.shared else self._plain
        exchange = _Events(request, source, asked, self._codec, response, makers)
        await run(exchange)
        outcome = exchange.outcome
        place = response.places.get(source.name, "")
        if outcome is not None and outcome.status is Status.FAILED_PRECONDITION and place:
            # Another life of the journal: all that it holds is new to this reader, and that there
            # may be more that it never gets has to be said.
            response.write(gap(source.name, 0, 0, "the position is of another journal"))
            response.places[source.name] = ""
            asked = message(source, None)
            exchange = _Events(request, source, asked, self._codec, response, makers)
            await run(exchange)
            outcome = exchange.outcome
        if outcome is not None and not response.lost:
            response.ended(source.name, outcome)


class _Events(WebExchange):
    """A call whose replies are events."""

    carrier = "sse"

    def __init__(
        self,
        request: WebRequest,
        source: EventSource,
        message: bytes,
        codec: CodecBase,
        response: EventResponse,
        makers: Makers[bytes] | Makers[list[tuple[int, bytes]]],
    ) -> None:
        metadata = metadata_of(request.call.headers)
        super().__init__(request.call, source.method, (message,), codec, metadata=metadata)
        self.outcome: Outcome | None = None
        self._source = source
        self._response = response
        self._makers = makers
        self._make: Shared[bytes] | Shared[list[tuple[int, bytes]]] | None = None
        self._epoch = ""

    def put_headers(self, metadata: Headers, compression: str) -> None:
        self.headers_sent = True
        self._epoch = dict(metadata).get(EPOCH_HEADER, "")

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        if self._make is None:
            self._make = self._makers.of(self._source, self._epoch)
        made = self._make(parts)
        if isinstance(made, bytes):
            return self._response.write(made)
        return self._response.add(self._source, self._epoch, made)

    def put_status(self, outcome: Outcome) -> None:
        self.headers_sent = True
        self.outcome = outcome

    def drop_pending(self) -> None:
        """Other sources may have written it."""


def _sources(request: WebRequest) -> tuple[list[EventSource], str]:
    """What an address asks for, and the job among it."""
    path = request.path
    if path == "/v1/updates":
        return [UPDATES], ""
    if path == "/v1/logs":
        return [LOGS], ""
    if path == "/v1/jobs":
        return [JOBS], ""
    if path.startswith("/v1/jobs/") and len(path) > len("/v1/jobs/"):
        return [JOB], path.removeprefix("/v1/jobs/")
    if path == "/v1/live":
        found = []
        if request.values("topic", "topics"):
            found.append(UPDATES)
        if request.values("service", "services"):
            found.append(LOGS)
        if request.value("job"):
            found.append(JOB)
        if request.values("jobs"):
            found.append(JOBS)
        return found, request.value("job")
    return [], ""


def _places(seen: str) -> dict[str, str]:
    """Read the places of all sources; what is none is a source's to refuse."""
    pairs = (part.partition(":") for part in seen.split(",") if part)
    names = {source.name for source in SOURCES}
    return {name: place for name, _, place in pairs if name in names}


def _message(
    source: EventSource, request: WebRequest, limits: DoorLimits, place: str | None, job: str
) -> bytes:
    """Return the encoded request of a source, from after `place`, the id of the last event seen:
    "" starts where the address says, None with everything that there is."""
    options = StreamOptions(heartbeat=timedelta(seconds=limits.heartbeat), gaps=True)
    start = _start(request, place)
    if source is JOB:
        return encode(JobRequest(job_id=job, start=start, options=options))
    if source is JOBS:
        jobs = [name for name in _names(request.values("jobs"), limits) if name]
        return encode(WatchJobsRequest(jobs=jobs, start=start, options=options))
    if source is UPDATES:
        topics = _names(request.values("topic", "topics") or [">"], limits)
        return encode(SubscribeRequest(topics=topics, start=start, options=options))
    services = [name for name in _names(request.values("service", "services"), limits) if name]
    level = request.value("level")
    return encode(
        LogRequest(log_level=level, follow=True, services=services, start=start, options=options)
    )


def log_request(request: WebRequest) -> LogRequest:
    """Return the request of everything that is kept of some services' logs."""
    services = [name for name in request.values("service", "services") if name]
    return LogRequest(
        log_level=request.value("level"), services=services, start=StartFrom(all=True)
    )


def _names(names: list[str], limits: DoorLimits) -> list[str]:
    if len(names) > limits.patterns:
        raise InvalidArgumentError(f"more than {limits.patterns} names in one address")
    return names


def _start(request: WebRequest, place: str | None) -> StartFrom:
    if place is None:
        return StartFrom(all=True)
    if place:
        epoch, dot, number = place.rpartition(".")
        if not dot:
            raise InvalidArgumentError(f"{place[:60]!r} is no position: EPOCH.SEQUENCE")
        return StartFrom(after=Position(epoch, _number("the position", number)))
    last, since = request.value("last"), request.value("since")
    if last and since:
        raise InvalidArgumentError("last and since exclude each other")
    if last:
        return StartFrom(last=_number("last", last))
    if since:
        try:
            return StartFrom(since=datetime.fromisoformat(since))
        except ValueError:
            raise InvalidArgumentError(f"since: {since[:40]!r} is no time") from None
    return StartFrom(all=True) if request.value("all") else StartFrom()


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidArgumentError(f"{name}: {text[:30]!r} is no number")
    return int(text)
