"""Figures for Prometheus: read by its own parser, and no more of them for whatever is asked."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamkit.client import AsyncClient
from streamkit.config import JournalOptions, Retention, RetentionRule
from streamkit.errors import (
    InvalidArgumentError,
    PreconditionError,
    StreamkitError,
    UnimplementedError,
)
from streamkit.generated.streamservice import JobReport, LogEntry, Producer, StatusRequest
from streamkit.interceptors.calls import Calls
from streamkit.interceptors.figures import SECONDS, SIZES
from streamkit.interceptors.metrics import Metrics
from streamkit.interceptors.scrape import answer_scrapes
from streamkit.journal.base import ProducerId, Tally
from streamkit.server import Server
from streamkit.terms import Position
from streamkit.transport import Channel

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
STATUS = "streamservice.AdminService/GetStatus"
PUBLISH = "streamservice.ProducerService/Publish"
SUBSCRIBE = "streamservice.StreamService/SubscribeToUpdates"

LAG = {"streamkit_lag_records"}
"""Of which the dashboard shows the largest."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """What one look at a server's metrics has shown."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples: Samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def of(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def ours(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {key for key in self.samples if key[0].startswith(("grpc_", "streamkit_"))}


async def scrape(server: Server) -> Scrape:
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"

    def read() -> str:
        with urllib.request.urlopen(url, timeout=10) as reply:
            text: str = reply.read().decode()
            return text

    return Scrape(await asyncio.to_thread(read))


@asynccontextmanager
async def measured() -> AsyncIterator[tuple[Server, AsyncClient]]:
    async with (
        Server(journal=":memory:", port=0, metrics="127.0.0.1:0") as server,
        AsyncClient(server.address) as client,
    ):
        yield server, client


async def test_the_journal_and_the_queries_are_counted(tmp_path: Path) -> None:
    rules = (RetentionRule(pattern="metrics.>", keep_last=1),)
    options = JournalOptions(retention=Retention(rules=rules), ring_records=4)
    async with (
        Server(
            journal=tmp_path / "x.db", journal_options=options, port=0, metrics="127.0.0.1:0"
        ) as server,
        AsyncClient(server.address) as client,
    ):
        for n in range(10):
            await client.publish("metrics.cpu", n)
        async with client.job("build"):
            pass
        await client.prune()
        async with client.query("select 1 as one") as rows:
            assert [row["one"] async for row in rows]
        with pytest.raises(StreamkitError):
            async for _ in client.query("select nonsense"):
                pass
        async with client.subscribe("metrics.>"):
            first = await scrape(server)
            seen = await scrape(server)
        assert seen.of("streamkit_removed_total", stream="updates", reason="rule") == 9
        assert seen.of("streamkit_removed_total", stream="logs", reason="age") == 0
        assert seen.of("streamkit_commit_seconds_count") >= 11
        assert seen.of("streamkit_jobs", status="completed") == 1
        assert seen.of("streamkit_jobs", status="lost") == 0
        assert seen.of("streamkit_queries", database="store") == 0
        done = {"database": "store", "outcome": "done"}
        assert seen.of("streamkit_query_seconds_count", **done) == 1
        failed = done | {"outcome": "failed"}
        assert seen.of("streamkit_query_seconds_count", **failed) == 1
        assert seen.of("streamkit_catching_up") == 0 and seen.of("streamkit_gaps_total") == 0
        idle = [each.of("streamkit_idle_seconds_max") for each in (first, seen)]
        assert 0 <= idle[0] < idle[1]


@pytest.mark.parametrize("store", [":memory:", "x.db"])
async def test_a_request_that_comes_twice_is_counted(store: str, tmp_path: Path) -> None:
    journal = store if store == ":memory:" else tmp_path / store
    async with Server(journal=journal, port=0, metrics="127.0.0.1:0") as server:
        assert server.journal is not None
        for sequence in (1, 2, 2, 1):
            await server.journal.append_logs(
                [LogEntry(message="a", service="s", level="info")], ProducerId("p", sequence)
            )
        report = JobReport(job_id="a", producer=Producer(id="p", sequence=1))
        for _ in range(2):
            await server.journal.report_jobs([report])
        assert (await scrape(server)).of("streamkit_duplicates_total") == 3


async def test_a_gap_is_counted() -> None:
    options = JournalOptions(retention=Retention(max_age=0, max_bytes=4_000), ring_records=4)
    async with (
        Server(
            journal=":memory:", journal_options=options, port=0, metrics="127.0.0.1:0"
        ) as server,
        AsyncClient(server.address) as client,
    ):
        assert server.journal is not None
        for _ in range(50):
            await client.publish("a", "x" * 200)
        await client.prune()
        start = Position(server.journal.epoch, 1)
        with pytest.raises(StreamkitError):
            async with client.subscribe("a", start=start) as updates:
                await anext(aiter(updates))
        assert (await scrape(server)).of("streamkit_gaps_total") == 1


async def test_calls_and_streams_are_counted() -> None:
    async with measured() as (server, client):
        await client.publish("orders.eu", "1")
        async with client.subscribe("orders.*", start="all") as updates:
            await asyncio.wait_for(anext(aiter(updates)), 5)
            running = await scrape(server)
            assert running.of("streamkit_streams", grpc_method=SUBSCRIBE) == 1
            assert running.of("grpc_server_call_started_total", grpc_method=SUBSCRIBE) == 1
            assert running.of("streamkit_subscribers", stream="updates") == 1
            assert running.of("streamkit_lag_records_max") == 0
            assert running.of("streamkit_lag_records_count") == 1
            assert running.of("streamkit_connections") >= 1
        await client.status()
        seen = await scrape(server)
        labels = {"grpc_method": SUBSCRIBE, "reason": "client"}
        assert seen.of("streamkit_stream_ends_total", **labels) == 1
        assert ("streamkit_streams", frozenset({("grpc_method", SUBSCRIBE)})) not in seen.samples
        done = {"grpc_method": PUBLISH, "grpc_status": "OK"}
        assert seen.of("grpc_server_call_duration_seconds_count", **done) == 1
        assert 0 < seen.of("grpc_server_call_duration_seconds_sum", **done) < 10
        name = "grpc_server_call_rcvd_total_compressed_message_size_bytes"
        assert seen.of(f"{name}_sum", **done) > 9
        assert seen.of("streamkit_journal_sequence", stream="updates", end="newest") == 1
        assert seen.of("streamkit_store_bytes") > 0
        assert seen.of("streamkit_faults") == seen.of("streamkit_drain") == 0
        assert sys.platform != "linux" or seen.of("process_open_fds") > 0


async def test_the_bounds_are_those_that_grpc_agreed_on() -> None:
    async with measured() as (server, client):
        await client.status()
        seen = await scrape(server)
    for name, bounds in (
        ("grpc_server_call_duration_seconds", SECONDS),
        ("grpc_server_call_sent_total_compressed_message_size_bytes", SIZES),
    ):
        family = seen.families[name]
        assert family.type == "histogram"
        found = [s for s in family.samples if s.name.endswith("_bucket")]
        found = [s for s in found if s.labels["grpc_method"] == STATUS]
        assert [float(s.labels["le"]) for s in found] == [*bounds, float("inf")]
        values = [s.value for s in found]
        assert values == sorted(values) and values[-1] == 1


async def test_what_is_asked_for_adds_no_series() -> None:
    async with measured() as (server, client), Channel(server.address) as channel:

        async def ask(method: str) -> None:
            call = channel.stream(method, StatusRequest, StatusRequest, request=StatusRequest())
            async with call:
                with pytest.raises(UnimplementedError):
                    await call.reply()

        await ask("/nothing.Like/This")
        await client.publish("orders", "1")
        before = await scrape(server)
        publisher = client.publisher()
        for _ in range(50):
            await ask(f"/{secrets.token_hex(4)}.{secrets.token_hex(4)}/{secrets.token_hex(4)}")
            await client.publish(secrets.token_hex(8), "1")
        await publisher.send(secrets.token_hex(8), "1")
        await publisher.close()
        after = await scrape(server)
    assert after.of("grpc_server_call_started_total", grpc_method="other") == 51
    # The method of the publisher is new, as it was called for the first time.
    new = after.ours() - before.ours()
    assert {dict(labels).get("grpc_method") for _, labels in new} == {
        "streamservice.ProducerService/Write"
    }


async def test_resumes_and_refusals_are_counted() -> None:
    async with measured() as (server, client):
        await client.publish("a", "1")
        assert server.journal is not None
        start = Position(server.journal.epoch, 0)
        async with client.subscribe("a", start=start) as updates:
            await asyncio.wait_for(anext(aiter(updates)), 5)
        await client.status()
        seen = await scrape(server)
        assert seen.of("streamkit_resumes_total", result="taken") == 1
        assert seen.of("streamkit_auth_failures_total", reason="denied") == 0


async def test_only_metrics_are_answered_and_only_to_whoever_asks_well() -> None:
    async with measured() as (server, _):
        for asked, answer in (
            (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 405"),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 200"),
            (b"x" * 100_000, b""),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.metrics_port)
            writer.write(asked)
            try:
                read = await asyncio.wait_for(reader.read(), 10)
            except ConnectionError:
                read = b""
            assert read.startswith(answer) and (answer or not read)
            writer.close()


async def test_ten_thousand_streams_are_read_quickly() -> None:
    calls = Calls()
    journal = SimpleNamespace(
        lag=lambda place, pending: 7,
        bounds=lambda stream: (1, 9),
        subscribers=lambda stream: 0,
        faults=(),
        tally=Tally(),
        count_jobs=dict,
    )
    for _ in range(10_000):
        context: Any = SimpleNamespace(
            method="/" + SUBSCRIBE,
            messages_sent=1,
            streams_replies=True,
            place=("updates", "e", 1),
            pending=1,
            inspectors=[],
            when_done=lambda _: None,
        )
        calls.begin(context)
    known: Any = journal
    metrics = Metrics(calls, journal=lambda: known)
    best = 1.0
    for _ in range(5):
        began = time.thread_time()
        seen, _ = metrics.text()
        best = min(best, time.thread_time() - began)
    assert Scrape(seen.decode()).of("streamkit_streams", grpc_method=SUBSCRIBE) == 10_000
    print(f"a scrape with 10,000 streams: {best * 1000:.1f} ms")
    assert best < 0.2  # 20 ms where nothing else runs


async def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(PreconditionError) as caught:
        await Server(journal=":memory:", port=0, metrics="127.0.0.1:0").start()
    assert caught.value.hint == "pip install 'streamkit-grpc[metrics]'"


async def test_a_wrong_address_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="metrics: give host:port, not '9464'"):
        await Server(journal=":memory:", port=0, metrics="9464").start()


@pytest.mark.parametrize("file", ["grafana.json", "alerts.yml"])
async def test_what_is_deployed_names_metrics_that_exist(file: str) -> None:
    text = (DEPLOY / file).read_text()
    async with measured() as (server, client):
        async with client.query("select 1 as one") as rows:
            assert [row["one"] async for row in rows]
        async with client.subscribe("a"):
            exist = {name for name, _ in (await scrape(server)).samples}
        await client.status()
        exist |= {name for name, _ in (await scrape(server)).samples}
    if file.endswith("json"):
        ours = {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in exist}
        left = {name for name in ours if name.startswith("streamkit_") and name not in text}
        assert left <= {"streamkit_build_info", "streamkit_drain", "streamkit_faults"} | LAG, left
        panels = json.loads(text)["panels"]
        expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    else:
        expressions = re.findall(r"^ +expr: (.*)$", text, re.MULTILINE)
        assert len(expressions) == 8 == text.count("- alert: ")
    assert expressions
    for expression in expressions:
        named = set(re.findall(r"\b(?:grpc|streamkit|process)_\w+", expression))
        named -= {"grpc_method", "grpc_status"}
        assert (named or "up{" in expression) and named <= exist, (expression, named - exist)


async def test_a_figure_that_fails_is_told_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(accept: str) -> tuple[bytes, str]:
        raise ZeroDivisionError("of a figure")

    server = await answer_scrapes(broken, "127.0.0.1:0")
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 500 ")
        writer.close()
        await writer.wait_closed()
    assert "ZeroDivisionError: of a figure" in caplog.text
