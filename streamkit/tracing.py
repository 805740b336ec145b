"""Traces through the OpenTelemetry API, for a process that has asked for them.

    streamkit.tracing.enable()    # needs streamkit-grpc[otel]; the process chooses its SDK

From then on each call has a span on both sides, and the trace context goes along as W3C headers.
What is published or logged keeps the context that it came from in its metadata or fields, and the
state of a job that of its last report, so a reader, today or after a restart, can link to it:
`received`. Without `enable` none of this costs
anything. The only module that imports opentelemetry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from streamkit.errors import PreconditionError, Status, StreamkitError

__all__ = ["carrier", "enable", "of_client", "of_server", "received"]

_KEYS = ("traceparent", "tracestate")
_FAULTS = frozenset(
    [
        Status.UNKNOWN,
        Status.DEADLINE_EXCEEDED,
        Status.UNIMPLEMENTED,
        Status.INTERNAL,
        Status.UNAVAILABLE,
        Status.DATA_LOSS,
    ]
)
"""Of a call's ends, those that are the server's fault, as the conventions have it."""
_PARTS = {
    "/streamservice.ProducerService/Publish": ("updates", "metadata"),
    "/streamservice.ProducerService/WriteLogs": ("entries", "fields"),
}
"""Methods whose records a caller hands over by one call: its context is theirs."""

_LONGEST = 64
"""Characters of a `traceparent` that is kept; one of version 00 has 55."""
_REPORTS = frozenset(
    f"/streamservice.ProducerService/{name}" for name in ("CreateJob", "UpdateJob", "FinishJob")
)

_tracing: _Tracing | None = None


def enable() -> None:
    """Trace the clients and servers that are made in this process from now on.

    PreconditionError where the API is not installed. May be called again.
    """
    global _tracing
    if _tracing is None:
        _tracing = _Tracing()


def carrier() -> dict[str, str]:
    """The current span's context as `traceparent` and `tracestate`; empty without a span."""
    return {} if _tracing is None else _tracing.carrier()


@contextmanager
def received(record: Any) -> Iterator[Any]:
    """A span for the work on an update, a log line or a job's state, linked to the span that it
    came from.

        async for update in updates:
            with received(update):
                ...

    Gives the span; None where nothing is traced.
    """
    if _tracing is None:
        yield None
        return
    with _tracing.received(record) as span:
        yield span


def of_server() -> list[Any]:
    """What a server puts around its calls: nothing where nothing is traced."""
    return [] if _tracing is None else [_tracing.serve]


def of_client() -> list[Any]:
    """What a client puts around its calls."""
    return [] if _tracing is None else [_tracing.call]


class _Tracing:
    def __init__(self) -> None:
        try:
            from opentelemetry import propagate, trace
            from opentelemetry.context import Context
        except ImportError:
            raise PreconditionError(
                "traces need opentelemetry-api", hint="pip install 'streamkit-grpc[otel]'"
            ) from None
        self._trace: Any = trace
        self._propagate: Any = propagate
        self._empty: Any = Context

    @property
    def _tracer(self) -> Any:
        # Not kept: the process may choose its provider after this.
        return self._trace.get_tracer("streamkit")

    def carrier(self) -> dict[str, str]:
        if not self._trace.get_current_span().get_span_context().is_valid:
            return {}
        found: dict[str, str] = {}
        self._propagate.inject(found)
        return {key: found[key] for key in _KEYS if key in found}

    @contextmanager
    def received(self, record: Any) -> Iterator[Any]:
        names = (getattr(record, name, "") for name in ("topic", "job_id", "service"))
        topic = next(filter(None, names), "")
        with self._tracer.start_as_current_span(
            f"process {topic}",
            kind=self._trace.SpanKind.CONSUMER,
            links=self._links(record),
            attributes={
                "messaging.system": "streamkit",
                "messaging.operation.type": "process",
                "messaging.destination.name": topic,
            },
        ) as span:
            yield span

    def _links(self, record: Any) -> Sequence[Any]:
        kept: Mapping[str, str] = getattr(record, "metadata", None) or getattr(record, "fields", {})
        if own := getattr(record, "traceparent", ""):
            kept = {"traceparent": own}
        if "traceparent" not in kept:
            return ()
        # Into an empty context: what is current here is not whom it came from.
        context = self._propagate.extract(kept, self._empty())
        span = self._trace.get_current_span(context).get_span_context()
        return (self._trace.Link(span),) if span.is_valid else ()

    # ---- calls ----

    async def serve(self, ctx: Any, call_next: Callable[[Any], Awaitable[None]]) -> None:
        """Around a call of a server. The span ends when the call does, however that is."""
        texts = {key: value for key, value in ctx.metadata.items() if isinstance(value, str)}
        parent = self._propagate.extract(texts)
        span = self._tracer.start_span(
            ctx.method[1:], parent, kind=self._trace.SpanKind.SERVER, attributes=_named(ctx.method)
        )
        parts = _PARTS.get(ctx.method)
        if parts is not None and "traceparent" in texts:
            kept = {key: texts[key] for key in _KEYS if key in texts}
            ctx.inspectors.append(lambda message: _keep(message, parts, kept))
        elif ctx.method in _REPORTS and "traceparent" in texts:
            origin = texts["traceparent"]
            ctx.inspectors.append(lambda report: _keep_origin(report, origin))

        def end(_: Any) -> None:
            outcome = ctx.outcome
            if outcome is not None:
                self._end(span, outcome.status, outcome.status in _FAULTS)
            span.end()

        ctx.when_done(end)
        with self._trace.use_span(
            span, end_on_exit=False, record_exception=False, set_status_on_exception=False
        ):
            await call_next(ctx)

    async def call(self, call: Any, call_next: Callable[[], Awaitable[None]]) -> None:
        """Around a call of a client."""
        span = self._tracer.start_span(
            call.method[1:], kind=self._trace.SpanKind.CLIENT, attributes=_named(call.method)
        )
        self._propagate.inject(call.metadata, self._trace.set_span_in_context(span))
        try:
            await call_next()
        except StreamkitError as error:
            self._end(span, error.status, error.status is not Status.CANCELLED)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._end(span, Status.CANCELLED, False)
            raise
        else:
            # Without a status its user has left it.
            left = call.trailing_metadata is None
            self._end(span, Status.CANCELLED if left else Status.OK, False)
        finally:
            span.end()

    def _end(self, span: Any, status: Status, fault: bool) -> None:
        span.set_attribute("rpc.response.status_code", status.name)
        if fault:
            span.set_attribute("error.type", status.name)
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR))


def _named(path: str) -> dict[str, str]:
    return {"rpc.system.name": "grpc", "rpc.method": path[1:]}


def _keep(message: Any, parts: tuple[str, str], kept: dict[str, str]) -> float:
    """Leave the caller's context in records that have none."""
    records, texts = parts
    for record in getattr(message, records):
        held = getattr(record, texts)
        if "traceparent" not in held:
            held.update(kept)
    return 0.0


def _keep_origin(report: Any, origin: str) -> float:
    """As `_keep`, of a report on a job."""
    if not report.traceparent and len(origin) <= _LONGEST:
        report.traceparent = origin
    return 0.0
