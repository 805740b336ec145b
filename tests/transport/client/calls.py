"""The calls that the channel's tests make."""

from __future__ import annotations

from typing import Any

from streamkit.generated.streamservice import JobProgress, JobRequest
from streamkit.transport import Channel, ClientCall

PATH = "/streamservice.StreamService/WatchJobProgress"
REPLY = bytes(JobProgress(job_id="j" * 50))


async def unary(channel: Channel, **settings: Any) -> bytes:
    """One request, one reply; gives up after five seconds."""
    settings.setdefault("timeout", 5)
    return bytes(await channel.unary(PATH, JobRequest(job_id="j"), JobProgress, **settings))


def listening(channel: Channel, **settings: Any) -> ClientCall[JobRequest, JobProgress]:
    """One request, a stream of replies."""
    settings.setdefault("request", JobRequest(job_id="j"))
    return channel.stream(PATH, JobRequest, JobProgress, **settings)


def sending(channel: Channel, **settings: Any) -> ClientCall[JobRequest, JobProgress]:
    """A stream of requests."""
    return channel.stream(PATH, JobRequest, JobProgress, **settings)
