"""The journal in memory: for tests, and wherever a journal may end with its process."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import compress
from operator import attrgetter
from typing import TypeVar

from streamkit.config import JournalOptions, RetentionRule
from streamkit.errors import InvalidArgumentError, LimitError, NotFoundError, StoreError
from streamkit.generated.streamservice import JobProgress, JobReport, LogEntry, Update
from streamkit.journal.base import (
    Appended,
    Bounds,
    Clock,
    Item,
    Items,
    JobPage,
    JournalStatus,
    ProducerId,
    Pruned,
    Record,
    Selector,
    Stream,
    Tally,
    new_epoch,
)
from streamkit.journal.live.engine import EngineJournal
from streamkit.journal.live.reader import Page
from streamkit.journal.live.ring import BATCH_RECORDS, cut
from streamkit.journal.records.items import Row, log_item, log_rows, update_item, update_rows
from streamkit.journal.records.rows import event_item
from streamkit.journal.rules.dedupe import Answer, Window, Windows, check_producer
from streamkit.journal.rules.jobs import Job, cancelled, grown_old, page_of
from streamkit.journal.rules.reports import Settled, settle
from streamkit.journal.rules.silence import Silences, Steady
from streamkit.patterns import glob_matches

__all__ = ["MemoryJournal"]

M = TypeVar("M", Update, LogEntry)

_SCAN = 8192
_sequence_of = attrgetter("sequence")


class MemoryJournal(EngineJournal):
    """Three lists. Durable as long as the process."""

    def __init__(self, options: JournalOptions, clock: Clock, steady: Steady) -> None:
        super().__init__(options, clock, steady)
        self._logs = {stream: _Log() for stream in Stream}
        self._jobs: dict[str, Job] = {}
        self._ended: dict[str, None] = {}
        self._job_bytes = 0
        self._silences = Silences()
        self._windows = Windows(options.windows_bytes)
        self._repeats = 0
        self._closed = False
        self._start(new_epoch(), dict.fromkeys(Stream, Bounds(1, 0)))

    async def append_updates(
        self, updates: Sequence[Update], producer: ProducerId | None = None
    ) -> Appended:
        return self._append(Stream.UPDATES, updates, update_rows, update_item, producer)

    async def append_logs(
        self, entries: Sequence[LogEntry], producer: ProducerId | None = None
    ) -> Appended:
        return self._append(Stream.LOGS, entries, log_rows, log_item, producer)

    def _append(
        self,
        stream: Stream,
        messages: Sequence[M],
        to_rows: Callable[[Sequence[M], int, datetime], list[Row]],
        to_item: Callable[[Row], Item[Record]],
        producer: ProducerId | None,
    ) -> Appended:
        self._check_open()
        known = self._answered(stream, producer)
        if known is not None:
            return Appended(*known)
        first = self._logs[stream].newest + 1
        now = self._clock()
        rows = to_rows(messages, first, now)
        _check_text(rows)
        self._store(stream, list(map(to_item, rows)), now)
        self._remember(stream, producer, (first, len(messages)))
        return Appended(first, len(messages))

    async def report_jobs(
        self, reports: Sequence[JobReport], *, create: bool = False
    ) -> list[JobProgress]:
        self._check_open()
        now = self._clock()
        settled = settle(
            reports,
            create=create,
            now=now,
            next_sequence=self._logs[Stream.JOBS].newest + 1,
            stored=self._jobs.get,
            answered=partial(self._answered, Stream.JOBS),
        )
        self._bound_live(settled)
        for job in settled.states.values():
            self._keep(job)
            self._silences.heard(job, self._attendance.seen())
        self._store_events(settled.events, now)
        for producer, answer in settled.answers.items():
            self._remember(Stream.JOBS, producer, answer)
        return [j.progress() if isinstance(j, Job) else self._event(*j) for j in settled.after]

    async def cancel_job(self, job_id: str, reason: str = "") -> JobProgress:
        self._check_open()
        stored = self._jobs.get(job_id)
        if stored is None:
            raise NotFoundError(f"no job {job_id!r}")
        now = self._clock()
        return self._change(stored, cancelled(stored, reason, now), now).progress()

    async def job(self, job_id: str) -> JobProgress | None:
        job = self._jobs.get(job_id)
        return None if job is None else job.progress()

    async def jobs(
        self,
        *,
        statuses: Sequence[str] = (),
        since: datetime | None = None,
        limit: int = 100,
        ids: Sequence[str] = (),
        before: int | None = None,
        max_bytes: int = 1 << 62,
    ) -> JobPage:
        found = [
            job
            for job in self._jobs.values()
            if (not statuses or job.status in statuses)
            and (since is None or job.updated_at >= since)
            and (before is None or job.sequence < before)
            and (not ids or any(glob_matches(pattern, job.job_id) for pattern in ids))
        ]
        found.sort(key=lambda job: job.sequence, reverse=True)
        return page_of(found, limit, max_bytes)

    async def status(self) -> JournalStatus:
        size = sum(log.bytes for log in self._logs.values()) + self._job_bytes
        return JournalStatus(":memory:", "none", size, self.faults)

    async def prune(self, *, dry_run: bool = False) -> list[Pruned]:
        now = self._believed()
        found = []
        for stream, log in self._logs.items():
            gone = log.items[: self._too_old(log, now)]
            found.append(Pruned(stream, "", len(gone), sum(item.size for item in gone)))
        for rule, log, kept in self._ruled(now):
            gone = Items(compress(log.items, (not wanted for wanted in kept)))
            size = sum(item.size for item in gone)
            found.append(Pruned(Stream(rule.stream), rule.pattern, len(gone), size))
            if not dry_run:
                log.keep(kept)
        if not dry_run:
            await self.sweep()
        return found

    def count_jobs(self) -> dict[str, int]:
        return Counter(job.status for job in tuple(self._jobs.values()))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._stop_background()
            self._end_readers()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the journal is closed")

    def _store(self, stream: Stream, items: list[Item[Record]], now: datetime) -> None:
        if items:
            self._logs[stream].extend(items, now)
            self._rings[stream].push(items)

    def _store_events(self, events: list[Job], now: datetime) -> None:
        self._store(Stream.JOBS, list(map(event_item, events)), now)

    def _change(self, stored: Job, job: Job, now: datetime) -> Job:
        if job is not stored:
            job = replace(job, sequence=self._logs[Stream.JOBS].newest + 1)
            self._keep(job)
            if job.ended:
                self._silences.forget(job.job_id)
            self._store_events([job], now)
        return job

    def _keep(self, job: Job) -> None:
        known = self._jobs.get(job.job_id)
        self._job_bytes += _size_of(job) - (0 if known is None else _size_of(known))
        self._jobs[job.job_id] = job
        if job.ended:
            self._ended.setdefault(job.job_id)

    def _remove_first_ended(self) -> int:
        """Returns the bytes that frees."""
        job_id = next(iter(self._ended))
        del self._ended[job_id]
        size = _size_of(self._jobs.pop(job_id))
        self._job_bytes -= size
        return size

    def _bound_live(self, settled: Settled) -> None:
        live = len(self._jobs) - len(self._ended)
        new = sum(job_id not in self._jobs for job_id in settled.states)
        if new and live + new > self._options.live_jobs:
            raise LimitError(
                f"there are {live} jobs that have not ended, as many as may be",
                hint="end or cancel some of them first",
            )

    def _event(self, job_id: str, sequence: int) -> JobProgress:
        entry = self._logs[Stream.JOBS].get(sequence)
        if entry is not None and isinstance(entry.message, JobProgress):
            return entry.message
        return self._jobs[job_id].progress()

    def _answered(self, stream: Stream, producer: ProducerId | None) -> Answer | None:
        if producer is None:
            return None
        check_producer(producer)
        window = self._windows.get(stream, producer.id)
        answer = None if window is None else window.find(producer.sequence)
        self._repeats += answer is not None
        return answer

    @property
    def tally(self) -> Tally:
        return super().tally._replace(duplicates=self._repeats)

    def _remember(self, stream: Stream, producer: ProducerId | None, answer: Answer) -> None:
        if producer is None:
            return
        window = self._windows.get(stream, producer.id)
        if window is None:
            window = Window()
            self._windows.put(stream, producer.id, window)
        self._windows.remember(window, producer.sequence, answer)
        self._windows.trim()

    async def _sweep(self, now: datetime, seen: float) -> None:
        for job_id, silence in self._silences.overdue(seen, len(self._silences)):
            job = self._jobs[job_id]
            self._change(job, grown_old(job, now, silence), now)
        retention = self._options.retention
        if retention.max_age:
            horizon = self._believed() - timedelta(seconds=retention.max_age)
            for log in self._logs.values():
                log.drop(self._too_old(log, self._believed()))
            while self._ended and self._jobs[next(iter(self._ended))].updated_at < horizon:
                self._remove_first_ended()
        for _, log, kept in self._ruled(self._believed()):
            log.keep(kept)
        if retention.max_bytes:
            self._remove_too_much(retention.max_bytes)
        for stream, log in self._logs.items():
            self._oldest[stream] = log.oldest

    def _too_old(self, log: _Log, now: datetime) -> int:
        """How many of the oldest items are."""
        max_age = self._options.retention.max_age
        return bisect_left(log.recorded, now - timedelta(seconds=max_age)) if max_age else 0

    def _ruled(self, now: datetime) -> Iterator[tuple[RetentionRule, _Log, list[bool]]]:
        """Each rule, and which items of its stream it keeps. The first that means a key decides."""
        before: list[Selector] = []
        for rule in self._options.retention.rules:
            selector = Selector(Stream(rule.stream), (rule.pattern,))
            log = self._logs[selector.stream]
            horizon = now - timedelta(seconds=rule.max_age)
            kept: list[bool] = []
            count: dict[str, int] = {}
            size = 0
            for item, recorded in zip(reversed(log.items), reversed(log.recorded), strict=True):
                known = any(s.stream is selector.stream and s.matches(item.key, 9) for s in before)
                if known or not selector.matches(item.key, 9):
                    kept.append(True)
                    continue
                size += item.size
                count[item.key] = count.get(item.key, 0) + 1
                kept.append(
                    not (rule.max_age and recorded < horizon)
                    and not (rule.keep_last and count[item.key] > rule.keep_last)
                    and not (rule.max_bytes and size > rule.max_bytes)
                )
            yield rule, log, kept[::-1]
            before.append(selector)

    def _remove_too_much(self, bound: int) -> None:
        """Where the oldest is, among those that take more than an eighth of the bound."""
        share = bound // 8
        over = sum(log.bytes for log in self._logs.values()) + self._job_bytes - bound
        while over > 0:
            logs = [log for log in self._logs.values() if log.items and log.bytes > share]
            log = min(logs, key=_Log.began, default=None)
            first = next(iter(self._ended), None) if self._job_bytes > share else None
            if first is not None and (log is None or self._jobs[first].updated_at < log.began()):
                over -= self._remove_first_ended()
            elif log is not None:
                over -= log.drop(max(1, len(log.items) // 64))
            else:
                break

    async def _page(self, selector: Selector, after: int, end: int) -> Page[Record]:
        log = self._logs[selector.stream]
        start = max(after + 1, log.oldest)
        first = log.index(start)
        window = log.items[first : min(log.index(end + 1), first + _SCAN)]
        end = end if first + _SCAN >= log.index(end + 1) else window[-1].sequence
        found = [item for item in window if selector.matches(item.key, item.rank)]
        items = cut(found[:BATCH_RECORDS])
        if len(items) < len(found):
            return Page(items, items[-1].sequence, log.oldest)
        return Page(items, end, log.oldest)

    async def _first_of_last(self, selector: Selector, count: int, newest: int) -> int | None:
        log = self._logs[selector.stream]
        first = None
        for item in reversed(log.items[: log.index(newest + 1)]):
            if selector.matches(item.key, item.rank):
                first = item.sequence
                count -= 1
                if not count:
                    break
        return first

    async def _place_since(self, stream: Stream, since: datetime, newest: int) -> int:
        log = self._logs[stream]
        index = bisect_left(log.recorded, since)
        return min(newest, log.items[index].sequence - 1 if index < len(log.items) else newest)


class _Log:
    """The stored items of one stream and when each was recorded."""

    def __init__(self) -> None:
        self.items: Items[Record] = Items()
        self.recorded: list[datetime] = []
        self.newest = 0
        self.bytes = 0

    @property
    def oldest(self) -> int:
        return self.items[0].sequence if self.items else self.newest + 1

    def index(self, sequence: int) -> int:
        """Of the first item from a sequence on. Rules of retention leave holes."""
        return bisect_left(self.items, sequence, key=_sequence_of)

    def began(self) -> datetime:
        return self.recorded[0]

    def get(self, sequence: int) -> Item[Record] | None:
        index = self.index(sequence)
        found = self.items[index] if index < len(self.items) else None
        return found if found is not None and found.sequence == sequence else None

    def extend(self, items: list[Item[Record]], now: datetime) -> None:
        if self.recorded:
            now = max(now, self.recorded[-1])  # a clock set back must not break the search by time
        self.items.extend(items)
        self.recorded.extend([now] * len(items))
        self.bytes += sum(item.size for item in items)
        self.newest = items[-1].sequence

    def keep(self, kept: Sequence[bool]) -> None:
        """Let go of the others."""
        self.items = Items(compress(self.items, kept))
        self.recorded = list(compress(self.recorded, kept))
        self.bytes = sum(item.size for item in self.items)

    def drop(self, count: int) -> int:
        """Remove the oldest items; returns the bytes that frees."""
        freed = sum(item.size for item in self.items[:count])
        del self.items[:count], self.recorded[:count]
        self.bytes -= freed
        return freed


def _size_of(job: Job) -> int:
    texts = (
        job.job_id,
        job.current_step,
        job.error,
        job.service,
        job.cancel_reason,
        job.traceparent,
    )
    return 512 + sum(map(len, texts))


def _check_text(rows: list[Row]) -> None:
    """Refuse what no store and no encoder would take."""
    try:
        for row in rows:
            "".join(value for value in row if isinstance(value, str)).encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(f"text that is not valid Unicode: {error}") from None
