"""The calls that are made over either carrier, and handlers that are met nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.const import Cardinality, Handler
from grpclib.const import Status as GrpclibStatus
from grpclib.exceptions import GRPCError

from streamkit.errors import StreamkitError
from streamkit.generated.streamservice import PublishRequest, SubscribeRequest, Update, WriteReply
from streamkit.transport import Channel, ClientCall, Context, Framed
from tests.transport.raw import PUBLISH, SUBSCRIBE, message
from tests.transport.services import Streams

Serve = Callable[..., AbstractAsyncContextManager[Channel]]
Call = ClientCall[SubscribeRequest, Update]


def subscribe(channel: Channel, *topics: str, **settings: Any) -> Call:
    request = SubscribeRequest(topics=list(topics))
    return channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=request, **settings)


def metadata_of(call: ClientCall[Any, Any]) -> Mapping[str, str | bytes]:
    assert call.trailing_metadata is not None
    return call.trailing_metadata


async def fails(channel: Channel, topic: str, **settings: Any) -> StreamkitError:
    with pytest.raises(StreamkitError) as caught:
        async with subscribe(channel, topic, **settings) as call:
            async for _ in call:
                pass
    return caught.value


async def publish(channel: Channel, **settings: Any) -> WriteReply:
    return await channel.unary(PUBLISH, PublishRequest(), WriteReply, **settings)


async def over(ctx: Context) -> None:
    done = asyncio.Event()
    ctx.when_done(lambda _: done.set())
    await asyncio.wait_for(done.wait(), 5)


JOIN, ECHO = "/test.Plain/Join", "/test.Plain/Echo"


class Plain:
    """Written for grpclib, with google.protobuf messages."""

    async def Join(self, stream: Any) -> None:
        words = [message.value async for message in stream]
        await stream.send_message(StringValue(value="".join(words)))

    async def Echo(self, stream: Any) -> None:
        request = await stream.recv_message()
        assert await stream.recv_message() is None
        if request.value == "error":
            raise GRPCError(GrpclibStatus.DATA_LOSS, "lost", b"details")
        if request.value == "status":
            await stream.send_trailing_metadata(
                status=GrpclibStatus.ABORTED, status_message="own", metadata={"k": "v"}
            )
        elif request.value == "cancel":
            await stream.cancel()
        elif request.value != "silent":
            assert stream.deadline is None or stream.deadline.time_remaining() > 0
            assert stream.peer.cert() is None
            await stream.send_initial_metadata(metadata={"agent": stream.user_agent or "none"})
            await stream.send_message(request)
            await stream.send_trailing_metadata(metadata={"seen": stream.metadata.get("x", "-")})

    def __mapping__(self) -> dict[str, Handler]:
        return {
            JOIN: Handler(self.Join, Cardinality.STREAM_UNARY, StringValue, StringValue),
            ECHO: Handler(self.Echo, Cardinality.UNARY_UNARY, StringValue, StringValue),
        }


FANNED = [b"one", b"two", b"x" * 300_000]


class Fan(Streams):
    """Sends messages that are encoded already, among others."""

    async def subscribe_to_updates(self, _: SubscribeRequest) -> AsyncIterator[Any]:
        one, two, large = (message(bytes(Update(topic=t.decode()))) for t in FANNED)
        yield Framed(one + two, 2)
        yield Update(topic="three")
        yield Framed(b"", 0)
        yield Framed([large[:5], memoryview(large)[5:]], 1)
