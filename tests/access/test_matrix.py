"""Who may call what with what: every role, method and resource, against a plain oracle."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import pytest
from betterproto.lib.google.protobuf import FileDescriptorSet

from streamkit.errors import AuthError, NotFoundError, PreconditionError, Status
from streamkit.generated.streamservice import (
    JobReport,
    LogEntry,
    QueryRequest,
    QueryResult,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.methods import METHODS, check_covered, method_of
from streamkit.rights import Action
from streamkit.transport import Channel, ClientCall
from tests.access.matrix import (
    ADMIN,
    CASES,
    FOR_ALL,
    FOR_ANY_IDENTITY,
    GRANTED,
    HOLDERS,
    READ,
    THROUGH,
    WRITE,
    A,
    may,
    outcome,
)
from tests.access.servers import bearer


@pytest.mark.parametrize(
    ("door", "holders"),
    [
        ("grpc", HOLDERS),
        *((door, ["shop"]) for door in THROUGH),
        *(pytest.param(door, HOLDERS, marks=pytest.mark.soak) for door in THROUGH),
    ],
)
async def test_wrongly_allowed_and_wrongly_refused_are_none(
    world: tuple[Channel, dict[str, str]], door: str, holders: Iterable[str]
) -> None:
    channel, secrets = world
    allowed, refused, asked = [], [], 0
    for holder in holders:
        if door == "grpc":
            errors = [await outcome(channel, case, secrets[holder]) for case in CASES]
        else:  # at once: that a live stream says nothing takes its time to see
            through, address = THROUGH[door], secrets["address"]
            errors = await asyncio.gather(
                *(through(address, case, secrets[holder]) for case in CASES)
            )
        for case, error in zip(CASES, errors, strict=True):
            asked += 1
            if case.path.endswith("Jobs") and not getattr(case.request, "jobs", None):
                expected = A.JOBS in GRANTED[holder]
            else:
                expected = all(may(holder, *want) for want in case.wants)
            kinds = (AuthError, NotFoundError) if case.hidden else (AuthError,)
            is_refused = isinstance(error, kinds) or (
                case.path.endswith("CancelJob") and isinstance(error, NotFoundError)
            )
            if expected and is_refused:
                refused.append((holder, case, error))
            if not expected and not is_refused:
                allowed.append((holder, case, error))
    assert allowed == [] and refused == []
    print(f"{door}: {asked} questions, wrongly allowed 0, wrongly refused 0")


async def test_without_an_identity_only_health_answers(
    world: tuple[Channel, dict[str, str]],
) -> None:
    channel, secrets = world
    strangers = [None, "", "sk_admin_" + "A" * 43, secrets["admin"][:-1], "x" * 4_000]
    for case in (*CASES, *FOR_ANY_IDENTITY):
        for token in strangers if case is CASES[0] else [None]:
            error = await outcome(channel, case, token)
            assert isinstance(error, AuthError) and error.status is Status.UNAUTHENTICATED, case
    for case in FOR_ALL:
        assert await outcome(channel, case, None) is None, case
    for case in (*FOR_ANY_IDENTITY, *FOR_ALL):
        assert await outcome(channel, case, secrets["nobody"]) is None, case
    covered = {case.path for case in (*CASES, *FOR_ANY_IDENTITY, *FOR_ALL)}
    assert set(METHODS) - covered == {WRITE + "Write"}  # which has a test of its own


# ---- the table ----


def described_paths() -> list[str]:
    data = files("streamkit.generated").joinpath("descriptors.binpb").read_bytes()
    return [
        f"/{file.package}.{service.name}/{method.name}"
        for file in FileDescriptorSet().parse(data).file
        for service in file.service
        for method in service.method
    ]


def test_every_method_of_ours_has_its_line_and_no_other_has() -> None:
    paths = described_paths()
    check_covered(paths)
    assert sorted(paths) == sorted(METHODS)


def test_a_server_with_a_method_that_nobody_decided_about_does_not_start() -> None:
    with pytest.raises(PreconditionError, match=r"AdminService/DropAll"):
        check_covered([ADMIN + "GetStatus", ADMIN + "DropAll"])
    assert method_of("/shop.Orders/Watch").needs == (Action.METHODS,)


# ---- what is inside of batches ----


def bad_batches() -> list[WriteRequest]:
    good = [Update("orders.eu.1", "good")]
    logs, jobs = [LogEntry(service="api-eu", message="good")], [JobReport(job_id="build-1")]
    return [
        WriteRequest(updates=[*good, Update("stock", "bad")], logs=logs, jobs=jobs),
        WriteRequest(updates=good, logs=[*logs, LogEntry(service="web", message="bad")]),
        WriteRequest(updates=good, logs=logs, jobs=[JobReport(job_id="other", status="failed")]),
        WriteRequest(updates=good, jobs=[JobReport()]),
        WriteRequest(updates=[Update("orders.>", "bad")]),
        WriteRequest(updates=[Update("orders.eu", "bad")]),
    ]


async def test_one_forbidden_item_keeps_its_whole_batch_out(
    world: tuple[Channel, dict[str, str]],
) -> None:
    channel, secrets = world
    requests = [
        WriteRequest(updates=[Update("orders.eu.1", "first")]),
        *bad_batches(),
        WriteRequest(updates=[Update("orders.eu.1", "last")]),
    ]
    replies: list[WriteReply] = []
    call: ClientCall[Any, Any] = channel.stream(
        WRITE + "Write", WriteRequest, WriteReply, metadata=bearer(secrets["shop"])
    )
    async with call:
        for request in requests:
            await call.send(request)
        while len(replies) < len(requests):
            replies += await call.receive()
    codes = [reply.code for reply in replies]
    assert codes == [0, *[Status.PERMISSION_DENIED.value] * len(bad_batches()), 0]
    assert "not allowed to publish to 'stock'" in replies[1].error
    everything = QueryRequest("select topic from updates union all select service from logs")
    async with channel.stream(
        READ + "StreamQueryResults",
        QueryRequest,
        QueryResult,
        request=everything,
        metadata=bearer(secrets["admin"]),
    ) as query:
        rows = [row for result in await query.receive() for row in result.rows]
    assert [row.columns["topic"] for row in rows] == ["orders.eu.1", "orders.eu.1"]
