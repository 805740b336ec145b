"""What is between a handler and its caller: windows, sizes, compression, interceptors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from streamkit.config import TransportLimits
from streamkit.errors import AuthError, InvalidArgumentError, LimitError, NotFoundError
from streamkit.generated.streamservice import (
    Producer,
    PublishRequest,
    SubscribeRequest,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.transport import ClientCall, Context, context, together
from tests.transport.raw import PUBLISH, SUBSCRIBE, WRITE
from tests.transport.server.exchange.calls import (
    FANNED,
    JOIN,
    Fan,
    Plain,
    Serve,
    fails,
    metadata_of,
    publish,
    subscribe,
)
from tests.transport.services import Streams, Writes

# What is between ------------------------------------------------------------------------------


async def test_a_reader_that_is_behind_holds_the_handler(serve: Serve) -> None:
    """No more than the window and the buffer are on their way; then all of it arrives in order."""
    sent = 0

    class Fast(Streams):
        async def subscribe_to_updates(self, _: SubscribeRequest) -> AsyncIterator[Update]:
            nonlocal sent
            for sent in range(2000):  # seen from outside
                yield Update(topic=str(sent), message="x" * 1000)

    async with serve([Fast()]) as channel, subscribe(channel, "x") as call:
        await call.initial_metadata()
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert 0 < sent < 1500
        assert [update.topic async for update in call] == [str(n) for n in range(2000)]


async def test_a_reader_that_stops_is_told_so(serve: Serve) -> None:
    limits = TransportLimits(stall_timeout=0.2)
    streams = Streams()
    async with serve([streams], limits=limits) as channel, subscribe(channel, "flood") as call:
        await anext(call)
        while not streams.closed:
            await asyncio.sleep(0.01)
        with pytest.raises(LimitError, match="took nothing"):
            async for _ in call:
                pass


async def test_a_large_message_passes_whole(serve: Serve) -> None:
    async with serve([Streams()]) as channel, subscribe(channel, "big:3000000") as call:
        assert [len(update.message) async for update in call] == [3_000_000]
    async with serve([Streams()]) as channel:
        kept: list[Any] = []
        path = (SUBSCRIBE, SubscribeRequest, Update)
        request = SubscribeRequest(topics=["big:3000000"])
        async with channel.stream(*path, request=request, decoder=kept.append) as call:  # type: ignore[arg-type]  # its None is the reply
            await call.receive()
        assert len(Update().parse(bytes(kept[0])).message) == 3_000_000


async def test_a_request_over_the_limit_is_refused(serve: Serve) -> None:
    async with serve([Streams()], limits=TransportLimits(max_message=10_000)) as channel:
        assert isinstance(await fails(channel, "x" * 20_000), LimitError)


async def test_compression_is_agreed_on(serve: Serve) -> None:
    class Packed(Streams):
        async def subscribe_to_updates(self, _: SubscribeRequest) -> AsyncIterator[Update]:
            ctx = context()
            packed = ctx.message_compressed
            assert ctx.use_compression("gzip")
            assert not ctx.use_compression("zip9")
            yield Update(message=str(packed))
            ctx.compress = False
            yield Update(message="x" * 10_000)

    async with serve([Packed()]) as channel, subscribe(channel, "x", compression="gzip") as call:
        assert [update.message async for update in call] == ["True", "x" * 10_000]


async def test_requests_that_are_here_are_handed_out_together(serve: Serve) -> None:
    """And what is wrong with one is told after those before it."""
    batches: list[list[int]] = []

    class Together(Writes):
        async def write(
            self, write_request_iterator: AsyncIterator[WriteRequest]
        ) -> AsyncIterator[WriteReply]:
            async for batch in together(write_request_iterator):
                batches.append([request.producer.sequence for request in batch])
                context().set_trailing_metadata({"x-got": str(context().messages_received)})
                yield WriteReply(producer_sequence=len(batch))

    requests = [bytes(WriteRequest(Producer("p", number))) for number in range(1, 8)]
    async with serve([Together()]) as channel:
        async with channel.stream(WRITE, WriteRequest, WriteReply) as call:
            for number in range(1, 101):
                await call.send(WriteRequest(Producer("p", number)))
            await call.end()
            replies = [reply.producer_sequence async for reply in call]
        assert [*chain(*batches)] == list(range(1, 101))
        assert [len(batch) for batch in batches] == replies
        assert max(replies) > 1
        batches.clear()
        bad = [*requests[:3], b"\x0a\xff", *requests[3:]]
        with pytest.raises(InvalidArgumentError, match="cannot be decoded"):
            call = channel.stream(WRITE, WriteRequest, WriteReply)
            async with call:
                for data in bad:
                    await call.send(data)  # type: ignore[arg-type]  # bytes in place of it
                await call.end()
                async for _ in call:
                    pass
        assert [*chain(*batches)] == [1, 2, 3]
        assert metadata_of(call)["x-got"] == "3"


async def test_framed_messages_go_out_as_they_are(serve: Serve) -> None:
    async with serve([Fan()]) as channel, subscribe(channel, "x") as call:
        found = [update.topic.encode() async for update in call]
    assert found == [b"one", b"two", b"three", FANNED[2]]


# Interceptors ---------------------------------------------------------------------------------


async def test_interceptors_are_an_onion_around_every_kind(serve: Serve) -> None:
    trace: list[str] = []

    async def outer(ctx: Context, call_next: Any) -> None:
        trace.append(f"> {ctx.method.rpartition('/')[2]}")
        try:
            await call_next(ctx)
        finally:
            trace.append("<")

    async def inner(ctx: Context, call_next: Any) -> None:
        if "deny" in ctx.metadata:
            raise AuthError("not you")
        if "twist" in ctx.metadata:
            try:
                await call_next(ctx)
            except NotFoundError as error:
                raise InvalidArgumentError("twisted") from error
        ctx.set_trailing_metadata({"x-inner": "1"})
        await call_next(ctx)

    handlers = [Streams(), Writes(), Plain()]
    nothing: dict[str, str] = {}
    async with serve(handlers, interceptors=[outer, inner]) as channel:
        for path, body, kind in (
            (SUBSCRIBE, SubscribeRequest(topics=["count:1"]), Update),
            (PUBLISH, PublishRequest(), WriteReply),
            (WRITE, WriteRequest(), WriteReply),
            (JOIN, StringValue(), StringValue),
        ):
            for metadata in nothing, {"deny": "1"}:
                trace.clear()
                call: ClientCall[Any, Any] = channel.stream(
                    path, type(body), kind, request=body, metadata=metadata
                )
                try:
                    async with call:
                        while await call.receive():
                            pass
                    assert metadata_of(call)["x-inner"] == "1"
                    assert not metadata
                except AuthError as error:
                    assert metadata
                    assert error.message == "not you"
                assert trace == [f"> {path.rpartition('/')[2]}", "<"]
        twisted = await fails(channel, "fail:missing", metadata={"twist": "1"})
        assert isinstance(twisted, InvalidArgumentError)


async def test_a_fault_of_a_callback_is_nobodys_outcome(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def note(ctx: Context, call_next: Any) -> None:
        ctx.when_done(lambda _: 1 / 0)  # type: ignore[arg-type]  # it is no call-back
        await call_next(ctx)

    async with serve([Writes()], interceptors=[note]) as channel:
        assert (await publish(channel)).producer_sequence == 7
        while "ZeroDivisionError" not in caplog.text:
            await asyncio.sleep(0.001)
