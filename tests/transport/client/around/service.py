"""A service that says what it was asked, and a call to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from streamkit.errors import NotFoundError
from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    LogEntry,
    LogRequest,
    StreamServiceBase,
    SubscribeRequest,
    Update,
)
from streamkit.transport import Channel, ClientCall, context

WATCH = "/streamservice.StreamService/WatchJobProgress"
SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"
LOGS = "/streamservice.StreamService/TailLogs"
Next = Callable[[], Awaitable[None]]
Call = ClientCall[Any, Any]


class Service(StreamServiceBase):
    """Says what it was asked, or fails, or goes on for ever."""

    downstream: Channel | None = None

    def __init__(self) -> None:
        self.running = 0

    async def watch_job_progress(self, request: JobRequest) -> AsyncIterator[JobProgress]:
        if request.job_id == "unknown":
            raise NotFoundError("no such job")
        ctx = context()
        ctx.set_trailing_metadata({"left": "yes"})
        yield JobProgress(
            job_id=request.job_id,
            status=str(ctx.metadata.get("x-tag", "")),
            current_step="compressed" if ctx.message_compressed else "plain",
        )

    async def subscribe_to_updates(self, request: SubscribeRequest) -> AsyncIterator[Update]:
        self.running += 1
        try:
            for number in range(10**9):
                yield Update(message=str(number))
                await asyncio.sleep(0.001)
        finally:
            self.running -= 1

    async def tail_logs(self, request: LogRequest) -> AsyncIterator[LogEntry]:
        left = context().time_left()
        if request.lines:
            yield LogEntry(message="none" if left is None else f"{left:.3f}")
            return
        assert self.downstream is not None
        timeout = float(request.service_name) if request.service_name else None
        yield await self.downstream.unary(LOGS, LogRequest(lines=1), LogEntry, timeout=timeout)


async def watch(channel: Channel, job: str = "j", **settings: Any) -> JobProgress:
    return await channel.unary(WATCH, JobRequest(job_id=job), JobProgress, **settings)
