"""Services whose behaviour the request chooses, and a codec without any cleverness."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from grpclib.encoding.base import CodecBase

from streamkit.errors import LimitError, NotFoundError, StreamGapError
from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    ProducerServiceBase,
    PublishRequest,
    StreamServiceBase,
    SubscribeRequest,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.transport import context


class PlainCodec(CodecBase):
    """Bytes pass; betterproto and google.protobuf messages by their own methods."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        if isinstance(message, bytes):
            return message
        return bytes(message.SerializeToString())

    def decode(self, data: bytes, message_type: Any) -> Any:
        if data.startswith(b"\xff"):
            raise ValueError("not a message")
        return message_type.FromString(data)


TICK = bytes(Update(topic="t", message="tick"))
FLOOD = bytes(Update(topic="t", message="x" * 1000))
"""Encoded once: the tests that use them are about the transport's speed, not the codec's."""


def ask(*topics: str, client: str = "") -> bytes:
    return bytes(SubscribeRequest(topics=list(topics), client_id=client))


class Streams(StreamServiceBase):
    """Subscriptions that end, idle, flood or fail, by their first topic."""

    def __init__(self) -> None:
        self.closed: list[float] = []
        self.deadlines: list[float] = []
        self.started = 0
        self.release = asyncio.Event()
        self.changed = asyncio.Event()

    async def subscribe_to_updates(
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Update]:
        self.started += 1
        self.deadlines.append(context().deadline or 0.0)
        self.changed.set()
        word, _, rest = "".join(subscribe_request.topics[:1]).partition(":")
        try:
            async for update in self._updates(word, rest):
                yield update
        finally:
            self.closed.append(time.monotonic())
            self.changed.set()

    async def _updates(self, word: str, rest: str) -> AsyncIterator[Any]:
        if word == "count":
            for number in range(int(rest)):
                yield Update(topic="t", message=str(number))
        elif word == "idle":
            if rest:
                yield Update(topic="t", message=rest)
            await self.release.wait()
            yield Update(topic="t", message="released")
        elif word == "flood":
            while True:
                yield FLOOD
        elif word == "big":
            yield Update(topic="t", message="x" * int(rest))
        elif word == "ticks":
            count, _, pause = rest.partition(":")
            for _ in range(int(count)):
                yield TICK
                await asyncio.sleep(float(pause or 0.005))
        elif word == "fail":
            yield Update(topic="t", message="first")
            raise {
                "limit": LimitError("too much"),
                "missing": NotFoundError("no such thing", hint="look elsewhere\u2026"),
                "gap": StreamGapError("too old", oldest=3, newest=9),
                "bug": RuntimeError("secret"),
            }[rest]
        elif word == "inner-cancel":
            future = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    async def watch_job_progress(self, job_request: JobRequest) -> AsyncIterator[JobProgress]:
        yield JobProgress(job_id=job_request.job_id)


class Writes(ProducerServiceBase):
    """One reply per request, and one per streamed request."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        self.received.append(publish_request)
        return WriteReply(producer_sequence=7)

    async def write(
        self, write_request_iterator: AsyncIterator[WriteRequest]
    ) -> AsyncIterator[WriteReply]:
        async for request in write_request_iterator:
            self.received.append(request)
            yield WriteReply(producer_sequence=len(self.received))
