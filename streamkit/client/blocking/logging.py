"""StreamHandler: the standard library's logging, shipped to a server.

The rules, each of them a lesson of other handlers: the thread that logs only formats and queues,
it never waits, connects or fails; the queue is bounded and what it drops is counted and told;
records of our own are ignored, so nothing feeds on itself; a forked child starts afresh; and the
end of the program is held up for two seconds at most, however many handlers there are.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import ssl as tls
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from streamkit import tracing
from streamkit.client.aio import AsyncClient
from streamkit.client.blocking.portal import Portal, abandon
from streamkit.client.events import ClientEvent
from streamkit.client.link import server_address
from streamkit.client.writing.spool import Spool, deliver, kept_bytes, spool_folder
from streamkit.client.writing.spooled import SpooledWriter
from streamkit.client.writing.text import clean
from streamkit.client.writing.writers import LogWriter
from streamkit.config import ClientLimits
from streamkit.errors import InvalidArgumentError, StreamkitError
from streamkit.generated.streamservice import LogEntry

__all__ = ["StreamHandler"]

_IGNORED = ("streamkit", "grpclib", "h2", "hpack", "hyperframe", "asyncio")
"""Loggers whose records could be about the shipping of records."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
"""Attributes of every record; any other came with `extra`."""

_handlers: weakref.WeakSet[StreamHandler] = weakref.WeakSet()
_flushing_at_end_of = 0
"""The process of multiprocessing that flushes when it ends."""

_KEEPING = 0.5
"""Seconds that the end of the program may take to put what is left on disk."""

_REQUEST = 500
"""Lines of one request."""

_BUFFER = 2_000
"""Records that are with the writer; the others wait in the handler, where the oldest can go."""


class _Line(NamedTuple):
    timestamp: datetime
    level: str
    message: str
    fields: dict[str, str]


class StreamHandler(logging.Handler):
    """Ships log records as one service's log. Works from `dictConfig`.

        logging.getLogger().addHandler(streamkit.StreamHandler("api"))

    `capacity` records wait while the server is slow or away; then `overflow` decides:
    "drop_oldest" or "drop_new". `dropped` counts, and a line in the log tells how many are missing.
    With a server that stays away, lines go on to a file in the user's cache directory, `spool`
    bytes for all processes that log to it. What is left there at the end of the program is
    delivered by the next process that logs to that server, once. That, too, is told on stderr.
    The level becomes debug, info, warn or error; `extra`, the logger's name and an exception's type
    and text become fields. A server that is away is told on stderr, once.
    """

    def __init__(
        self,
        service: str,
        address: str | None = None,
        *,
        level: int | str = logging.NOTSET,
        capacity: int = 10_000,
        overflow: Literal["drop_oldest", "drop_new"] = "drop_oldest",
        shutdown_timeout: float = 2.0,
        spool: int = ClientLimits().spool,
        ssl: tls.SSLContext | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(level)
        if not service:
            raise InvalidArgumentError("service must not be empty")
        if capacity < 1:
            raise InvalidArgumentError(f"capacity must be positive, not {capacity}")
        if spool < 0:
            raise InvalidArgumentError(f"spool must not be negative, not {spool}")
        if overflow not in ("drop_oldest", "drop_new"):
            raise InvalidArgumentError(f"overflow: unknown policy {overflow!r}")
        self.service = service
        self.address = server_address(address)
        self.dropped = 0
        """Records that this process could not deliver."""
        self.kept = 0
        """Those of them that wait on disk for the next process."""
        self._capacity = capacity
        self._drop_new = overflow == "drop_new"
        self._shutdown_timeout = shutdown_timeout
        self._spool_limit = spool
        # Here, as it imports: a child forked in the middle of an import could never do it again.
        self._spool_folder = spool_folder(self.address)
        self._ssl = ssl
        self._metadata = metadata
        self._closed = False
        self._portal: Portal | None = None
        self._untold = 0
        self._woken = False
        self._reset()
        _handlers.add(self)

    def handle(self, record: logging.LogRecord) -> bool:
        """Pass our own records by, before the lock is taken that a flush may hold."""
        if record.thread == self._thread_id or _is_own(record.name):
            return False
        return bool(super().handle(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record. Never waits, never raises."""
        if self._pid != os.getpid():
            self._reset()  # forked: the queue and the connection are the parent's
        if self._closed:
            return
        if self._failed:
            self.dropped += 1
            return
        try:
            line = self._line(record)
        except Exception:  # logging's own rule: a record never ends the program
            self.handleError(record)
            return
        if len(self._queue) >= self._capacity:
            self.dropped += 1
            self._untold += 1
            if self._drop_new:
                return
            self._queue.popleft()
        self._queue.append(line)
        if not self._woken:
            self._woken = True
            self._wake_worker()

    def flush(self) -> None:
        """Wait, at most `shutdown_timeout`, until everything logged so far is stored."""
        if threading.get_ident() != self._thread_id:
            _flush([self])

    def close(self) -> None:
        """Send what is left, waiting at most `shutdown_timeout`, and end the thread."""
        if not self._closed and self._pid == os.getpid():
            if not self._stuck:
                self.flush()
            self._closed = True
            self._end()
        self._closed = True
        super().close()

    # ---- in the thread that logs ----

    def _reset(self) -> None:
        """The state of one process."""
        if self._portal is not None:
            abandon((self._portal, self._writer, self._worker, self._spooled))
        self._pid = os.getpid()
        self._queue: deque[_Line] = deque()
        self._portal = None
        self._thread_id: int | None = None
        self._worker: asyncio.Task[None] | None = None
        self._work: asyncio.Event | None = None
        self._writer: LogWriter | None = None
        self._spooled: SpooledWriter | None = None
        self._woken = False
        self._stuck = False
        self._failed = False
        self._warned = False
        self._untold = 0
        self.dropped = self.kept = 0

    def _line(self, record: logging.LogRecord) -> _Line:
        fields = {"logger": record.name} | tracing.carrier()  # here: the span is this thread's
        level, plain = _level(record.levelno)
        if record.levelname.lower() not in plain:
            fields["level"] = record.levelname
        for key, value in record.__dict__.items():
            if key not in _STANDARD:
                fields[key] = _shown(value)
        if record.exc_info and record.exc_info[0] is not None:
            fields["exc_type"] = record.exc_info[0].__name__
            # The traceback is in the message already, where the formatter has put it.
            told = traceback.format_exception_only(*record.exc_info[:2])
            fields["exc_text"] = clean("".join(told).rstrip())
        when = datetime.fromtimestamp(record.created, UTC)
        return _Line(when, level, clean(self.format(record)), fields)

    def _wake_worker(self) -> None:
        try:
            if self._portal is None:
                _flush_when_forked_process_ends()
                self._portal = Portal("streamkit logging")
                self._thread_id = self._portal.thread_id
                self._portal.loop.call_soon_threadsafe(self._start)
            self._portal.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            # No thread can be started any more, or the loop is gone: the interpreter is ending.
            self._woken = False

    def _begin_flush(self) -> tuple[float, Future[None]] | None:
        """Until when a flush may take, and its end; None if there is nothing to wait for."""
        portal = self._portal
        if portal is None or self._closed or self._pid != os.getpid():
            return None
        drained = self._drained()
        try:
            future = asyncio.run_coroutine_threadsafe(drained, portal.loop)
        except RuntimeError:  # the loop is gone: the interpreter is ending
            drained.close()
            return None
        return time.monotonic() + self._shutdown_timeout, future

    def _end(self) -> None:
        portal, self._portal = self._portal, None
        if portal is None:
            return
        with suppress(TimeoutError, StreamkitError):  # what is not kept is counted as lost
            self.kept = portal.run(self._keep(), _KEEPING)
        portal.close(0.2)
        lost = len(self._queue) + (self._writer.dropped if self._writer is not None else 0)
        self._queue.clear()
        if not self.kept and self._spooled is not None:
            lost += self._spooled.held + self._spooled.spool.lines
            self._spooled.spool.close()
        self.dropped += lost + self.kept
        if self.kept and self._spooled is not None:
            _say(
                f"{self.kept} log records of {self.service} wait in {self._spooled.spool.path} for "
                f"{self.address}; the next process that logs there brings them"
            )
        if lost:
            _say(f"{lost} log records of {self.service} were not delivered to {self.address}")

    # ---- in the handler's own thread ----

    def _start(self) -> None:
        self._work = asyncio.Event()
        self._online = asyncio.Event()
        self._worker = asyncio.ensure_future(self._ship())

    def _wake(self) -> None:
        if self._work is not None:
            self._work.set()

    async def _ship(self) -> None:
        client = AsyncClient(
            self.address, on_event=self._on_event, ssl=self._ssl, metadata=self._metadata
        )
        producer = SpooledWriter.new_producer()
        spool = Spool(
            self._spool_folder / f"log-{producer}",
            self._spool_limit and max(0, self._spool_limit - kept_bytes(self.address)),
        )
        async with client:
            buffer = min(_BUFFER, self._capacity)
            self._writer = writer = client.log_writer(
                self.service, buffer=buffer, producer_id=producer
            )
            self._spooled = spooled = SpooledWriter(writer, spool, producer)
            self._delivering = asyncio.create_task(self._deliver_kept(client))
            tasks = [asyncio.create_task(spooled.move()), self._delivering]
            work = self._work
            assert work is not None  # made just before this task
            try:
                while not writer.pump.ended:
                    await work.wait()
                    work.clear()
                    self._woken = False
                    with suppress(StreamkitError):  # the writer has ended, as is seen above
                        await self._move(writer, spooled)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if writer.pump.failure is not None:
                self._warn(str(writer.pump.failure))
            self._failed = True

    async def _move(self, writer: LogWriter, spooled: SpooledWriter) -> None:
        """Bring what waits to the writer or the disk, a request at a time."""
        queue, most = self._queue, min(_REQUEST, self._capacity)
        while queue or self._untold:
            lines: list[LogEntry] = []
            if self._untold:
                untold, self._untold = self._untold, 0
                text = f"{untold} log records were dropped before this line: the buffer was full"
                lines.append(writer.entry(text, "warn", {"dropped": untold}, None)[0])
            with suppress(IndexError):  # the thread that logs makes room by itself
                while len(lines) < most:
                    lines.append(_entry(writer, queue.popleft()))
            try:
                await spooled.put(lines)
            except StreamkitError:
                self.dropped += len(lines)
                raise

    async def _deliver_kept(self, client: AsyncClient) -> None:
        """Bring what earlier processes left, once the server is there."""
        await self._online.wait()

        def open_writer(producer: str) -> LogWriter:
            return client.log_writer("kept", producer_id=producer)

        async with aclosing(deliver(open_writer, self.address, _say)) as delivered:
            async for lines in delivered:
                _say(f"{lines} lines that waited on disk for {self.address} are delivered")

    async def _keep(self) -> int:
        """Leave on disk what was not delivered; how many lines that is."""
        if self._spooled is None or self._failed:
            return 0
        rest = list(self._rest())
        kept = self._spooled.keep(rest)
        if not kept:
            self.dropped += len(rest)
        elif self._writer is not None:
            # They have their place; what closing the writer gives up is counted by nobody else.
            self._writer.pump.outbox.forget()
        return kept

    def _rest(self) -> Iterator[LogEntry]:
        assert self._writer is not None
        with suppress(IndexError):  # other threads may take from it, too
            while True:
                yield _entry(self._writer, self._queue.popleft())

    async def _drained(self) -> None:
        while self._queue or self._untold or self._spooled is None:
            if self._worker is not None and self._worker.done():
                return
            self._wake()
            await asyncio.sleep(0.005)
        await self._spooled.flush()
        if self._online.is_set():
            # A short program is as good as any other for what earlier ones have left.
            await asyncio.wait([self._delivering])

    def _on_event(self, event: ClientEvent) -> None:
        if event.kind in ("reconnecting", "connected", "resumed"):
            away = event.kind == "reconnecting"
            if self._spooled is not None:
                self._spooled.noticed(away=away)
            if away:
                self._warn("it cannot be reached")
            else:
                self._online.set()

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            _say(f"logs of {self.service} do not reach {self.address}: {reason}")


def _entry(writer: LogWriter, line: _Line) -> LogEntry:
    return writer.entry(line.message, line.level, line.fields, line.timestamp)[0]


def _flush(handlers: Iterable[StreamHandler]) -> None:
    """Flush them all at once; one that is away costs no more time than its own."""
    with _hushed():
        begun = [(handler, handler._begin_flush()) for handler in handlers]
        for handler, flushed in begun:
            if flushed is None:
                continue
            until, future = flushed
            try:
                future.result(max(0.0, until - time.monotonic()))
                handler._stuck = False
            except (TimeoutError, CancelledError, StreamkitError):  # the process ends anyway
                handler._stuck = True
                future.cancel()


def _flush_all() -> None:
    """At the end of the program, before the logging module closes its handlers one by one."""
    handlers = list(_handlers)
    _flush(handlers)
    for handler in handlers:
        if handler._stuck:
            handler._shutdown_timeout = 0.0


def _flush_when_forked_process_ends() -> None:
    """A child that multiprocessing has forked ends without atexit, but with finalizers."""
    global _flushing_at_end_of
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None or multiprocessing.parent_process() is None:
        return
    if _flushing_at_end_of != os.getpid():
        _flushing_at_end_of = os.getpid()
        from multiprocessing.util import Finalize

        Finalize(None, _flush_all, exitpriority=0)


atexit.register(_flush_all)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep the shipping thread away from the lock of the logging module.

    dictConfig closes the old handlers while it holds that lock, and even a debug line that nobody
    wants takes it for a moment: the thread would wait for the very flush that waits for it.
    """
    loggers = [logging.getLogger(name) for name in ("hpack.hpack", "hpack.table")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _shown(value: object) -> str:
    """A value as text, or why it has none: it must not cost the record that it came with."""
    try:
        return clean(str(value))
    except Exception as error:  # the value is the caller's, and may do anything
        return f"<{type(value).__name__} without a text: {type(error).__name__}>"


def _is_own(name: str) -> bool:
    return name.partition(".")[0] in _IGNORED


def _level(number: int) -> tuple[str, tuple[str, ...]]:
    """One of the four levels, and the names that say no more than it does."""
    if number >= logging.ERROR:
        return "error", ("error",)
    if number >= logging.WARNING:
        return "warn", ("warn", "warning")
    if number >= logging.INFO:
        return "info", ("info",)
    return "debug", ("debug",)


def _say(text: str) -> None:
    """One line on stderr, where there is one."""
    if sys.stderr is not None:
        stamp = time.strftime("%H:%M:%S")
        # In one piece, as other threads write too; logging would recurse.
        sys.stderr.write(f"{stamp} streamkit: {text}\n")
