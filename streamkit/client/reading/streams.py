"""The three journal streams as a client reads them: requests, cursors, and one class for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from streamkit.client.attempts import Reconnect
from streamkit.client.events import ClientEvent, OnEvent, tell
from streamkit.client.reading.cursor import JobCursor, JournalCursor, OnLoss
from streamkit.client.reading.pulse import Pulse
from streamkit.client.reading.resume import ResumingCall
from streamkit.client.reading.start import StartAt, start_from
from streamkit.errors import InvalidArgumentError, StreamkitError
from streamkit.generated.streamservice import (
    Gap,
    JobProgress,
    JobRequest,
    LogEntry,
    LogRequest,
    StartFrom,
    StreamOptions,
    SubscribeRequest,
    Update,
    WatchJobsRequest,
)
from streamkit.terms import Position
from streamkit.transport.grpc.deadline import duration

if TYPE_CHECKING:
    from streamkit.transport import Channel

__all__ = ["JobEvents", "JobWatch", "LogStream", "RecordStream", "Subscription", "open_stream"]

Request = TypeVar("Request", SubscribeRequest, LogRequest, JobRequest, WatchJobsRequest)
Record = TypeVar("Record", Update, LogEntry, JobProgress)

SERVICE = "/streamservice.StreamService/"
_WATCH_JOBS = "/streamservice.ProducerService/WatchJobs"


class RecordStream(ResumingCall[Request, Record], Generic[Request, Record]):
    """Records of the journal, in order, each once, through any number of connections.

    An async context manager and an async iterator; `receive()` gives whole batches. Entering the
    context waits until the server has confirmed where the stream starts.
    """

    _cursor: JournalCursor[Request, Record]
    pulse: Pulse | None = None
    """Told when the stream is cut off; not for users."""

    def _cut(self, error: StreamkitError, quiet: float) -> None:
        if self.pulse is not None:
            self.pulse.cut(error.ending, quiet)

    @property
    def position(self) -> Position | None:
        """After the last record handed out, or the confirmed start; None before that.

        Kept somewhere, it starts a later stream: `start=position`.
        """
        place, following = self._cursor.position, self._next
        if place is not None and following is not None:
            # Records that arrived and were not handed out yet are still to come.
            return Position(place.epoch, following.sequence - 1)
        return place


Subscription = RecordStream[SubscribeRequest, Update]
LogStream = RecordStream[LogRequest, LogEntry]
JobWatch = RecordStream[JobRequest, JobProgress]
JobEvents = RecordStream[WatchJobsRequest, JobProgress]


class Setting:
    """What all streams of one client share."""

    def __init__(
        self,
        channel: Channel,
        reconnect: Reconnect,
        idle_timeout: float,
        metadata: dict[str, str] | None,
        pulse: Pulse,
    ) -> None:
        self.channel = channel
        self.reconnect = reconnect
        self.idle_timeout = idle_timeout
        self.pulse = pulse
        self.metadata = metadata

    def options(self, *, live: bool, latest: bool, on_loss: OnLoss | None) -> StreamOptions:
        options = StreamOptions(latest=latest, gaps=on_loss is not None)
        if live:
            options.heartbeat = timedelta(seconds=self.pulse.interval)
        return options


def subscription(
    setting: Setting,
    topics: Sequence[str],
    client_id: str,
    *,
    start: StartAt | None,
    latest: bool,
    on_loss: OnLoss | None,
) -> Subscription:
    """SubscribeToUpdates."""
    if not topics:
        raise InvalidArgumentError("topics must not be empty", hint='ask for ">" to get all')

    def build(place: StartFrom | None) -> SubscribeRequest:
        options = setting.options(live=True, latest=latest, on_loss=on_loss)
        request = SubscribeRequest(topics=list(topics), client_id=client_id, options=options)
        if place is not None:
            request.start = place
        return request

    cursor: JournalCursor[SubscribeRequest, Update] = JournalCursor(
        build, start_from(start), endless=True, on_loss=_told(on_loss, setting, "updates")
    )
    return open_stream(setting, "SubscribeToUpdates", SubscribeRequest, Update, cursor)


def log_stream(
    setting: Setting,
    services: Sequence[str],
    *,
    level: str,
    lines: int,
    follow: bool,
    start: StartAt | None,
    latest: bool,
    on_loss: OnLoss | None,
) -> LogStream:
    """TailLogs."""
    if lines < 0:
        raise InvalidArgumentError(f"lines must not be negative, not {lines}")

    def build(place: StartFrom | None) -> LogRequest:
        options = setting.options(live=follow, latest=latest, on_loss=on_loss)
        request = LogRequest(log_level=level, lines=lines, follow=follow, options=options)
        if services:
            request.service_name = services[0]
            request.services = list(services[1:])
        if place is not None:
            request.start = place
        return request

    cursor: JournalCursor[LogRequest, LogEntry] = JournalCursor(
        build, start_from(start), endless=follow, on_loss=_told(on_loss, setting, "logs")
    )
    return open_stream(setting, "TailLogs", LogRequest, LogEntry, cursor)


def job_watch(
    setting: Setting, job_id: str, *, wait: float, start: StartAt | None, on_loss: OnLoss | None
) -> JobWatch:
    """WatchJobProgress."""
    if not job_id:
        raise InvalidArgumentError("job_id must not be empty")

    def build(place: StartFrom | None) -> JobRequest:
        options = setting.options(live=True, latest=False, on_loss=on_loss)
        request = JobRequest(job_id=job_id, options=options)
        if wait:
            request.wait = duration(wait, "wait")
        if place is not None:
            request.start = place
        return request

    cursor = JobCursor(build, start_from(start), _told(on_loss, setting, f"job {job_id}"))
    return open_stream(setting, "WatchJobProgress", JobRequest, JobProgress, cursor)


def job_events(
    setting: Setting, jobs: Sequence[str], *, start: StartAt | None, on_loss: OnLoss | None
) -> JobEvents:
    """WatchJobs."""

    def build(place: StartFrom | None) -> WatchJobsRequest:
        options = setting.options(live=True, latest=False, on_loss=on_loss)
        request = WatchJobsRequest(jobs=list(jobs), options=options)
        if place is not None:
            request.start = place
        return request

    cursor: JournalCursor[WatchJobsRequest, JobProgress] = JournalCursor(
        build, start_from(start), endless=True, on_loss=_told(on_loss, setting, "jobs")
    )
    return open_stream(setting, _WATCH_JOBS, WatchJobsRequest, JobProgress, cursor)


def open_stream(
    setting: Setting,
    method: str,
    request_type: type[Request],
    record_type: type[Record],
    cursor: JournalCursor[Request, Record],
) -> RecordStream[Request, Record]:
    stream = RecordStream(
        setting.channel,
        method if method.startswith("/") else SERVICE + method,
        request_type,
        record_type,
        cursor=cursor,
        reconnect=setting.reconnect,
        idle_timeout=setting.idle_timeout,
        confirm=True,
        metadata=setting.metadata,
    )
    stream.pulse = setting.pulse
    return stream


def _told(on_loss: OnLoss | None, setting: Setting, name: str) -> OnLoss | None:
    """A loss is an event of the client as well as a call of the user's function."""
    if on_loss is None:
        return None
    on_event: OnEvent | None = setting.reconnect.on_event
    listener: Callable[[Gap], object] = on_loss

    def lose(gap: Gap) -> None:
        detail = f"{name}: {gap.last - gap.first + 1} records lost: {gap.reason}"
        tell(on_event, ClientEvent("gap", detail))
        listener(gap)

    return lose
