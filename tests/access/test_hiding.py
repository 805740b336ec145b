"""What is not for you looks like what is not there, and nothing more is told than is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import betterproto
import pytest

from streamkit.codec import StreamkitCodec
from streamkit.errors import StreamkitError
from streamkit.generated.streamservice import (
    CancelJobRequest,
    DescribeTableRequest,
    JobProgress,
    JobReport,
    JobRequest,
    ListTablesReply,
    ListTablesRequest,
    QueryRequest,
    QueryResult,
    TableSchema,
)
from streamkit.methods import METHODS
from streamkit.transport import Channel, ClientCall
from tests.access.matrix import READ, WRITE, Case
from tests.access.servers import bearer, client_of, serve, tokens_for

# ---- not there, or not for you ----


async def answer(channel: Channel, case: Case, token: str) -> tuple[Any, ...]:
    call: ClientCall[Any, Any] = channel.stream(
        case.path, type(case.request), case.reply, request=case.request, metadata=bearer(token)
    )
    headers = None
    try:
        async with call:
            headers = sorted(await call.initial_metadata())
            await call.receive()
    except StreamkitError as error:
        return (
            type(error),
            error.status,
            error.message,
            headers,
            sorted(call.trailing_metadata or ()),
        )
    raise AssertionError("it was answered")


HIDING: dict[str, tuple[Callable[[str], Case], str]] = {
    "watch": (lambda j: Case("WatchJobProgress", JobRequest(j), JobProgress, []), "other"),
    "query": (
        lambda d: Case("StreamQueryResults", QueryRequest("select 1", database=d), QueryResult, []),
        "stock",
    ),
    "cancel": (lambda j: Case("CancelJob", CancelJobRequest(j), JobProgress, []), "other"),
    "tables": (lambda d: Case("ListTables", ListTablesRequest(d), ListTablesReply, []), "stock"),
    "schema": (
        lambda d: Case("DescribeTable", DescribeTableRequest(d, "jobs"), TableSchema, []),
        "stock",
    ),
}
HOMES = {path.rpartition("/")[2]: path for path in METHODS}


@pytest.mark.parametrize("kind", HIDING)
async def test_not_allowed_looks_like_not_there(
    world: tuple[Channel, dict[str, str]], kind: str
) -> None:
    channel, secrets = world
    make, hidden = HIDING[kind]
    absent = "x" * len(hidden)
    answers = []
    for name in (hidden, absent):
        case = make(name)
        case.path = HOMES[case.path]
        told = await answer(channel, case, secrets["shop"])
        answers.append(repr(told).replace(name, "NAME"))
    assert answers[0] == answers[1]
    assert "NOT_FOUND" in answers[0] and "stock" not in answers[0]


@pytest.mark.parametrize("tries", [40, pytest.param(1_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", ["watch", "cancel"])
async def test_not_allowed_takes_as_long_as_not_there(
    world: tuple[Channel, dict[str, str]], kind: str, tries: int
) -> None:
    channel, secrets = world
    make, hidden = HIDING[kind]
    loop = asyncio.get_running_loop()

    async def ratio() -> float:
        seconds: dict[str, list[float]] = {hidden: [], "x" * len(hidden): []}
        for _ in range(tries):
            for name, spent in seconds.items():  # in turns: both see the same machine
                case = make(name)
                case.path = HOMES[case.path]
                began = loop.time()
                await answer(channel, case, secrets["shop"])
                spent.append(loop.time() - began)
        there, absent = (sorted(spent)[len(spent) // 2] for spent in seconds.values())
        print(f"{kind}: median of {tries} {there * 1e6:.0f} us, not there {absent * 1e6:.0f} us")
        return there / absent

    # What others do on the machine may spoil one comparison; a difference would spoil all of them.
    ratios: list[float] = []
    while not ratios or not 0.8 < ratios[-1] < 1.25:
        assert len(ratios) < 8, ratios
        ratios.append(await ratio())


async def test_an_unknown_job_is_waited_for_as_long_as_a_hidden_one(
    world: tuple[Channel, dict[str, str]],
) -> None:

    channel, secrets = world
    loop = asyncio.get_running_loop()
    for name in ("other", "absent"):
        began = loop.time()
        request = JobRequest(name, wait=timedelta(seconds=0.3))
        case = Case(READ + "WatchJobProgress", request, JobProgress, [])
        await answer(channel, case, secrets["shop"])
        assert 0.3 <= loop.time() - began < 20


# ---- narrowed, and nothing more than asked ----


async def test_what_names_nothing_is_narrowed_to_what_is_allowed(
    world: tuple[Channel, dict[str, str]], tmp_path: Path
) -> None:
    secrets, rules = tokens_for({"admin": ("admin",), "shop": ("shop",)})
    async with (
        serve(access=rules) as address,
        client_of(address, secrets["admin"]) as admin,
        client_of(address, secrets["shop"]) as shop,
    ):
        for service in ("api-eu", "web", "api-us", "db"):
            async with admin.log_writer(service) as log:
                log.write("line")
        for job_id in ("build-1", "build?", "other", "build-2", "xbuild-3"):
            async with admin.job(job_id):
                pass
        async with shop.logs(lines=10) as lines:
            assert [line.service async for line in lines] == ["api-eu", "api-us"]
        jobs = await shop.jobs(limit=2)
        assert [job.job_id for job in jobs] == ["build-2", "build-1"]
        assert len(await admin.jobs()) == 5
        status = await shop.status()
        assert (status.store, status.databases) == ("", [])


async def test_who_may_report_on_a_job_does_not_read_it_that_way() -> None:
    secrets, rules = tokens_for(
        {"admin": ("admin",), "reports": ("reports",), "cancels": ("cancels",)}
    )
    async with serve(access=rules) as address, Channel(address, codec=StreamkitCodec()) as channel:

        async def told(method: str, request: betterproto.Message, name: str) -> JobProgress:
            call: ClientCall[Any, Any] = channel.stream(
                WRITE + method,
                type(request),
                JobProgress,
                request=request,
                metadata=bearer(secrets[name]),
            )
            async with call:
                reply: JobProgress = await call.reply()
                return reply

        await told("CreateJob", JobReport(job_id="build-9", current_step="secret"), "admin")
        for method, request, name in (
            ("UpdateJob", JobReport(job_id="build-9"), "reports"),
            ("CancelJob", CancelJobRequest("build-9"), "cancels"),
        ):
            state = await told(method, request, name)
            assert state.job_id == "build-9" and state.sequence
            assert state.current_step == ""
