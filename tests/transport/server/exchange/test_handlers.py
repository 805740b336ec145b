"""What a handler sees of its call."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from streamkit.errors import (
    LimitError,
    NotFoundError,
    PreconditionError,
    Status,
    StreamGapError,
    StreamkitError,
    UnimplementedError,
)
from streamkit.generated.streamservice import (
    PublishRequest,
    SubscribeRequest,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.transport import Context, context
from tests.transport.raw import PUBLISH, SUBSCRIBE, WRITE
from tests.transport.server.exchange.calls import (
    ECHO,
    JOIN,
    Plain,
    Serve,
    fails,
    over,
    publish,
    subscribe,
)
from tests.transport.services import Streams, Writes


async def test_the_context_of_a_call(serve: Serve) -> None:
    contexts: list[Context] = []

    class Told(Streams):
        async def subscribe_to_updates(self, _: SubscribeRequest) -> AsyncIterator[Update]:
            ctx = context()
            contexts.append(ctx)
            ctx.set_initial_metadata({"x-initial": "1"})
            ctx.set_trailing_metadata([("x-trailing", "2"), ("y-bin", b"\x03")])
            yield Update(topic="t")
            with pytest.raises(PreconditionError):
                ctx.set_initial_metadata({"late": "1"})

    started = time.monotonic()
    async with serve([Told()]) as channel:
        metadata = {"x-a": "1", "x-b-bin": b"a"}
        async with subscribe(channel, "x", timeout=5, metadata=metadata) as call:
            assert dict(await call.initial_metadata()) == {"x-initial": "1"}
            assert [update.topic async for update in call] == ["t"]
            assert dict(call.trailing_metadata or {}) == {"x-trailing": "2", "y-bin": b"\x03"}
        (ctx,) = contexts
        assert (ctx.carrier, ctx.peer) in (("grpc", "unix:"), ("inproc", "inproc"))
        assert (ctx.streams_requests, ctx.streams_replies) == (False, True)
        assert (ctx.method, dict(ctx.metadata)) == (SUBSCRIBE, metadata)
        assert ctx.user_agent.startswith("grpc-python-streamkit/")
        assert ctx.peer_certificate is None
        assert ctx.deadline is not None
        assert 4 < ctx.deadline - started < 6
        await over(ctx)
        assert ctx.outcome is not None
        assert ctx.outcome.status is Status.OK
        assert (ctx.messages_received, ctx.messages_sent) == (1, 1)
    with pytest.raises(PreconditionError):
        context()


async def test_every_kind_of_method(serve: Serve) -> None:
    writes = Writes()
    async with serve([Streams(), writes, Plain()]) as channel:
        assert (await publish(channel)).producer_sequence == 7
        async with subscribe(channel, "count:3") as call:
            assert [update.message async for update in call] == ["0", "1", "2"]
        async with channel.stream(WRITE, WriteRequest, WriteReply) as both:
            for number in range(1, 4):
                await both.send(WriteRequest())
                assert (await anext(both)).producer_sequence == number + 1
            await both.end()
            assert await both.receive() == []
        async with channel.stream(JOIN, StringValue, StringValue) as join:
            for word in ("a", "b", "c"):
                await join.send(StringValue(value=word))
            await join.end()
            assert (await join.reply()).value == "abc"


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("limit", LimitError, "too much"),
        ("missing", NotFoundError, "no such thing"),
        ("gap", StreamGapError, "too old"),
        ("bug", StreamkitError, "internal error"),
    ],
)
async def test_an_error_is_one_status(
    how: str, kind: type[StreamkitError], words: str, serve: Serve
) -> None:
    async with serve([Streams()]) as channel, subscribe(channel, f"fail:{how}") as call:
        assert (await anext(call)).message == "first"
        with pytest.raises(kind, match=words) as caught:
            await anext(call)
        if isinstance(caught.value, NotFoundError):
            assert caught.value.hint == "look elsewhere\u2026"
        if isinstance(caught.value, StreamGapError):
            assert (caught.value.oldest, caught.value.newest) == (3, 9)


async def test_what_is_no_call_is_refused(serve: Serve) -> None:
    async with serve([Writes()]) as channel:
        error = await fails(channel, "x")
        assert isinstance(error, UnimplementedError)
        assert error.message == "no such method"
        with pytest.raises(UnimplementedError, match="no message"):
            async with channel.stream(PUBLISH, PublishRequest, WriteReply) as call:
                await call.end()
                await call.reply()
        with pytest.raises(UnimplementedError, match="several messages"):
            async with channel.stream(PUBLISH, PublishRequest, WriteReply) as call:
                await call.send(PublishRequest())
                await call.send(PublishRequest())
                await call.end()
                await call.reply()
        assert (await publish(channel)).producer_sequence == 7


async def test_handlers_written_for_grpclib(serve: Serve) -> None:
    async with serve([Plain()]) as channel:

        async def echo(text: str) -> str:
            reply: StringValue = await channel.unary(
                ECHO, StringValue(value=text), StringValue, timeout=5, metadata={"x": "y"}
            )
            return str(reply.value)

        assert await echo("hello") == "hello"
        for text, status, words in (
            ("error", Status.DATA_LOSS, "lost"),
            ("status", Status.ABORTED, "own"),
            ("cancel", Status.CANCELLED, "reset"),
            ("silent", Status.INTERNAL, "no reply"),
        ):
            with pytest.raises(StreamkitError, match=words) as caught:
                await echo(text)
            assert caught.value.status is status
