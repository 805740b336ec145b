"""Traces by the real SDK: a span on both sides, and the publisher's kept with the record."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streamkit import tracing
from streamkit.client import AsyncClient
from streamkit.client.blocking.logging import StreamHandler
from streamkit.errors import NotFoundError
from streamkit.generated.streamservice import (
    JobProgress,
    JobReport,
    PublishRequest,
    Update,
    WriteReply,
)
from streamkit.testing import serve
from streamkit.transport import Channel

PUBLISH = "streamservice.ProducerService/Publish"
SUBSCRIBE = "streamservice.StreamService/SubscribeToUpdates"
EXPORTER = InMemorySpanExporter()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What was traced; for one test, as the rest of the suite is not."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
        trace.set_tracer_provider(provider)
    monkeypatch.setattr(tracing, "_tracing", None)
    tracing.enable()
    EXPORTER.clear()
    yield EXPORTER
    EXPORTER.clear()


async def named(
    spans: InMemorySpanExporter, name: str, kind: trace.SpanKind, count: int = 1
) -> list[Any]:
    """The spans of a name, once there are so many: a server ends its own after the reply."""
    async with asyncio.timeout(10):
        while True:
            found = [s for s in spans.get_finished_spans() if (s.name, s.kind) == (name, kind)]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)


async def test_a_call_has_a_span_on_both_sides(spans: InMemorySpanExporter) -> None:
    async with serve(journal=":memory:") as address, AsyncClient(address) as client:
        with trace.get_tracer("test").start_as_current_span("work") as work:
            await client.publish("orders.eu", "1")
            with pytest.raises(NotFoundError):
                await client.cancel_job("none")
    [ours] = await named(spans, PUBLISH, trace.SpanKind.CLIENT)
    [theirs] = await named(spans, PUBLISH, trace.SpanKind.SERVER)
    assert ours.parent.span_id == work.get_span_context().span_id
    assert theirs.parent.span_id == ours.context.span_id
    for span in (ours, theirs):
        assert span.attributes == {
            "rpc.system.name": "grpc",
            "rpc.method": PUBLISH,
            "rpc.response.status_code": "OK",
        }
        assert span.status.status_code is trace.StatusCode.UNSET
    cancel = "streamservice.ProducerService/CancelJob"
    [ours] = await named(spans, cancel, trace.SpanKind.CLIENT)
    [theirs] = await named(spans, cancel, trace.SpanKind.SERVER)
    assert ours.attributes["error.type"] == "NOT_FOUND"
    assert ours.status.status_code is trace.StatusCode.ERROR
    # It is the caller's mistake, not the server's.
    assert theirs.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert "error.type" not in theirs.attributes
    assert theirs.status.status_code is trace.StatusCode.UNSET


async def test_a_reader_links_to_the_publisher_also_after_a_restart(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    store = tmp_path / "store.db"
    tracer = trace.get_tracer("test")
    async with serve(journal=store) as address, AsyncClient(address) as client:
        with tracer.start_as_current_span("publishing") as origin:
            await client.publish("orders.eu", "single", metadata={"own": "kept"})
            async with client.publisher() as publisher:
                await publisher.send("orders.eu", "piped")
            async with client.log_writer("api") as log:
                log.write("line", fields={"own": "kept"})
            async with client.job("nightly", service="api") as job:
                await job.log("of a job")
        await client.publish("orders.eu", "outside of spans")
    async with serve(journal=store) as address, AsyncClient(address) as client:
        async with client.subscribe("orders.*", start="all") as updates:
            records: list[Any] = [await anext(aiter(updates)) for _ in range(3)]
        async with client.logs("api", lines=2) as lines:
            records += [line async for line in lines]
        for record in records:
            with tracing.received(record) as span:
                assert trace.get_current_span() is span
    works = [s for s in spans.get_finished_spans() if s.kind is trace.SpanKind.CONSUMER]
    assert [s.name for s in works] == ["process orders.eu"] * 3 + ["process api"] * 2
    linked = [[link.context.span_id for link in s.links] for s in works]
    # What nothing was around of came from its own call.
    alone = (await named(spans, PUBLISH, trace.SpanKind.CLIENT, 2))[-1].context.span_id
    around = origin.get_span_context().span_id
    assert linked == [[around], [around], [alone], [around], [around]]
    assert records[0].metadata["own"] == records[3].fields["own"] == "kept"
    assert all(s.context.trace_id != origin.get_span_context().trace_id for s in works)


async def test_the_states_of_a_job_link_to_their_reports_also_after_a_restart(
    spans: InMemorySpanExporter, tmp_path: Path
) -> None:
    store = tmp_path / "store.db"
    tracer = trace.get_tracer("test")
    async with serve(journal=store) as address:
        async with AsyncClient(address) as client:
            with tracer.start_as_current_span("working") as origin:
                async with client.job("nightly", service="api") as job:
                    await job.update(completed=1, total=2)
        async with Channel(address) as foreign:  # knows of no field, but of a header
            parent = f"00-{'a' * 32}-{'b' * 16}-01"
            for method in ("CreateJob", "FinishJob"):
                await foreign.unary(
                    f"/streamservice.ProducerService/{method}",
                    JobReport(job_id="other", status="failed" if method == "FinishJob" else ""),
                    JobProgress,
                    metadata={"traceparent": parent},
                )
    async with serve(journal=store) as address, AsyncClient(address) as client:
        async with client.job_events(start="all") as events:
            states: list[Any] = [await anext(aiter(events)) for _ in range(5)]
        for state in states:
            with tracing.received(state):
                pass
        assert all(job.traceparent for job in await client.jobs())
    works = [s for s in spans.get_finished_spans() if s.kind is trace.SpanKind.CONSUMER]
    assert [s.name for s in works] == ["process nightly"] * 3 + ["process other"] * 2
    linked = [[link.context.span_id for link in s.links] for s in works]
    assert linked[:3] == [[origin.get_span_context().span_id]] * 3
    assert linked[3:] == [[int("b" * 16, 16)]] * 2


async def test_a_log_handler_keeps_the_span_of_the_thread_that_logs(
    spans: InMemorySpanExporter,
) -> None:
    async with serve(journal=":memory:") as address, AsyncClient(address) as client:

        def work() -> int:
            handler = StreamHandler("api", address)
            logger = logging.getLogger("work")
            logger.addHandler(handler)
            try:
                with trace.get_tracer("test").start_as_current_span("work") as span:
                    logger.warning("inside")
                    return span.get_span_context().span_id
            finally:
                logger.removeHandler(handler)
                handler.close()

        span_id = await asyncio.to_thread(work)
        async with client.logs("api", lines=1) as lines:
            [line] = [line async for line in lines]
    assert line.fields["traceparent"].split("-")[2] == f"{span_id:016x}"


async def test_a_foreign_publisher_is_kept_by_the_server(spans: InMemorySpanExporter) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serve(journal=":memory:") as address, AsyncClient(address) as client:
        async with Channel(address) as channel:  # as any other client, but for the header
            request = PublishRequest(updates=[Update("a", "1"), Update("a", "2")])
            request.updates[1].metadata = {"traceparent": "own"}
            call = channel.stream(
                "/" + PUBLISH,
                PublishRequest,
                WriteReply,
                request=request,
                metadata={"traceparent": parent},
            )
            async with call:
                await call.reply()
        async with client.subscribe("a", start="all") as updates:
            kept = [(await anext(aiter(updates))).metadata["traceparent"] for _ in range(2)]
    assert kept == [parent, "own"]
    [theirs] = await named(spans, PUBLISH, trace.SpanKind.SERVER)
    assert theirs.parent.span_id == 0xB7AD6B7169203331


async def test_a_thousand_cancelled_calls_leave_no_span_open_and_none_with_an_error(
    spans: InMemorySpanExporter,
) -> None:
    async with serve(journal=":memory:") as address, AsyncClient(address) as client:

        async def read() -> None:
            async with client.subscribe("orders.>") as updates:
                await anext(aiter(updates))

        for _ in range(10):
            reading = [asyncio.create_task(read()) for _ in range(100)]
            async with asyncio.timeout(20):
                while (await client.status()).streams[0].subscribers < 100:
                    await asyncio.sleep(0.01)
            for task in reading:
                task.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
    for kind in (trace.SpanKind.CLIENT, trace.SpanKind.SERVER):
        found = await named(spans, SUBSCRIBE, kind, 1_000)
        assert len(found) == 1_000
        assert {s.attributes["rpc.response.status_code"] for s in found} == {"CANCELLED"}
        assert {s.status.status_code for s in found} == {trace.StatusCode.UNSET}


def test_nothing_is_loaded_where_nobody_asks() -> None:
    script = "import streamkit, streamkit.server, streamkit.client, sys; "
    script += "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_its_absence_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    from streamkit.errors import PreconditionError

    monkeypatch.setattr(tracing, "_tracing", None)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(PreconditionError) as caught:
        tracing.enable()
    assert "streamkit-grpc[otel]" in (caught.value.hint or "")
    assert tracing.carrier() == {} and tracing.of_server() == []
    logging.getLogger("streamkit").debug("nothing was traced")
