"""The calls of the three journal streams, for tests."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    LogEntry,
    LogRequest,
    SubscribeRequest,
    Update,
    WatchJobsRequest,
)
from streamkit.transport import Channel, ClientCall

M = TypeVar("M")

SERVICE = "/streamservice.StreamService/"


def subscribe(
    channel: Channel, *topics: str, **more: Any
) -> AbstractAsyncContextManager[ClientCall[SubscribeRequest, Update]]:
    request = SubscribeRequest(topics=list(topics), **more)
    return channel.stream(SERVICE + "SubscribeToUpdates", SubscribeRequest, Update, request=request)


def tail(
    channel: Channel, service: str = "", **more: Any
) -> AbstractAsyncContextManager[ClientCall[LogRequest, LogEntry]]:
    request = LogRequest(service_name=service, **more)
    return channel.stream(SERVICE + "TailLogs", LogRequest, LogEntry, request=request)


def watch(
    channel: Channel, job_id: str, **more: Any
) -> AbstractAsyncContextManager[ClientCall[JobRequest, JobProgress]]:
    request = JobRequest(job_id=job_id, **more)
    return channel.stream(SERVICE + "WatchJobProgress", JobRequest, JobProgress, request=request)


def watch_all(
    channel: Channel, *jobs: str, **more: Any
) -> AbstractAsyncContextManager[ClientCall[WatchJobsRequest, JobProgress]]:
    request = WatchJobsRequest(jobs=list(jobs), **more)
    path = "/streamservice.ProducerService/WatchJobs"
    return channel.stream(path, WatchJobsRequest, JobProgress, request=request)


async def take(call: ClientCall[Any, M], count: int) -> list[M]:
    """Exactly `count` messages."""
    got: list[M] = []
    while len(got) < count:
        messages = await call.receive()
        assert messages, f"the stream ended after {got}"
        got += messages
    assert len(got) == count, got
    return got


async def rest(call: ClientCall[Any, M]) -> list[M]:
    """Everything until the stream ends."""
    got: list[M] = []
    while messages := await call.receive():
        got += messages
    return got
