"""Lists come in pages that any client can take."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import grpc.aio
import pytest

import streamkit
from streamkit.codec import encode
from streamkit.errors import InvalidArgumentError
from streamkit.generated.streamservice import (
    DescribeTableRequest,
    JobReport,
    ListJobsReply,
    ListJobsRequest,
    ListTablesRequest,
)
from streamkit.handlers.paging import page_of, place_of, token_of
from streamkit.server import Server

SERVICE = "/streamservice.ProducerService/"
ADMIN = "/streamservice.AdminService/"


async def test_a_stock_client_gets_every_list(tmp_path: Path) -> None:
    error = "\N{GRINNING FACE}" * 262_144
    large = tmp_path / "large.db"
    tool = sqlite3.connect(large)
    columns = [f"c{n}" + "x" * 4000 for n in range(1500)]
    tool.execute(f"create table wide({', '.join(columns)})")
    for n in range(600):
        tool.execute(f"create table t{n:03}{'y' * 9000}(x)")
    tool.close()
    async with (
        Server(journal=":memory:", databases={"large": str(large)}, port=0) as server,
        grpc.aio.insecure_channel(server.address) as stock,
        streamkit.AsyncClient(server.address) as client,
    ):
        journal = server.journal
        assert journal is not None
        for n in range(12):
            await journal.report_jobs([JobReport(job_id=f"j{n}", status="failed", error=error)])
        ask = stock.unary_unary(SERVICE + "ListJobs")
        # An old client does not know of pages: what it gets, it can take.
        reply = ListJobsReply().parse(await ask(encode(ListJobsRequest(limit=10_000))))
        assert [job.job_id for job in reply.jobs] == ["j11", "j10"]
        assert reply.next_page_token
        assert [job.job_id for job in await client.jobs(limit=100)] == [
            f"j{n}" for n in range(11, -1, -1)
        ]
        assert len(await client.jobs(limit=5)) == 5
        found = await client.describe("wide", "large")
        assert [column.name for column in found.columns] == columns
        assert found.next_page_token == ""
        assert len(await client.tables("large")) == 601
        for method, request in (
            ("ListTables", ListTablesRequest(database="large")),
            ("DescribeTable", DescribeTableRequest(database="large", table="wide")),
        ):
            answer = await stock.unary_unary(ADMIN + method)(encode(request))
            assert 2 << 20 < len(answer) < 4 << 20


async def test_tokens_are_of_one_list(tmp_path: Path) -> None:
    async with Server(journal=":memory:", port=0) as server:
        channel = grpc.aio.insecure_channel(server.address)
        for token in ("x", "jobs-0000-7", "tables-1", f"jobs-{'9' * 30}", "jobs-\ud7ff"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(SERVICE + "ListJobs")(
                    encode(ListJobsRequest(page_token=token))
                )
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "page_token" in (refused.value.details() or "")
        await channel.close()


@pytest.mark.parametrize("token", ["tables-x", "tables--1", "tables", "jobs-1", f"tables-{10**19}"])
def test_a_token_that_nobody_gave_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgumentError, match="page_token"):
        page_of([1], token, "tables", lambda size: size)


def test_pages() -> None:
    items = [1_000_000] * 7 + [9_000_000] + [1]
    pages = []
    token = ""
    while True:
        page, token = page_of(items, token, "x", lambda item: item)
        pages.append(list(page))
        if not token:
            break
    assert [item for page in pages for item in page] == items
    assert all(sum(page) <= 3 << 20 or len(page) == 1 for page in pages)
    assert place_of(token_of("a-b", 7), "a-b") == 7
    with pytest.raises(InvalidArgumentError):
        place_of("a-7", "b")
    assert page_of([], "", "x", int) == ([], "")
    assert page_of([1], "x-5", "x", int) == ([], "")


async def test_many_statuses_are_refused() -> None:
    async with (
        Server(journal=":memory:", port=0) as server,
        streamkit.AsyncClient(server.address) as client,
    ):
        with pytest.raises(InvalidArgumentError, match="more than 100"):
            await client.jobs(statuses=["failed"] * 400)
