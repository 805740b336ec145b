"""Figures of a server for Prometheus, made when they are asked for.

Labels are methods, statuses, reasons and streams: a topic, job, service or client never is one,
because each would be a series of its own, for ever.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from streamkit.errors import PreconditionError, Status
from streamkit.histogram import Histogram
from streamkit.interceptors.calls import Calls
from streamkit.interceptors.figures import Figures
from streamkit.journal.base import Journal, Stream, Tally
from streamkit.rights import STORE
from streamkit.terms import TERMINAL, VERSION

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from streamkit.database import Databases

__all__ = ["LAGS", "Metrics", "new_registry", "of_tally", "plain"]

LAGS = (0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)
_STATUSES = ("pending", "running", *TERMINAL)
_OTHER = "other"
"""The method of calls for what the server does not have (gRFC A66)."""


def new_registry() -> CollectorRegistry:
    """One with the figures of this process. PreconditionError without prometheus_client."""
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
    except ImportError:
        raise PreconditionError(
            "metrics need prometheus_client", hint="pip install 'streamkit-grpc[metrics]'"
        ) from None
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    return registry


class Metrics:
    """A collector of prometheus_client's kind. PreconditionError where that is not installed.

    `collect` runs in any thread: it reads numbers, and copies what the loop may be changing.
    """

    def __init__(
        self,
        calls: Calls,
        *,
        journal: Callable[[], Journal | None] = lambda: None,
        unknown: Callable[[], int] = lambda: 0,
        connections: Callable[[], int] = lambda: 0,
        draining: Callable[[], bool] = lambda: False,
        databases: Callable[[], Databases | None] = lambda: None,
    ) -> None:
        self._calls = calls
        self._figures = Figures(calls)
        self._journal = journal
        self._unknown = unknown
        self._connections = connections
        self._draining = draining
        self._databases = databases
        self._moved: dict[int, tuple[int, float]] = {}
        """Of each stream that runs: how much it had sent at a scrape, and since when no more."""
        self.registry = new_registry()
        self.registry.register(self)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """What a scrape gets, and its content type."""
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def tally(self) -> list[Any]:
        """Every family as plain values: name, type, text, and the samples."""
        return plain(self.collect())

    def collect(self) -> Iterator[Metric]:
        """Every family with its samples."""
        self._figures.count()
        yield from self._of_grpc()
        yield from self._of_streams()
        yield from self._of_server()
        journal = self._journal()
        if journal is not None:
            yield from _of_journal(journal)
        databases = self._databases()
        if databases is not None:
            yield from _of_databases(databases)

    def _of_grpc(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        ended, unknown = list(self._figures.ended.items()), self._unknown()
        started = Counter(call.context.method for call in self._calls)
        for (method, _), figures in ended:
            started[method] += figures.count
        family = CounterMetricFamily(
            "grpc_server_call_started", "Calls that have begun.", labels=["grpc_method"]
        )
        for method, count in sorted(started.items()):
            family.add_metric([_name(method)], count)
        if unknown:
            family.add_metric([_OTHER], unknown)
        yield family
        labels = ["grpc_method", "grpc_status"]
        for name, text, part in (
            ("call_duration_seconds", "How long calls took that have ended.", "seconds"),
            ("call_sent_total_compressed_message_size_bytes", _BYTES.format("sent"), "sent"),
            ("call_rcvd_total_compressed_message_size_bytes", _BYTES.format("received"),
             "received"),
        ):  # fmt: skip
            histogram = HistogramMetricFamily(f"grpc_server_{name}", text, labels=labels)
            for (method, status), figures in ended:
                _add(histogram, [_name(method), status.name], getattr(figures, part))
            if unknown:
                buckets = [(bound, float(unknown)) for bound, _ in Histogram(()).buckets()]
                histogram.add_metric([_OTHER, Status.UNIMPLEMENTED.name], buckets, 0.0)
            yield histogram

    def _of_streams(self) -> Iterator[Metric]:
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        streams: Counter[str] = Counter()
        messages: Counter[str] = Counter()
        lags, longest, journal = Histogram(LAGS), 0, self._journal()
        for (method, _), figures in list(self._figures.ended.items()):
            messages[method] += figures.messages
        now, moved = time.monotonic(), {}
        for call in self._calls:
            context = call.context
            messages[context.method] += context.messages_sent
            if context.streams_replies:
                streams[context.method] += 1
                seen, since = self._moved.get(call.id, (0, call.began))
                sent_now = context.messages_sent
                moved[call.id] = (sent_now, since if seen == sent_now else now)
            if journal is not None and context.place is not None:
                lag = journal.lag(context.place, context.pending)
                longest = max(longest, lag)
                lags.add(lag)
        self._moved = moved
        label = ["grpc_method"]
        live = GaugeMetricFamily("streamkit_streams", "Streams that run.", labels=label)
        for method, count in sorted(streams.items()):
            live.add_metric([_name(method)], count)
        yield live
        sent = CounterMetricFamily("streamkit_stream_messages", "Messages sent.", labels=label)
        for method, count in sorted(messages.items()):
            sent.add_metric([_name(method)], count)
        yield sent
        ends = CounterMetricFamily(
            "streamkit_stream_ends",
            "Streams that have ended, and why.",
            labels=["grpc_method", "reason"],
        )
        for (method, reason), count in sorted(self._figures.reasons.items()):
            ends.add_metric([_name(method), reason], count)
        yield ends
        resumes = CounterMetricFamily(
            "streamkit_resumes",
            "Streams from a position on that have ended: taken, ended by a gap, refused.",
            labels=["result"],
        )
        for result, count in self._figures.resumed.items():
            resumes.add_metric([result], count)
        yield resumes
        yield GaugeMetricFamily(
            "streamkit_idle_seconds_max",
            "Of the stream that has sent nothing for longest, as far as scrapes tell.",
            max((now - since for _, since in moved.values()), default=0.0),
        )
        if journal is not None:
            behind = HistogramMetricFamily(
                "streamkit_lag_records", "How far the streams that run are behind, now."
            )
            _add(behind, [], lags)
            yield behind
            yield GaugeMetricFamily(
                "streamkit_lag_records_max", "Of the one that is furthest behind.", longest
            )

    def _of_server(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield GaugeMetricFamily(
            "streamkit_connections", "Connections that are open.", self._connections()
        )
        failures = CounterMetricFamily(
            "streamkit_auth_failures", "Calls that were refused.", labels=["reason"]
        )
        for reason, count in self._figures.refused.items():
            failures.add_metric([reason], count)
        yield failures
        yield GaugeMetricFamily(
            "streamkit_drain", "1 while the server is on its way down.", int(self._draining())
        )
        build = GaugeMetricFamily("streamkit_build_info", "What runs.", labels=["version"])
        build.add_metric([VERSION], 1)
        yield build


_BYTES = "Bytes of the messages {} in a call, before they were compressed."


def _of_journal(journal: Journal) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    sequence = GaugeMetricFamily(
        "streamkit_journal_sequence", "What is kept of a stream.", labels=["stream", "end"]
    )
    readers = GaugeMetricFamily(
        "streamkit_subscribers", "Readers that follow a stream.", labels=["stream"]
    )
    for stream in Stream:
        oldest, newest = journal.bounds(stream)
        sequence.add_metric([stream.value, "oldest"], oldest)
        sequence.add_metric([stream.value, "newest"], newest)
        readers.add_metric([stream.value], journal.subscribers(stream))
    yield sequence
    yield readers
    yield from of_tally(journal.tally)
    jobs = GaugeMetricFamily("streamkit_jobs", "Jobs that are stored.", labels=["status"])
    for status, count in sorted((dict.fromkeys(_STATUSES, 0) | journal.count_jobs()).items()):
        jobs.add_metric([status], count)
    yield jobs
    yield GaugeMetricFamily(
        "streamkit_faults", "What goes wrong in the journal now.", len(journal.faults)
    )
    path = getattr(journal, "path", None)  # only an engine with a file has one
    if path is not None:
        for name, text, file in (
            ("streamkit_store_bytes", "Of the store's file.", path),
            ("streamkit_wal_bytes", "Of its write-ahead log.", f"{path}-wal"),
        ):
            size = 0
            with suppress(OSError):  # there is no log between two checkpoints
                size = os.path.getsize(file)
            yield GaugeMetricFamily(name, text, size)


def of_tally(tally: Tally) -> Iterator[Metric]:
    """What a journal has counted."""
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    yield CounterMetricFamily(
        "streamkit_gaps", "Readers that missed what retention had removed.", tally.gaps
    )
    yield GaugeMetricFamily(
        "streamkit_catching_up", "Readers that read from far back, now.", tally.catching_up
    )
    yield CounterMetricFamily(
        "streamkit_duplicates",
        "Requests that a producer repeated, and that were not stored again.",
        tally.duplicates,
    )
    removed = CounterMetricFamily(
        "streamkit_removed", "Records that retention removed.", labels=["stream", "reason"]
    )
    for labels, count in sorted(tally.removed.items()):
        removed.add_metric(list(labels), count)
    yield removed
    if tally.commits is not None:
        commits = HistogramMetricFamily(
            "streamkit_commit_seconds", "How long it took to make writes durable."
        )
        _add(commits, [], tally.commits)
        yield commits


def _of_databases(databases: Databases) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

    running = GaugeMetricFamily("streamkit_queries", "Queries that run.", labels=["database"])
    for name, count in sorted(databases.running_now().items()):
        running.add_metric([name or STORE], count)
    yield running
    seconds = HistogramMetricFamily(
        "streamkit_query_seconds",
        "How long queries took that have ended.",
        labels=["database", "outcome"],
    )
    for (name, outcome), figures in sorted(databases.seconds.copy().items()):
        _add(seconds, [name or STORE, outcome], figures)
    yield seconds


def plain(families: Iterable[Metric]) -> list[Any]:
    """Families as plain values: name, type, text, and the samples."""
    return [
        (
            family.name,
            family.type,
            family.documentation,
            [(s.name, tuple(s.labels.items()), float(s.value)) for s in family.samples],
        )
        for family in families
    ]


def _name(path: str) -> str:
    return path.removeprefix("/")


def _add(family: Any, labels: list[str], figures: Histogram) -> None:
    family.add_metric(labels, figures.buckets(), figures.sum)
