"""What the server offers to handlers: their context, interceptors, compression, listeners."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.const import Cardinality, Handler
from grpclib.const import Status as GrpclibStatus
from grpclib.exceptions import GRPCError, StreamTerminatedError

from streamkit.errors import AuthError, InvalidArgumentError, PreconditionError
from streamkit.generated.streamservice import PublishRequest, SubscribeRequest, Update, WriteReply
from streamkit.transport import Context, Framed, GrpcServer, context
from tests.transport.conftest import Dial, Serve
from tests.transport.raw import PUBLISH, SUBSCRIBE, WRITE, RawClient, message
from tests.transport.services import PlainCodec, Streams, Writes, ask


class Told(Streams):
    """Keeps the context of its calls."""

    contexts: list[Context]

    async def subscribe_to_updates(
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Update]:
        ctx = context()
        self.contexts = [ctx]
        ctx.set_initial_metadata({"x-initial": "1"})
        ctx.set_initial_metadata({"y-bin": b"\x01"})
        ctx.set_trailing_metadata([("x-trailing", "2"), ("x-trailing", "3")])
        yield Update(topic="t")
        with pytest.raises(PreconditionError):
            ctx.set_initial_metadata({"late": "1"})


async def test_the_context_of_a_call(serve: Serve, dial: Dial) -> None:
    told = Told()
    client = await dial(await serve(told))
    started = time.monotonic()
    stream = client.call(
        ask("x"), SUBSCRIBE, ("x-a", "1"), ("x-b-bin", "YQ"), ("grpc-timeout", "5S")
    )
    answer = await client.ended(stream)
    assert answer.status == 0
    assert answer.headers["x-initial"] == "1"
    assert answer.headers["y-bin"] == "AQ"
    assert answer.trailers["x-trailing"] == "3"
    (ctx,) = told.contexts
    assert ctx.method == SUBSCRIBE
    assert dict(ctx.metadata) == {"x-a": "1", "x-b-bin": b"a"}
    assert ctx.peer == f"ipv4:127.0.0.1:{client.writer.get_extra_info('sockname')[1]}"
    assert ctx.peer_certificate is None
    assert ctx.deadline is not None
    assert 4.5 < ctx.deadline - started < 5.1
    left = ctx.time_left()
    assert left is not None
    assert 0 < left < 5
    with pytest.raises(PreconditionError):
        context()


async def test_headers_can_be_sent_ahead(serve: Serve, dial: Dial) -> None:
    go = asyncio.Event()

    class Early(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Update]:
            ctx = context()
            assert ctx.time_left() is None
            ctx.set_initial_metadata({"streamkit-epoch": "e"})
            await ctx.send_initial_metadata()
            await go.wait()
            yield Update(topic="t")

    client = await dial(await serve(Early()))
    stream = client.call(ask("x"))
    await client.until(lambda: bool(client.answer(stream).headers))
    assert client.answer(stream).headers["streamkit-epoch"] == "e"
    assert not client.answer(stream).data
    go.set()
    assert len((await client.ended(stream)).messages) == 1


async def test_initial_metadata_of_a_call_that_fails(serve: Serve, dial: Dial) -> None:
    class Failing(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Update]:
            context().set_initial_metadata({"x": "1"})
            context().set_trailing_metadata({"y": "2"})
            raise InvalidArgumentError("no")
            yield Update()

    client = await dial(await serve(Failing()))
    answer = await client.ended(client.call(ask("x")))
    assert answer.headers["x"] == "1"
    assert answer.trailers["y"] == "2"
    assert answer.status == 3


async def test_cancellation_shows_in_the_context(serve: Serve, dial: Dial) -> None:
    seen: list[bool] = []

    class Watching(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Update]:
            ctx = context()
            yield Update()
            try:
                seen.append(ctx.cancelled)
                await asyncio.Event().wait()
            finally:
                seen.append(ctx.cancelled)

    client = await dial(await serve(Watching()))
    stream = client.call(ask("x"))
    await client.until(lambda: bool(client.answer(stream).data))
    client.send(client.rst(stream))
    assert await client.pong()
    assert seen == [False, True]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("test")


async def test_interceptors_are_an_onion_for_all_four_kinds(serve: Serve, dial: Dial) -> None:
    trace: list[str] = []

    async def outer(ctx: Context, call_next: Any) -> None:
        trace.append(f"> {ctx.method.rpartition('/')[2]}")
        VARIABLE.set("from outside")
        try:
            await call_next(ctx)
        finally:
            trace.append("<")

    async def inner(ctx: Context, call_next: Any) -> None:
        if "deny" in ctx.metadata:
            raise AuthError("not you")
        ctx.set_trailing_metadata({"x-inner": VARIABLE.get()})
        await call_next(ctx)

    class Single(Plain):
        async def Join(self, stream: Any) -> None:
            words = [m.value async for m in stream]
            await stream.send_message(StringValue(value=VARIABLE.get() + " " + "".join(words)))

    server = await serve(Streams(), Writes(), Single(), interceptors=[outer, inner])
    client = await dial(server)
    for path in (SUBSCRIBE, PUBLISH, WRITE, JOIN):
        body = ask("count:1") if path == SUBSCRIBE else b""
        answer = await client.ended(client.call(body, path))
        assert answer.status == 0, path
        assert answer.trailers["x-inner"] == "from outside"
        denied = await client.ended(client.call(body, path, ("deny", "1")))
        assert (denied.status, denied.message) == (7, "not you")
    assert trace.count("<") == 8
    assert trace[0] == "> SubscribeToUpdates"


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
            return
        if request.value == "cancel":
            await stream.cancel()
            return
        if request.value == "silent":
            return
        assert stream.deadline is None or stream.deadline.time_remaining() > 0
        assert stream.peer.addr()[0] == "127.0.0.1"
        await stream.send_initial_metadata(metadata={"agent": stream.user_agent or "none"})
        await stream.send_message(request)
        await stream.send_trailing_metadata(metadata={"seen": stream.metadata.get("x", "-")})

    def __mapping__(self) -> dict[str, Handler]:
        return {
            JOIN: Handler(self.Join, Cardinality.STREAM_UNARY, StringValue, StringValue),
            ECHO: Handler(self.Echo, Cardinality.UNARY_UNARY, StringValue, StringValue),
        }


async def test_handlers_written_for_grpclib(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(Plain()))

    async def echo(text: str) -> Any:
        payload = StringValue(value=text).SerializeToString()
        fields = (("x", "y"), ("user-agent", "me"), ("grpc-timeout", "5S"))
        return await client.ended(client.call(payload, ECHO, *fields))

    answer = await echo("hello")
    assert (answer.status, answer.headers["agent"], answer.trailers["seen"]) == (0, "me", "y")
    assert StringValue.FromString(answer.messages[0]).value == "hello"
    answer = await echo("error")
    assert (answer.status, answer.message) == (15, "lost")
    assert answer.trailers["grpc-status-details-bin"] == "ZGV0YWlscw"
    answer = await echo("status")
    assert (answer.status, answer.message, answer.trailers["k"]) == (10, "own", "v")
    assert (await echo("cancel")).reset == 8
    assert (await echo("silent")).status == 13
    head = client.headers(client.fields(JOIN))
    words = b"".join(message(StringValue(value=w).SerializeToString()) for w in ("a", "b", "c"))
    client.send(head, client.data(head.stream_id, words))
    answer = await client.ended(head.stream_id)
    assert StringValue.FromString(answer.messages[0]).value == "abc"


async def test_a_grpclib_handler_sees_the_end_of_its_stream(serve: Serve, dial: Dial) -> None:
    ended: list[BaseException] = []

    class Chatty(Plain):
        async def Echo(self, stream: Any) -> None:
            await stream.recv_message()
            try:
                while True:
                    await stream.send_message(StringValue(value="x" * 1000))
            except (StreamTerminatedError, asyncio.CancelledError) as error:
                ended.append(error)
                raise

        def __mapping__(self) -> dict[str, Handler]:
            return {ECHO: Handler(self.Echo, Cardinality.UNARY_STREAM, StringValue, StringValue)}

    client = await dial(await serve(Chatty()))
    stream = client.call(b"", ECHO)
    await client.until(lambda: bool(client.answer(stream).data))
    client.send(client.rst(stream))
    assert await client.pong()
    assert len(ended) == 1


async def test_framed_messages_go_out_as_they_are(serve: Serve, dial: Dial) -> None:
    contexts: list[Context] = []

    class Fan(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Any]:
            contexts.append(context())
            yield Framed(message(b"one") + message(b"two"), 2)
            yield Update(topic="three")
            yield Framed(b"", 0)
            yield Framed(message(b"x" * 300_000), 1)

    server = await serve(Fan())
    client = await dial(server, {4: 1 << 20})
    client.send(client.window(0, 1 << 20))
    answer = await client.ended(client.call(ask("x")))
    assert answer.messages[:2] == [b"one", b"two"]
    assert Update().parse(answer.messages[2]).topic == "three"
    assert answer.messages[3] == b"x" * 300_000
    assert [ctx.messages_sent for ctx in contexts] == [4]


async def test_responses_are_compressed_when_the_handler_asks(serve: Serve) -> None:
    class Packed(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Update]:
            ctx = context()
            yield_all = ctx.use_compression("gzip")
            yield Update(topic="t", message="x" * 10_000)
            ctx.compress = False
            yield Update(topic="u", message="x" * 100)
            ctx.compress = yield_all
            yield Update(topic="v", message="x" * 10_000)

    server = await serve(Packed())
    seen: list[bytes] = []
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        call = channel.unary_stream(SUBSCRIBE)(ask("x"), compression=grpc.Compression.Gzip)
        seen = [m async for m in call]
    assert [Update().parse(m).topic for m in seen] == ["t", "u", "v"]
    async with RawClient() as raw:
        await raw.connect(server.addresses[0])
        stream = raw.call(ask("x"), SUBSCRIBE, ("grpc-accept-encoding", "identity, gzip"))
        answer = await raw.ended(stream)
        assert answer.headers["grpc-encoding"] == "gzip"
        assert len(answer.data) < 500
        plain = await raw.ended(raw.call(ask("x")))
        assert "grpc-encoding" not in plain.headers
        assert plain.headers["grpc-accept-encoding"] == "identity,gzip,deflate"
        assert len(plain.data) > 20_000


async def test_several_listeners_and_a_unix_socket(tmp_path: Path, streams: Streams) -> None:
    server = GrpcServer([streams], codec=PlainCodec())
    path = str(tmp_path / "s")
    await server.start("127.0.0.1", 0)
    await server.start("127.0.0.1", 0)
    await server.start(path=path)
    assert len(server.addresses) == 3
    assert server.port == int(server.addresses[1].rpartition(":")[2])
    for address in server.addresses:
        async with RawClient() as client:
            await client.connect(address)
            assert len((await client.ended(client.call(ask("count:2")))).messages) == 2
    with pytest.raises(InvalidArgumentError):
        await server.start("localhost", 1, path=path)
    await server.close()
    assert not Path(path).exists()
    with pytest.raises(PreconditionError):
        await server.start()
    with pytest.raises(PreconditionError):
        _ = server.port


async def test_a_port_that_is_taken(streams: Streams) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = GrpcServer([streams], codec=PlainCodec())
        with pytest.raises(OSError):
            await server.start("127.0.0.1", taken.getsockname()[1])
        await server.close()


async def test_a_path_served_twice_is_refused() -> None:
    with pytest.raises(InvalidArgumentError):
        GrpcServer([Streams(), Streams()], codec=PlainCodec())


async def test_a_service_with_its_own_glue_keeps_it(serve: Serve, dial: Dial) -> None:
    used: list[str] = []

    class Own(Streams):
        async def _call_rpc_handler_server_stream(
            self, handler: Any, stream: Any, request: Any
        ) -> None:
            used.append("own")
            async for reply in handler(request):
                await stream.send_message(reply)

    client = await dial(await serve(Own()))
    assert len((await client.ended(client.call(ask("count:2")))).messages) == 2
    assert used == ["own"]


async def test_a_stub_that_is_not_implemented(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve())
    answer = await client.ended(client.call(b"", "/streamservice.StreamService/TailLogs"))
    assert answer.status == 12
    answer = await client.ended(client.call(b"", "/streamservice.ProducerService/ListJobs"))
    assert answer.status == 12


async def test_messages_that_are_ready_together_leave_together(serve: Serve, dial: Dial) -> None:
    class Ready(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Any]:
            for _ in range(500):
                yield b"encoded already"

    server = await serve(Ready())
    client = await dial(server, {4: 1 << 20})
    client.send(client.window(0, 1 << 20))
    assert await client.pong()
    (protocol,) = server._connections
    writes: list[int] = []
    transport = protocol.connection.transport
    original = transport.write

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

        def write(self, data: Any) -> None:
            writes.append(len(data))
            original(data)

    protocol.connection._transport = Counting()  # type: ignore[assignment]  # it passes all on
    answer = await client.ended(client.call(ask("x")))
    assert len(answer.messages) == 500
    assert len(writes) <= 3  # headers, 500 messages and trailers


async def test_a_message_leaves_when_the_source_waits(
    serve: Serve, dial: Dial, streams: Streams
) -> None:
    client = await dial(await serve())
    stream = client.call(ask("idle:now"))
    await client.until(lambda: bool(client.answer(stream).data))
    assert len(client.answer(stream).messages) == 1
    streams.release.set()
    assert len((await client.ended(stream)).messages) == 2


async def test_a_source_that_is_always_ready_lets_others_live(serve: Serve, dial: Dial) -> None:
    server = await serve()
    greedy = await dial(server, {4: 2**31 - 1})
    greedy._on_frame = lambda frame: None  # type: ignore[method-assign]  # deaf to what comes
    greedy.send(greedy.window(0, 2**31 - 65_536))
    greedy.call(ask("flood"))
    other = await dial(server)
    slowest = 0.0
    for _ in range(20):
        started = time.process_time()  # what the greedy one gets meanwhile; not the machine's own
        assert (await other.ended(other.call(ask("count:1")))).status == 0
        slowest = max(slowest, time.process_time() - started)
    assert slowest < 1.0


async def test_a_source_that_computes_lets_others_live(serve: Serve, dial: Dial) -> None:
    """Small messages that never fill the buffer, from a handler that never waits."""

    class Busy(Streams):
        made = 0

        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Any]:
            for _ in range(int(subscribe_request.topics[0])):
                self.made += 1
                time.sleep(0.001)
                yield b"small"

    service = Busy()
    server = await serve(service)
    busy = await dial(server)
    first = busy.call(ask("1000"))
    other = await dial(server)
    before = service.made
    assert (await other.ended(other.call(ask("0")))).status == 0
    assert service.made - before < 500
    assert not busy.answer(first).trailers
    assert len((await busy.ended(first)).messages) == 1000


async def test_a_unary_call_is_one_write_each_way(serve: Serve, dial: Dial) -> None:
    class Quick(Writes):
        async def publish(self, publish_request: PublishRequest) -> WriteReply:
            return WriteReply(producer_sequence=1)

    server = await serve(Quick())
    client = await dial(server)
    assert await client.pong()
    seen = len(client.frames)
    answer = await client.ended(client.call(b"", PUBLISH))
    assert answer.status == 0
    kinds = [type(f).__name__ for f in client.frames[seen:]]
    assert kinds == ["HeadersFrame", "DataFrame", "HeadersFrame"]


async def test_a_fault_while_writing_ends_its_connection_alone(
    serve: Serve, dial: Dial, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve()
    client = await dial(server)
    stream = client.call(ask("idle:x"))
    await client.until(lambda: bool(client.answer(stream).data))
    (protocol,) = server._connections

    def broken() -> bytearray:
        raise RuntimeError("a fault")

    monkeypatch.setattr(protocol.connection.h2, "take_output", broken)
    streams.release.set()
    await client.gone()
    async with asyncio.timeout(20):
        while server.calls:
            await asyncio.sleep(0)
    assert (await (other := await dial(server)).ended(other.call(ask("count:1")))).status == 0
