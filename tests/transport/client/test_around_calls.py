"""What goes around a call: interceptors, deadlines handed on, compression, stubs of both kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import pytest
import pytest_asyncio
from grpclib.client import UnaryUnaryMethod
from grpclib.const import Cardinality
from grpclib.events import SendRequest, listen
from grpclib.exceptions import GRPCError

from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.errors import (
    CallCancelledError,
    DeadlineError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    StreamkitError,
)
from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    LogEntry,
    LogRequest,
    StreamServiceBase,
    StreamServiceStub,
    SubscribeRequest,
    Update,
)
from streamkit.testing import InProcess
from streamkit.transport import Channel, ClientCall, GrpcServer, context
from streamkit.transport.client.addresses import Address, parse_target
from streamkit.transport.grpc.receive import Inflated
from tests.transport.client.conftest import NewChannel, Target
from tests.transport.inside import pool_of

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


@pytest.fixture
def service() -> Service:
    return Service()


@pytest_asyncio.fixture(params=["socket", "inproc"])
async def target(request: Any, service: Service) -> AsyncIterator[Target]:
    if request.param == "inproc":
        yield InProcess([service])
        return
    server = GrpcServer([service], codec=StreamkitCodec())
    await server.start("127.0.0.1", 0)
    yield f"127.0.0.1:{server.port}"
    await server.close()


async def watch(channel: Channel, job: str = "j", **settings: Any) -> JobProgress:
    return await channel.unary(WATCH, JobRequest(job_id=job), JobProgress, **settings)


# Interceptors -----------------------------------------------------------------------------------


async def test_interceptors_are_layers_around_all_kinds_of_calls(
    connect: NewChannel, target: Target
) -> None:
    seen: list[str] = []

    def layer(name: str) -> Any:
        async def interceptor(call: Call, call_next: Next) -> None:
            seen.append(f"{name} before {call.method.rpartition('/')[2]}")
            call.metadata["x-tag"] = f"{call.metadata.get('x-tag', '')}{name}"
            try:
                await call_next()
            finally:
                seen.append(f"{name} after {type(call.error).__name__}")

        return interceptor

    channel = connect(target, interceptors=[layer("a"), layer("b")])
    expected = ["a before WatchJobProgress", "b before WatchJobProgress"]
    expected += ["b after NoneType", "a after NoneType"]
    assert (await watch(channel)).status == "ab"
    assert seen == expected

    seen.clear()
    stub = StreamServiceStub(channel)
    assert [reply.status async for reply in stub.watch_job_progress(JobRequest())] == ["ab"]
    assert seen == expected

    seen.clear()
    async with channel.stream(WATCH, JobRequest, JobProgress) as call:
        assert seen == expected[:2]
        await call.send(JobRequest())
        await call.end()
        assert [reply.status async for reply in call] == ["ab"]
    assert seen == expected

    seen.clear()
    with pytest.raises(NotFoundError):
        await watch(channel, "unknown")
    assert seen[2:] == ["b after NotFoundError", "a after NotFoundError"]


async def test_an_interceptor_may_translate_and_refuse(connect: NewChannel, target: Target) -> None:
    async def translate(call: Call, call_next: Next) -> None:
        try:
            await call_next()
        except NotFoundError as error:
            raise InvalidArgumentError("wrong job") from error

    async def refuse(call: Call, call_next: Next) -> None:
        raise PreconditionError("not today")

    async def forget(call: Call, call_next: Next) -> None:
        return None

    async def swallow(call: Call, call_next: Next) -> None:
        try:
            await call_next()
        except NotFoundError:
            return

    async def twice(call: Call, call_next: Next) -> None:
        await call_next()
        await call_next()

    for interceptor, kind, words in (
        (translate, InvalidArgumentError, "wrong job"),
        (refuse, PreconditionError, "not today"),
        (forget, PreconditionError, "did not make the call"),
        (swallow, NotFoundError, "no such job"),
    ):
        channel = connect(target, interceptors=[interceptor])
        with pytest.raises(kind, match=words):
            await watch(channel, "unknown")
    with pytest.raises(PreconditionError, match="once"):
        await watch(connect(target, interceptors=[twice]))


async def test_an_interceptor_shares_context_and_cancellation(
    connect: NewChannel, target: Target, service: Service
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    ends: list[str] = []

    async def interceptor(call: Call, call_next: Next) -> None:
        variable.set("set")
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(5):
                await call_next()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    channel = connect(target, interceptors=[interceptor])

    async def listen_for_ever() -> None:
        async with channel.stream(
            SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest()
        ) as call:
            assert variable.get() == "set"
            while await call.receive():
                continue

    task = asyncio.create_task(listen_for_ever())
    while not service.running:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ends == ["cancelled"]
    while service.running:
        await asyncio.sleep(0.001)


async def test_a_timeout_of_an_interceptor_ends_the_call(
    connect: NewChannel, target: Target
) -> None:
    async def hasty(call: Call, call_next: Next) -> None:
        async with asyncio.timeout(0.05):
            await call_next()

    channel = connect(target, interceptors=[hasty])
    with pytest.raises(TimeoutError):
        async with channel.stream(
            SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest()
        ) as call:
            async for _ in call:
                continue
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


# Deadlines --------------------------------------------------------------------------------------


async def test_a_handlers_deadline_holds_for_the_calls_that_it_makes(
    connect: NewChannel, target: Target, service: Service
) -> None:
    service.downstream = channel = connect(target)

    async def left(own: str = "", **settings: Any) -> str:
        reply = await channel.unary(LOGS, LogRequest(service_name=own), LogEntry, **settings)
        return reply.message

    assert await left() == "none"
    assert 3 < float(await left(timeout=5)) <= 5
    assert 3 < float(await left("60", timeout=5)) <= 5
    assert 0.5 < float(await left("1", timeout=5)) <= 1


async def test_a_deadline_travels(connect: NewChannel, target: Target) -> None:
    channel = connect(target)
    for timeout in (0.5, 5.0, 50_000.0, 3e9):
        reply = await channel.unary(LOGS, LogRequest(lines=1), LogEntry, timeout=timeout)
        assert 0.5 * timeout < float(reply.message) <= timeout


async def test_an_ended_call_binds_nobody(
    connect: NewChannel, target: Target, service: Service
) -> None:
    """What a handler starts and leaves behind goes on after its deadline, in each way."""
    channel = connect(target)
    left: list[Any] = []

    class Starting(Service):
        async def tail_logs(self, request: LogRequest) -> AsyncIterator[LogEntry]:
            async def feed() -> int:
                async with channel.stream(
                    SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest()
                ) as call:
                    left.append(call)
                    count = 0
                    async for _ in call:
                        count += 1
                        if asyncio.get_running_loop().time() > started + 0.6:
                            break
                    return count

            async def later() -> JobProgress:
                await asyncio.sleep(0.4)
                return await watch(channel)

            left.extend([asyncio.create_task(feed()), asyncio.create_task(later())])
            call = channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest())
            await call.open()
            left.append(call)
            yield LogEntry(message="done")

    front = InProcess([Starting()])
    async with Channel("front", codec=StreamkitCodec(), carrier=front) as caller:
        started = asyncio.get_running_loop().time()
        await caller.unary(LOGS, LogRequest(), LogEntry, timeout=0.3)
        feed, later, call, *_ = left
        assert await feed > 0
        assert (await later).job_id == "j"
        assert isinstance(call, ClientCall)


async def test_an_inherited_deadline_ends_with_the_call_that_set_it(
    connect: NewChannel, target: Target
) -> None:
    """A call that was made in the handler's own task and outlives it here; what its server was told
    at the beginning cannot be taken back."""
    channel = connect(target)
    kept: list[Call] = []

    class Keeping(Service):
        async def tail_logs(self, request: LogRequest) -> AsyncIterator[LogEntry]:
            call = channel.stream(SUBSCRIBE, SubscribeRequest, Update, timeout=50)
            await call.open()
            kept.append(call)
            yield LogEntry(message="done")

    front = InProcess([Keeping()])
    async with Channel("front", codec=StreamkitCodec(), carrier=front) as caller:
        await caller.unary(LOGS, LogRequest(), LogEntry, timeout=5)
        while front.calls:
            await asyncio.sleep(0.001)
        (call,) = kept
        assert call.deadline is not None
        before = call.deadline
        call._expire()
        assert call.error is None
        assert call.deadline > before + 40
        await call.leave()


async def test_times_that_are_no_times(connect: NewChannel, target: Target) -> None:
    """The first call on a channel as well as later ones, and one that waits beside them."""
    channel = connect(target)
    beside = asyncio.create_task(watch(channel, timeout=30))
    assert (await watch(channel, timeout=float("inf"))).job_id == "j"
    assert (await beside).job_id == "j"
    for bad in (float("nan"), "soon"):
        with pytest.raises(InvalidArgumentError, match="number of seconds"):
            await watch(channel, timeout=bad)
    for late in (0, -1, float("-inf")):
        with pytest.raises(DeadlineError):
            await watch(channel, timeout=late)
    assert (await watch(channel, timeout=1e300)).job_id == "j"
    stub = StreamServiceStub(channel, timeout=float("inf"))
    assert [reply.job_id async for reply in stub.watch_job_progress(JobRequest(job_id="j"))]
    with pytest.raises(InvalidArgumentError, match="stall_timeout"):
        TransportLimits(stall_timeout=float("nan"))
    for name in ("connect_timeout", "keepalive"):
        with pytest.raises(InvalidArgumentError, match=name):
            connect(target, **{name: float("nan")})
        assert (await watch(connect(target, **{name: float("inf")}))).job_id == "j"


async def test_a_call_that_cannot_be_sent_is_alone_with_it(
    connect: NewChannel, target: Target
) -> None:
    channel = connect(target)
    for path in ("/a\udce4/b", "/a\r\n/b", "/\u00e4/b"):
        with pytest.raises(InvalidArgumentError, match="path"):
            await channel.unary(path, JobRequest(), JobProgress)
    broken = channel.stream(WATCH, JobRequest, JobProgress, request=JobRequest())

    def broken_headers(authority: str) -> Any:
        raise ZeroDivisionError

    broken._headers = broken_headers  # type: ignore[method-assign]  # what no caller can reach
    beside = asyncio.create_task(watch(channel, timeout=30))
    with pytest.raises(StreamkitError, match="cannot be sent"):
        await broken.open()
    assert (await beside).job_id == "j"


# Compression ------------------------------------------------------------------------------------


async def test_compression_is_the_calls_choice(connect: NewChannel, target: Target) -> None:
    plain, squeezing = connect(target), connect(target, compression="gzip")
    assert (await watch(plain)).current_step == "plain"
    assert (await watch(plain, compression="gzip")).current_step == "compressed"
    assert (await watch(squeezing)).current_step == "compressed"
    assert (await watch(squeezing, compression="")).current_step == "plain"
    with pytest.raises(InvalidArgumentError, match="compression"):
        connect(target, compression="zip9")


async def test_compressed_replies_are_flagged_one_by_one(connect: NewChannel) -> None:
    class Alternating(StreamServiceBase):
        async def subscribe_to_updates(self, request: SubscribeRequest) -> AsyncIterator[Update]:
            ctx = context()
            assert ctx.use_compression("gzip")
            for number in range(6):
                ctx.compress = number % 2 == 0
                yield Update(message="x" * 1000)

    flags: list[bool] = []

    class Noting(StreamkitCodec):
        def decode(self, data: bytes, message_type: Any) -> Any:
            flags.append(isinstance(data, Inflated))
            return super().decode(data, message_type)

    server = GrpcServer([Alternating()], codec=StreamkitCodec())
    await server.start("127.0.0.1", 0)
    async with (
        Channel(f"127.0.0.1:{server.port}", codec=Noting()) as channel,
        channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest()) as call,
    ):
        assert [update.message async for update in call] == ["x" * 1000] * 6
    assert flags == [True, False] * 3
    await server.close()


# Stubs and grpclib ------------------------------------------------------------------------------


async def test_a_stubs_failure_is_of_the_tree(connect: NewChannel, target: Target) -> None:
    stub = StreamServiceStub(connect(target))
    with pytest.raises(NotFoundError) as caught:
        async for _ in stub.watch_job_progress(JobRequest(job_id="unknown")):
            pass
    assert not isinstance(caught.value, GRPCError)
    with pytest.raises(DeadlineError):
        async for _ in stub.subscribe_to_updates(SubscribeRequest(), timeout=0.05):
            pass


async def test_leaving_a_stubs_stream_ends_it(
    connect: NewChannel, target: Target, service: Service
) -> None:
    stub = StreamServiceStub(connect(target))
    updates: Any = stub.subscribe_to_updates(SubscribeRequest())
    async with aclosing(updates):
        async for update in updates:
            if update.message == "3":
                break
    while service.running:
        await asyncio.sleep(0.001)


async def test_grpclib_stream_interface(connect: NewChannel, target: Target) -> None:
    channel = connect(target)
    async with channel.request(
        WATCH, Cardinality.UNARY_STREAM, JobRequest, JobProgress, metadata={"x-tag": "t"}
    ) as stream:
        await stream.send_request()
        await stream.send_message(JobRequest(job_id="j"))
        await stream.recv_initial_metadata()
        first = await stream.recv_message()
        assert first is not None
        assert (first.job_id, first.status) == ("j", "t")
        assert await stream.recv_message() is None
        assert stream.trailing_metadata is not None
        assert stream.trailing_metadata["left"] == "yes"
        assert stream.peer is not None
        assert stream.peer.addr() is not None
    async with channel.request(
        SUBSCRIBE, Cardinality.STREAM_STREAM, SubscribeRequest, Update
    ) as stream:
        await stream.send_message(SubscribeRequest(), end=True)
        await stream.recv_message()
        await stream.cancel()
        with pytest.raises(CallCancelledError):
            await stream.recv_message()


async def test_grpclib_methods_and_events(connect: NewChannel, target: Target) -> None:
    channel = connect(target)
    seen: list[str] = []

    async def sending(event: SendRequest) -> None:
        seen.append(event.method_name)
        event.metadata["x-tag"] = "event"

    listen(channel, SendRequest, sending)
    method = UnaryUnaryMethod(channel, WATCH, JobRequest, JobProgress)
    reply = await method(JobRequest(job_id="j"))
    assert (reply.job_id, reply.status) == ("j", "event")
    assert seen == [WATCH]
    with pytest.raises(NotFoundError):
        await method(JobRequest(job_id="unknown"))


# Use --------------------------------------------------------------------------------------------


async def test_metadata_that_cannot_be_sent_is_refused(connect: NewChannel, target: Target) -> None:
    channel = connect(target)
    for metadata in ({"grpc-status": "0"}, {"x": "line\nbreak"}, {"x-bin": "text"}, {"": "x"}):
        with pytest.raises(InvalidArgumentError, match="metadata"):
            await watch(channel, metadata=metadata)
    if isinstance(target, InProcess):
        assert target.calls == 0
    else:
        protocol = pool_of(channel).connection
        assert protocol is None or not protocol.processor.streams


async def test_a_call_that_is_not_made_yet(connect: NewChannel, target: Target) -> None:
    call = connect(target).stream(WATCH, JobRequest, JobProgress)
    with pytest.raises(PreconditionError, match="not been made"):
        await call.receive()
    assert call.error is None
    async with call:
        await call.end()
        with pytest.raises(StreamkitError):
            await call.reply()
    with pytest.raises(PreconditionError, match="once"):
        await call.open()


async def test_iterating_and_receiving_give_each_message_once(
    connect: NewChannel, target: Target
) -> None:
    channel = connect(target)
    found: list[str] = []
    async with channel.stream(
        SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest()
    ) as call:
        while len(found) < 50:
            await asyncio.sleep(0.005)
            found.append((await anext(call)).message)
            found += [update.message for update in await call.receive()]
    assert found == [str(number) for number in range(len(found))]


def test_targets() -> None:
    for target, host, port, path in (
        ("localhost:1", "localhost", 1, None),
        ("localhost", "localhost", 50051, None),
        ("[::1]:5", "::1", 5, None),
        ("::1", "::1", 50051, None),
        ("dns:///name:5", "name", 5, None),
        ("dns:name", "name", 50051, None),
        ("unix:/a/b", "", 50051, "/a/b"),
        ("unix:///a/b", "", 50051, "/a/b"),
    ):
        address = Address(target)
        assert (address.host, address.port, address.path) == (host, port, path)
        assert address.many == target.startswith("dns:")
    assert [a.target for a in parse_target("a:1, unix:/b")] == ["a:1", "unix:/b"]
    for target in ("host:abc", "host:70000", "unix:", "a:1,", "a:1,,b:2", "dns://8.8.8.8/name:5"):
        with pytest.raises(InvalidArgumentError):
            parse_target(target)
