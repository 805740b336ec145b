"""What handlers and interceptors see is the same, whatever carries the call."""

from __future__ import annotations

import ast
import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pytest
from betterproto.lib.google.protobuf import Any as Any_
from betterproto.lib.google.protobuf import StringValue as BetterprotoString
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.const import Cardinality, Handler
from grpclib.const import Status as GrpclibStatus
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

import streamkit
from streamkit.client import AsyncClient
from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.errors import (
    AuthError,
    CallCancelledError,
    ConnectError,
    DeadlineError,
    InternalError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
    PreconditionError,
    Status,
    StreamGapError,
    StreamkitError,
    UnimplementedError,
)
from streamkit.generated.google import rpc
from streamkit.generated.streamservice import (
    Producer,
    PublishRequest,
    SubscribeRequest,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.testing import InProcess, connected
from streamkit.transport import Channel, ClientCall, Context, Framed, Service, context, together
from streamkit.transport.grpc.details import details_header, pack_details, unpack_details
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.server.exchange import Exchange
from streamkit.transport.server.outcome import Outcome
from tests.transport.raw import PUBLISH, SUBSCRIBE, WRITE, message
from tests.transport.services import Streams, Writes

Serve = Callable[..., AbstractAsyncContextManager[Channel]]
Call = ClientCall[SubscribeRequest, Update]


@pytest.fixture(params=["socket", "inproc"])
def serve(request: Any) -> Serve:
    return partial(connected, carrier=request.param)


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


# What a handler sees --------------------------------------------------------------------------


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


async def over(ctx: Context) -> None:
    done = asyncio.Event()
    ctx.when_done(lambda _: done.set())
    await asyncio.wait_for(done.wait(), 5)


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


# How a call ends ------------------------------------------------------------------------------


async def test_a_caller_that_leaves_ends_the_handler(serve: Serve) -> None:
    streams = Streams()
    seen: list[bool] = []
    outcomes: list[Outcome | None] = []

    async def watch(ctx: Context, call_next: Any) -> None:
        ctx.when_done(lambda ctx: outcomes.append(ctx.outcome))
        try:
            await call_next(ctx)
        finally:
            seen.append(ctx.cancelled)

    async with serve([streams], interceptors=[watch]) as channel:
        for topic in ("idle:x", "flood"):
            streams.closed.clear()
            async with subscribe(channel, topic) as call:
                await anext(call)
            async with asyncio.timeout(5):
                while not streams.closed or len(outcomes) < len(seen):
                    await asyncio.sleep(0.001)
    assert seen == [True, True]
    assert [outcome and outcome.status for outcome in outcomes] == [Status.CANCELLED] * 2


async def test_a_deadline_ends_the_handler(serve: Serve) -> None:
    streams = Streams()
    async with serve([streams]) as channel:
        for topic in ("idle:x", "flood"):
            assert isinstance(await fails(channel, topic, timeout=0.05), DeadlineError)
        while len(streams.closed) < 2:
            await asyncio.sleep(0.001)


async def test_a_call_is_ended_from_outside(serve: Serve) -> None:
    running: list[Context] = []

    async def note(ctx: Context, call_next: Any) -> None:
        running.append(ctx)
        await call_next(ctx)

    streams = Streams()
    async with serve([streams], interceptors=[note]) as channel:
        async with subscribe(channel, "idle:x") as call:
            await anext(call)
            running[0].end(AuthError("not any more"))
            with pytest.raises(AuthError, match="not any more"):
                await anext(call)
        await over(running[0])
        assert len(streams.closed) == 1
        assert running[0].outcome is not None
        assert running[0].outcome.status is Status.PERMISSION_DENIED
        running[0].end(AuthError("once more"))  # nothing happens to a call that is over


async def test_a_closed_channel_ends_its_calls(serve: Serve) -> None:
    streams = Streams()
    async with serve([streams]) as channel, subscribe(channel, "idle:x") as call:
        await anext(call)
        await channel.aclose()
        with pytest.raises(ConnectError, match="channel is closed"):
            await anext(call)
        while not streams.closed:
            await asyncio.sleep(0.001)
        with pytest.raises(ConnectError):
            await publish(channel)


async def test_a_server_that_goes_away_says_so() -> None:
    carrier = InProcess([Streams(), Writes()])
    async with Channel("in-process", codec=StreamkitCodec(), carrier=carrier) as channel:
        async with subscribe(channel, "idle:x") as call:
            await anext(call)
            carrier.drain()
            with pytest.raises(ConnectError, match="going away"):
                await anext(call)
            assert metadata_of(call)["streamkit-reconnect"] == "1"
        async with subscribe(channel, "idle:x") as call:
            await anext(call)
            carrier.reset("cut")
            with pytest.raises(ConnectError, match="cut"):
                await anext(call)


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
        views: list[Any] = []
        path = (SUBSCRIBE, SubscribeRequest, Update)
        request = SubscribeRequest(topics=["big:3000000"])
        async with channel.stream(*path, request=request, decoder=views.append) as call:  # type: ignore[arg-type]  # its None is the reply
            await call.receive()
        assert isinstance(views[0], memoryview)
        assert len(Update().parse(bytes(views[0])).message) == 3_000_000


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


FANNED = [b"one", b"two", b"x" * 300_000]


class Fan(Streams):
    """Sends messages that are encoded already, among others."""

    async def subscribe_to_updates(self, _: SubscribeRequest) -> AsyncIterator[Any]:
        one, two, large = (message(bytes(Update(topic=t.decode()))) for t in FANNED)
        yield Framed(one + two, 2)
        yield Update(topic="three")
        yield Framed(b"", 0)
        yield Framed([large[:5], memoryview(large)[5:]], 1)


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


# A door with another codec --------------------------------------------------------------------


class Json(CodecBase):
    """Messages as a browser wants them."""

    __content_subtype__ = "json"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return json.dumps(message.to_dict()).encode()

    def decode(self, data: bytes, message_type: Any) -> Any:
        return message_type().from_json(data)


class Page:
    """The smallest carrier that there can be: everything is kept in lists."""

    carrier = "page"
    user_agent = ""
    accepts: frozenset[str] = frozenset()
    headers_sent = False
    peer = "page"
    peer_certificate = None
    lost = False
    received_all = True
    unread = 0
    pending_size = 0

    def __init__(self, method: str, request: bytes, deadline: float | None = None) -> None:
        self.method = method
        self.metadata: Any = {}
        self.deadline = deadline
        self.codec = Json()
        self.body = self
        self._requests = [[request], []]
        self.lines: list[bytes] = []
        self.outcome: Outcome | None = None

    async def messages(self) -> list[bytes]:
        return self._requests.pop(0)

    def put_message(self, prefix: bytes, body: bytes) -> bool:
        assert self.headers_sent
        self.lines.append(body)
        return False

    def put_headers(self, metadata: Headers, compression: str) -> None:
        self.headers_sent = True

    def put_status(self, outcome: Outcome) -> None:
        assert self.outcome is None
        self.outcome = outcome

    async def announced(self) -> int:
        return 0

    def fail_reading(self, error: StreamkitError) -> None: ...
    def flush_out(self) -> None: ...
    def drop_pending(self) -> None: ...
    def reset(self) -> None: ...
    def put_parts(self, parts: Any) -> bool:
        raise AssertionError("a door without gRPC's framing is given no frames")

    async def drain(self) -> None: ...
    async def flushed(self) -> None: ...


async def page(method: str, request: bytes, **settings: Any) -> Page:
    service = Service([Fan(), Writes()], StreamkitCodec(), TransportLimits())
    door = Page(method, request, **settings)
    exchange: Exchange = door  # type: ignore[assignment]  # all that is asked of one
    done = asyncio.Event()
    service.start(exchange, done.set)
    await asyncio.wait_for(done.wait(), 5)
    service.close()
    return door


async def test_a_door_needs_no_more_than_an_exchange() -> None:
    door = await page(SUBSCRIBE, b'{"topics": ["x"]}')
    found = [json.loads(line)["topic"].encode() for line in door.lines]
    assert found == [b"one", b"two", b"three", FANNED[2]]
    assert door.outcome is not None
    assert door.outcome.status is Status.OK
    for method, request, settings, status in (
        ("/no/such", b"{}", {}, Status.UNIMPLEMENTED),
        (PUBLISH, b"{}", {}, Status.OK),
        (PUBLISH, b"no json", {}, Status.INVALID_ARGUMENT),
        (PUBLISH, b"{}", {"deadline": time.monotonic() - 1}, Status.DEADLINE_EXCEEDED),
    ):
        door = await page(method, request, **settings)
        assert door.outcome is not None
        assert door.outcome.status is status


async def test_a_cancelled_call_of_a_client_is_cancelled(serve: Serve) -> None:
    async with serve([Streams()]) as channel, subscribe(channel, "idle:x") as call:
        await anext(call)
        call.cancel()
        with pytest.raises(CallCancelledError):
            await anext(call)


# Faults of handlers, and what is said about errors -----------------------------------------------


class Faulty(Streams):
    """Mistakes of a handler's own, by the first topic."""

    downstream: Channel

    async def subscribe_to_updates(
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Update]:
        match subscribe_request.topics[0]:
            case "metadata":
                context().set_trailing_metadata({"Grpc-Status": "1"})
            case "late":
                yield Update()
                context().set_initial_metadata({"a": "b"})
            case "field":
                yield Update(topic=5)  # type: ignore[arg-type]  # wrong on purpose
            case "type":
                yield "no message"  # type: ignore[misc]  # wrong on purpose
            case "downstream":
                await self.downstream.unary(PUBLISH, PublishRequest(), WriteReply)
            case "misuse":
                await self.downstream.unary("\n", PublishRequest(), WriteReply)
            case "client":
                async with AsyncClient("127.0.0.1:1", reconnect=False) as client:
                    await client.publish("a", "1")
            case "closed client":
                async with AsyncClient("127.0.0.1:1") as client:
                    await client.close()
                    await client.publish("a", "1")
            case "passed on":
                try:
                    await self.downstream.unary(PUBLISH, PublishRequest(), WriteReply)
                except NotFoundError as error:
                    raise error.own() from None
            case "details":
                raise NotFoundError("no", details=["no message"])
            case _:
                raise ValueError("a fault")


class Missing(Writes):
    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        raise NotFoundError("not down here")


FAULTS = [
    *("metadata", "late", "field", "type", "details", "error"),
    *("downstream", "misuse", "client", "closed client"),
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_handlers_mistake_is_its_own(
    fault: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """INTERNAL without a word to the caller, one line with the place in the log."""
    handler = Faulty()
    async with serve([Missing()]) as handler.downstream, serve([handler]) as channel:
        error = await fails(channel, fault)
        assert (error.status, error.message) == (Status.INTERNAL, "internal error")
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (line,) = lines
    assert line.startswith(f"fault in a handler: {SUBSCRIBE} at ")
    assert f"{__file__}:" in line
    assert "\n" not in line
    assert all(record.exc_info is None for record in caplog.records)


async def test_an_error_is_passed_on_on_purpose(serve: Serve) -> None:
    handler = Faulty()
    async with serve([Missing()]) as handler.downstream, serve([handler]) as channel:
        error = await fails(channel, "passed on")
        assert (error.status, error.message) == (Status.NOT_FOUND, "not down here")


VIOLATION = rpc.BadRequestFieldViolation(field="topic", description="is too long")
DETAILS = [
    rpc.BadRequest(field_violations=[VIOLATION]),
    rpc.RetryInfo(retry_delay=timedelta(seconds=1.5)),
    rpc.ErrorInfo(reason="R", domain="d", metadata={"a": "b"}),
    BetterprotoString("well known"),
]


@pytest.mark.parametrize("how", ["ours", "grpclib's", "google's", "trailers", "bytes"])
async def test_details_of_an_error_travel(how: str, serve: Serve) -> None:
    theirs = StringValue(value="theirs")
    packed = pack_details(3, "no", DETAILS)

    class Detailed(Plain):
        async def Echo(self, stream: Any) -> None:
            await stream.recv_message()
            if how == "ours":
                raise InvalidArgumentError("no", details=DETAILS)
            if how == "trailers":
                await stream.send_trailing_metadata(
                    status=GrpclibStatus.INVALID_ARGUMENT,
                    status_message="no",
                    status_details=DETAILS,
                )
                return
            more: Any = {"grpclib's": DETAILS, "google's": theirs, "bytes": packed}[how]
            raise GRPCError(GrpclibStatus.INVALID_ARGUMENT, "no", more)

    async with serve([Detailed()]) as channel:
        with pytest.raises(InvalidArgumentError, match="no") as caught:
            await channel.unary(ECHO, StringValue(), StringValue)
        error = caught.value
        if how == "google's":
            assert [type(detail) for detail in error.details] == [BetterprotoString]
            assert error.details[0].value == "theirs"
        else:
            assert list(error.details) == DETAILS
            assert error.detail(rpc.RetryInfo) == DETAILS[1]
            assert error.detail(rpc.Help) is None
            assert error.status_details == packed


def test_details_that_cannot_be_read_hide_nothing() -> None:
    assert unpack_details("%%%") == (b"", ())
    assert unpack_details("/w") == (b"\xff", ())
    unknown = Any_("type.googleapis.com/feed.v1.Tick", b"\x08\x01")
    broken = Any_("type.googleapis.com/google.rpc.RetryInfo", b"\xff")
    odd = Any_("type.googleapis.com/google.rpc.timedelta", b"")
    data = pack_details(3, "no", [unknown, broken, odd])
    assert unpack_details(details_header(data)[1]) == (data, (unknown, broken, odd))


def test_whatever_comes_as_details_is_no_fault() -> None:
    """A server's bytes end nobody's connection."""
    chance = random.Random(1)
    own = [name for name in vars(rpc) if name[0].isupper()]
    theirs = ["Duration", "Timestamp", "Struct", "Value", "Any", "FieldMask", "Enum", "Field"]
    kinds = [f"google.rpc.{name}" for name in own] + [f"google.protobuf.{name}" for name in theirs]
    for _ in range(3000):
        packed = [
            Any_(chance.choice(["type.googleapis.com/", ""]) + chance.choice([*kinds, "x", "."]))
            for _ in range(chance.randrange(3))
        ]
        for one in packed:
            starts = [8, 10, 16, 18, 26, 0, 1, 127, 255, chance.randrange(256)]
            one.value = bytes(chance.choices(starts, k=chance.randrange(24)))
        data = bytearray(bytes(rpc.Status(code=3, details=packed)))
        if data and chance.random() < 0.3:
            data[chance.randrange(len(data))] = chance.randrange(256)
        unpack_details(details_header(bytes(data))[1])


def test_details_that_cannot_be_sent_are_refused() -> None:
    large = rpc.DebugInfo(detail="x" * 100_000)
    for detail in (large, "text", Update(topic="t")):
        with pytest.raises(InternalError):
            pack_details(3, "no", [detail])


# What is refused before it runs ------------------------------------------------------------------


class Wanted(pydantic.BaseModel):
    topics: list[Annotated[str, pydantic.Field(max_length=3)]]


async def test_a_check_refuses_requests(serve: Serve) -> None:
    def check(message: Any) -> None:
        if isinstance(message, SubscribeRequest):
            if "bad" in message.topics:
                raise ValueError("bad is not a topic")
            if "limit" in message.topics:
                raise LimitError("not so many")
            Wanted.model_validate({"topics": message.topics})

    streams = Streams()
    async with serve([streams, Writes()], check=check) as channel:
        error = await fails(channel, "bad")
        assert (error.status, error.message) == (Status.INVALID_ARGUMENT, "bad is not a topic")
        error = await fails(channel, "long:word")
        assert error.message == "topics.0: String should have at most 3 characters"
        violation = rpc.BadRequestFieldViolation(
            field="topics.0", description="String should have at most 3 characters"
        )
        assert error.detail(rpc.BadRequest) == rpc.BadRequest(field_violations=[violation])
        assert isinstance(await fails(channel, "limit"), LimitError)
        assert not streams.started
        assert (await publish(channel)).producer_sequence == 7


def test_a_generator_that_would_hold_up_the_loop_is_refused() -> None:
    class Blocking(Streams):
        def subscribe_to_updates(self, subscribe_request: SubscribeRequest) -> Any:
            yield Update()

    class Delegating(Streams):
        def subscribe_to_updates(self, subscribe_request: SubscribeRequest) -> Any:
            return super().subscribe_to_updates(subscribe_request)

    with pytest.raises(InvalidArgumentError, match=r"Blocking.subscribe_to_updates is a generator"):
        Service([Blocking()], StreamkitCodec(), TransportLimits())
    Service([Delegating()], StreamkitCodec(), TransportLimits()).close()


# What may be known ------------------------------------------------------------------------------


def test_what_runs_a_call_knows_no_carrier() -> None:
    """Neither HTTP/2 nor a door, however far the imports go."""
    parts = ("exchange", "context", "serving", "stream", "outcome", "replies", "checking")
    waiting = [f"streamkit.transport.server.{part}" for part in parts]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        path = Path(streamkit.__file__).parent.parent.joinpath(*name.split(".")).with_suffix(".py")
        if name in seen or not path.exists():
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                waiting += [str(node.module), *(f"{node.module}.{n.name}" for n in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
        imported = {part for part in waiting if part.split(".")[0] in ("h2", "hyperframe")}
        assert not imported, (name, imported)
    known = {name for name in seen if ".http2" in name or ".doors" in name}
    assert not known
    assert "streamkit.transport.grpc.metadata" in seen
