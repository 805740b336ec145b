"""How a channel's calls are used: compressed, misused, and through stubs of both kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from grpclib.client import UnaryUnaryMethod
from grpclib.const import Cardinality
from grpclib.events import SendRequest, listen
from grpclib.exceptions import GRPCError

from streamkit.codec import StreamkitCodec
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
    StreamServiceBase,
    StreamServiceStub,
    SubscribeRequest,
    Update,
)
from streamkit.testing import InProcess
from streamkit.transport import Channel, GrpcServer, context
from streamkit.transport.client.addresses import Address, parse_target
from streamkit.transport.grpc.receive import Inflated
from tests.transport.client.around.service import SUBSCRIBE, WATCH, Call, Next, Service, watch
from tests.transport.client.conftest import NewChannel, Target
from tests.transport.inside import pool_of


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


async def test_the_trailers_of_a_grpclib_stream_come_after_what_was_not_read(
    connect: NewChannel,
) -> None:
    class Slow(StreamServiceBase):
        async def subscribe_to_updates(self, request: SubscribeRequest) -> AsyncIterator[Update]:
            for number in range(3):
                yield Update(message=str(number))
                await asyncio.sleep(0.02)
            context().set_trailing_metadata({"left": "yes"})

    channel = connect(InProcess([Slow()]))
    async with channel.request(
        SUBSCRIBE, Cardinality.UNARY_STREAM, SubscribeRequest, Update
    ) as stream:
        await stream.send_message(SubscribeRequest())
        await stream.recv_trailing_metadata()
        assert stream.trailing_metadata is not None
        assert stream.trailing_metadata["left"] == "yes"


async def test_interceptors_see_what_a_grpclib_stream_finds_when_it_is_left(
    connect: NewChannel, target: Target
) -> None:
    seen: list[str] = []

    async def interceptor(call: Call, call_next: Next) -> None:
        try:
            await call_next()
        except NotFoundError as error:
            seen.append(error.message)
            raise

    channel = connect(target, interceptors=[interceptor])
    with pytest.raises(NotFoundError):
        async with channel.request(
            WATCH, Cardinality.UNARY_UNARY, JobRequest, JobProgress
        ) as stream:
            await stream.send_message(JobRequest(job_id="unknown"))
    assert seen == ["no such job"]


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
