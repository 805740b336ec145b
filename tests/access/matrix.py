"""Who may call what: everybody, every method, and an oracle that is plain."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from streamkit.errors import Status, StreamkitError, error_from_status
from streamkit.generated.grpc.health.v1 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from streamkit.generated.grpc.reflection import v1, v1alpha
from streamkit.generated.streamservice import (
    BackupChunk,
    BackupRequest,
    CallInfo,
    CancelJobRequest,
    DescribeTableRequest,
    JobProgress,
    JobReport,
    JobRequest,
    KickCallRequest,
    ListCallsReply,
    ListCallsRequest,
    ListJobsReply,
    ListJobsRequest,
    ListTablesReply,
    ListTablesRequest,
    LogEntry,
    LogRequest,
    PruneReply,
    PruneRequest,
    PublishRequest,
    QueryRequest,
    QueryResult,
    ServerStatus,
    StatusRequest,
    StreamOptions,
    SubscribeRequest,
    TableSchema,
    Update,
    WatchJobsRequest,
    WriteLogsRequest,
    WriteReply,
)
from streamkit.rights import Action
from streamkit.transport import Channel, ClientCall
from tests.access.servers import bearer
from tests.access.test_containment import name_is_meant, topic_is_meant
from tests.doors.http import ask

A = Action
READ, WRITE = "/streamservice.StreamService/", "/streamservice.ProducerService/"
ADMIN, HEALTH = "/streamservice.AdminService/", "/grpc.health.v1.Health/"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

HOLDERS = {
    "admin": ("admin",),
    "reader": ("reader",),
    "writer": ("writer",),
    "both": ("reader", "writer"),
    "shop": ("shop",),
    "nobody": (),
    "silent": ("silent",),
}
EVERYTHING = {action: ["*"] for action in Action} | {A.SUBSCRIBE: [">"], A.PUBLISH: [">"]}
READS, WRITES = (
    {A.SUBSCRIBE, A.LOGS, A.JOBS, A.QUERY},
    {A.PUBLISH, A.WRITE_LOGS, A.REPORT_JOBS, A.CANCEL_JOBS},
)
GRANTED: dict[str, dict[Action, list[str]]] = {
    "admin": EVERYTHING,
    "reader": {action: EVERYTHING[action] for action in READS},
    "writer": {action: EVERYTHING[action] for action in WRITES},
    "both": {action: EVERYTHING[action] for action in READS | WRITES},
    "shop": {
        A.SUBSCRIBE: ["orders.>"],
        A.PUBLISH: ["orders.eu.*"],
        A.LOGS: ["api-*"],
        A.WRITE_LOGS: ["api-eu"],
        A.JOBS: ["build-*"],
        A.REPORT_JOBS: ["build-1"],
        A.CANCEL_JOBS: ["build-1"],
        A.QUERY: ["shop"],
    },
    "nobody": {},
    "silent": {},
}
# What a pattern may stand for, in place of brute force over all names.
FILLINGS = ("", "x", "eu", "x.y", "-", "1")


def may(holder: str, action: Action, asked: str) -> bool:
    """By definition: one granted pattern means every name that the asked one may mean."""
    granted = GRANTED[holder].get(action, [])
    if action in (A.SUBSCRIBE, A.PUBLISH):
        names = [asked]
        if asked.split(".")[-1] == ">":
            names = [asked[:-1] + rest for rest in ("x", "eu", "x.y", "eu.x.y")]
        names = [name.replace("*", token) for name in names for token in ("x", "eu", "zz")]
        return any(all(topic_is_meant(each, name) for name in names) for each in granted)
    names = [asked.replace("*", filling) for filling in FILLINGS]
    return any(all(name_is_meant(each, name) for name in names) for each in granted)


@dataclass
class Case:
    path: str
    request: Any
    reply: type
    wants: list[tuple[Action, str]]
    hidden: bool = False


def database(name: str) -> list[tuple[Action, str]]:
    return [(A.QUERY, name or "store")]


CASES = [
    *(
        Case(READ + "SubscribeToUpdates", SubscribeRequest(topics), Update, wants)
        for topics in (
            ["orders.eu"],
            ["orders.eu.x", "orders.*"],
            ["orders.>"],
            [">"],
            ["*"],
            ["*.eu"],
            ["stock.eu"],
            ["orders.eu", "stock.eu"],
            ["orders"],
        )
        for wants in [[(A.SUBSCRIBE, topic) for topic in topics]]
    ),
    *(
        Case(READ + "TailLogs", LogRequest(names[0], services=names[1:]), LogEntry, wants)
        for names in (
            ["api-eu"],
            ["api-*"],
            ["api-*-x", "api-1"],
            ["*"],
            ["a*"],
            ["web"],
            ["api-eu", "web"],
        )
        for wants in [[(A.LOGS, name) for name in names]]
    ),
    *(
        Case(READ + "WatchJobProgress", JobRequest(job_id), JobProgress, [(A.JOBS, job_id)], True)
        for job_id in ("build-1", "build-2", "other")
    ),
    *(
        Case(
            READ + "StreamQueryResults",
            QueryRequest("select 1", database=name),
            QueryResult,
            database(name),
            bool(name),
        )
        for name in ("", "shop", "stock")
    ),
    *(
        Case(
            WRITE + "Publish",
            PublishRequest(updates=[Update(t, "x") for t in topics]),
            WriteReply,
            [(A.PUBLISH, topic) for topic in topics],
        )
        for topics in (["orders.eu.1"], ["orders.us.1"], ["orders.eu.1", "stock"], ["orders.eu"])
    ),
    *(
        Case(
            WRITE + "WriteLogs",
            WriteLogsRequest(entries=[LogEntry(service=s) for s in names]),
            WriteReply,
            [(A.WRITE_LOGS, name) for name in names],
        )
        for names in (["api-eu"], ["api-us"], ["api-eu", "web"])
    ),
    *(
        Case(
            WRITE + method,
            JobReport(job_id=job_id, status=status),
            JobProgress,
            [(A.REPORT_JOBS, job_id or "*")],
        )
        for method, status in (("CreateJob", ""), ("UpdateJob", "running"))
        for job_id in ("build-1", "build-2", "other", "")
        if job_id or method == "CreateJob"
    ),
    Case(
        WRITE + "FinishJob",
        JobReport(job_id="ended-1", status="completed"),
        JobProgress,
        [(A.REPORT_JOBS, "ended-1")],
    ),
    *(
        Case(WRITE + "WatchJobs", WatchJobsRequest(jobs), JobProgress, wants)
        for jobs in (["build-*"], ["build-1", "build-2*"], ["*"], ["other"], ["build-1", "o*"])
        for wants in [[(A.JOBS, job) for job in jobs]]
    ),
    Case(WRITE + "ListJobs", ListJobsRequest(), ListJobsReply, [(A.JOBS, "build-1")]),
    Case(
        WRITE + "WatchJobs",
        WatchJobsRequest(options=StreamOptions(heartbeat=timedelta(seconds=0.1))),
        JobProgress,
        [(A.JOBS, "build-1")],
    ),
    *(
        Case(path, request, reply, database(name), bool(name))
        for name in ("", "shop", "stock")
        for path, request, reply in (
            (ADMIN + "ListTables", ListTablesRequest(name), ListTablesReply),
            (ADMIN + "DescribeTable", DescribeTableRequest(name, "jobs"), TableSchema),
        )
    ),
    Case(
        WRITE + "CancelJob", CancelJobRequest("build-1"), JobProgress, [(A.CANCEL_JOBS, "build-1")]
    ),
    Case(WRITE + "CancelJob", CancelJobRequest("other"), JobProgress, [(A.CANCEL_JOBS, "other")]),
]
FOR_ADMINISTRATORS = [
    Case(ADMIN + "ListCalls", ListCallsRequest(), ListCallsReply, [(A.ADMIN, "")]),
    Case(ADMIN + "Backup", BackupRequest(), BackupChunk, [(A.ADMIN, "")]),
    Case(ADMIN + "Prune", PruneRequest(dry_run=True), PruneReply, [(A.ADMIN, "")]),
    Case(ADMIN + "KickCall", KickCallRequest(10**9), CallInfo, [(A.ADMIN, "")]),
]
CASES += FOR_ADMINISTRATORS
FOR_ANY_IDENTITY = [
    Case(ADMIN + "GetStatus", StatusRequest(), ServerStatus, []),
    Case(
        REFLECTION,
        v1.ServerReflectionRequest(list_services="*"),
        v1.ServerReflectionResponse,
        [],
    ),
    Case(
        REFLECTION.replace(".v1.", ".v1alpha."),
        v1alpha.ServerReflectionRequest(list_services="*"),
        v1alpha.ServerReflectionResponse,
        [],
    ),
]
FOR_ALL = [
    Case(HEALTH + "Check", HealthCheckRequest(), HealthCheckResponse, []),
    Case(HEALTH + "Watch", HealthCheckRequest(), HealthCheckResponse, []),
    Case(HEALTH + "List", HealthListRequest(), HealthListResponse, []),
]


def is_stream(case: Case) -> bool:
    """Whether what is answered has no end of its own."""
    return case.path.endswith(("Updates", "Progress", "TailLogs", "Results", "WatchJobs", "Backup"))


async def outcome(channel: Channel, case: Case, token: str | None) -> StreamkitError | None:
    """Make the call up to its first answer; how it was refused, or None."""
    call: ClientCall[Any, Any] = channel.stream(
        case.path,
        type(case.request),
        case.reply,
        request=case.request,
        metadata=bearer(token) if token is not None else None,
    )
    try:
        async with call:
            await call.initial_metadata()
            if not is_stream(case) or case.hidden:
                await call.receive()
    except StreamkitError as error:
        return error
    return None


async def through_grpc_web(address: str, case: Case, token: str) -> StreamkitError | None:
    """`outcome`, as a browser asks."""
    data = bytes(case.request)
    body = b"\0" + len(data).to_bytes(4, "big") + data
    headers = {"content_type": "application/grpc-web+proto"} | bearer(token)
    async with ask(address, "POST", case.path, body, **headers) as reply:
        status = reply.headers.get("grpc-status")
        if status is None:
            try:
                async with asyncio.timeout(1):
                    frame = await reply.chunk()
            except TimeoutError:
                return None  # a live stream has begun
            found = re.search(rb"grpc-status: ?(\d+)", frame) if frame[:1] == b"\x80" else None
            status = "0" if found is None else found[1].decode()
    return None if status == "0" else error_from_status(Status(int(status)), "")


async def through_connect(address: str, case: Case, token: str) -> StreamkitError | None:
    """`outcome`, in JSON."""
    data = case.request.to_json().encode()
    kind = "application/json"
    if is_stream(case):
        data, kind = b"\0" + len(data).to_bytes(4, "big") + data, "application/connect+json"
    headers = {"content_type": kind} | bearer(token)
    async with ask(address, "POST", case.path, data, **headers) as reply:
        try:
            async with asyncio.timeout(1):
                told = await (reply.chunk() if is_stream(case) else reply.body())
        except TimeoutError:
            return None
    found = re.search(rb'"code": ?"(\w+)"', told)
    return None if found is None else error_from_status(Status[found[1].decode().upper()], "")


async def through_events(address: str, case: Case, token: str) -> StreamkitError | None:
    """`outcome`, as EventSource asks; only streams of the journal have such an address."""
    request = case.request
    match request:
        case SubscribeRequest():
            target = "/v1/updates?" + urlencode([("topic", topic) for topic in request.topics])
        case LogRequest():
            services = [request.service_name, *request.services]
            target = "/v1/logs?" + urlencode([("service", name) for name in services])
        case JobRequest():
            target = f"/v1/jobs/{request.job_id}"
        case _:
            return await through_connect(address, case, token)
    async with ask(address, "GET", target, **bearer(token)) as reply:
        if reply.status == 204:
            return None
        if reply.status == 200:  # it began before it was refused, or it is live
            told = b""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while data := await reply.chunk():
                        told += data
            found = re.search(rb'"code": ?"(\w+)"', told)
            return (
                None if found is None else error_from_status(Status[found[1].decode().upper()], "")
            )
        statuses = {401: Status.UNAUTHENTICATED, 403: Status.PERMISSION_DENIED}
        return error_from_status(statuses.get(reply.status, Status.NOT_FOUND), "")


THROUGH = {
    "grpc-web": through_grpc_web,
    "connect": through_connect,
    "events": through_events,
}
