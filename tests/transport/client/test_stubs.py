"""The client half of generated stubs: every call ends, with everything that belongs to it."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpclib.client
import pytest
from grpclib.metadata import Deadline

from streamkit.errors import ConnectError, DeadlineError, EncodeError, NotFoundError, StreamkitError
from streamkit.generated.streamservice import SubscribeRequest, WriteReply
from streamkit.testing import InProcess
from streamkit.transport import Channel, GrpcServer
from tests.transport.client.around.service import Call, Next
from tests.transport.client.conftest import NewChannel
from tests.transport.client.talk import AskStub, Talk, TalkStub, assert_left


@pytest.fixture(params=["socket", "inproc"])
async def talk(request: Any, connect: NewChannel) -> AsyncIterator[tuple[Talk, Channel]]:
    handler = Talk()
    if request.param == "inproc":
        yield handler, connect(InProcess([handler]))
        return
    server = GrpcServer([handler])
    await server.start("127.0.0.1", 0)
    yield handler, connect(server.addresses[0])
    await server.close()


def said(*words: str) -> list[SubscribeRequest]:
    return [SubscribeRequest(client_id=word) for word in words]


class Source:
    """Requests that come to an end, or to a fault, or wait for ever."""

    def __init__(self, *words: str, fault: Exception | None = None, wait: bool = False) -> None:
        self.closed = asyncio.Event()
        self._words = words
        self._fault = fault
        self._wait = wait

    async def __call__(self) -> AsyncIterator[SubscribeRequest]:
        try:
            for request in said(*self._words):
                yield request
            if self._wait:
                await asyncio.Event().wait()
            if self._fault is not None:
                raise self._fault
        finally:
            self.closed.set()


async def settled(before: set[asyncio.Task[Any]]) -> bool:
    """Whether the tasks of before are left, after those that end have ended."""
    for _ in range(200):
        if asyncio.all_tasks() <= before:
            return True
        await asyncio.sleep(0.005)
    return False


async def test_requests_of_all_kinds(talk: tuple[Talk, Channel]) -> None:
    stub = TalkStub(talk[1])
    source = Source("a", "bc")
    assert (await stub.upload(source())).producer_sequence == 2
    assert source.closed.is_set()
    assert (await stub.upload(said("a"))).producer_sequence == 1
    assert (await stub.upload([])).producer_sequence == 0
    assert [r.producer_sequence async for r in stub.chat(said("a", "bc"))] == [1, 2]
    assert [r.producer_sequence async for r in stub.chat(Source("abc")())] == [3]
    assert [r.producer_sequence async for r in stub.chat([])] == []


async def test_a_fault_of_the_requests_is_the_callers(talk: tuple[Talk, Channel]) -> None:
    handler, channel = talk
    stub = TalkStub(channel)
    for source in (
        Source("a", fault=ValueError("mine")),
        Source(fault=ValueError("mine")),
    ):
        with pytest.raises(ValueError, match="mine"):
            await asyncio.wait_for(stub.upload(source()), 5)
        assert source.closed.is_set()
    seen = []
    with pytest.raises(ValueError, match="mine"):
        async with asyncio.timeout(5):
            async for reply in stub.chat(Source("a", fault=ValueError("mine"))()):
                seen.append(reply)  # noqa: PERF401  # those before the fault
    while handler.running:
        await asyncio.sleep(0.001)
    with pytest.raises(EncodeError):
        await stub.upload([SubscribeRequest(client_id=5)])  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ZeroDivisionError):
        await stub.upload(SubscribeRequest(client_id="a" * (1 // number)) for number in (1, 0))


async def test_a_reply_before_the_last_request_counts(talk: tuple[Talk, Channel]) -> None:
    stub = TalkStub(talk[1])
    await stub.upload([])  # the connection's own tasks are there now
    before = asyncio.all_tasks()
    source = Source("a", "enough", wait=True)
    reply = await asyncio.wait_for(stub.upload(source()), 5)
    assert reply.producer_sequence == 2
    assert source.closed.is_set()
    source = Source("a", "no", wait=True)
    with pytest.raises(NotFoundError):
        await asyncio.wait_for(stub.upload(source()), 5)
    assert source.closed.is_set()
    source = Source("a", "last", wait=True)
    replies = [r.producer_sequence async for r in stub.chat(source())]
    assert replies == [1, 4]
    assert source.closed.is_set()
    assert await settled(before)


async def test_leaving_a_chat_ends_it(talk: tuple[Talk, Channel]) -> None:
    """By closing it, and by letting go of it."""
    handler, channel = talk
    stub = TalkStub(channel)
    await stub.upload([])  # the connection's own tasks are there now
    before = asyncio.all_tasks()
    for how in ("close", "drop", "cancel"):
        source = Source("a", wait=True)
        replies = stub.chat(source())
        if how == "cancel":

            async def read(replies: AsyncIterator[WriteReply] = replies) -> None:
                async for _ in replies:
                    pass

            task = asyncio.create_task(read())
            while not handler.running:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        else:
            assert (await anext(replies)).producer_sequence == 1
            if how == "close":
                await replies.aclose()  # type: ignore[attr-defined]  # a generator
            del replies
            gc.collect()
        while handler.running:
            await asyncio.sleep(0.001)
        await asyncio.wait_for(source.closed.wait(), 5)
        assert await settled({task for task in before if not task.done()})


async def test_what_fails_below_an_interceptor_reaches_the_caller(connect: NewChannel) -> None:
    """Also of a stream, whose call is left after it was never made."""

    async def through(call: Call, call_next: Next) -> None:
        await call_next()

    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{bound.getsockname()[1]}"
        stub = TalkStub(connect(target, interceptors=[through]))
        for _ in range(2):
            with pytest.raises(ConnectError, match="refused"):
                await anext(aiter(stub.chat(said("a"))))
            with pytest.raises(ConnectError, match="refused"):
                await stub.metadata(said("a")[0])


async def test_a_method_may_be_called_like_an_attribute(talk: tuple[Talk, Channel]) -> None:
    stub = TalkStub(talk[1], metadata={"x": "1"}, timeout=50)
    assert_left((await stub.metadata(SubscribeRequest())).epoch, "1", 50)
    assert (await stub.metadata(SubscribeRequest(), metadata={"x": "2"})).epoch.startswith("2 ")
    ask = AskStub(talk[1])
    assert (await ask.ask(SubscribeRequest())).epoch == " 0"
    ask.metadata = {"x": "3"}
    assert (await ask.ask(SubscribeRequest())).epoch == "3 0"
    reply = await ask.ask(SubscribeRequest(), deadline=Deadline.from_timeout(20), timeout=30)
    assert_left(reply.epoch, "3", 20)
    with pytest.raises(DeadlineError):
        await ask.ask(SubscribeRequest(), timeout=0)


async def test_a_stub_of_a_closed_channel(talk: tuple[Talk, Channel]) -> None:
    stub = TalkStub(talk[1])
    await talk[1].aclose()
    source = Source("a", wait=True)
    with pytest.raises(StreamkitError):
        await stub.upload(source())
    with pytest.raises(StreamkitError):
        async for _ in stub.chat(source()):
            pass


async def test_a_stub_on_a_channel_of_grpclib_is_betterprotos() -> None:
    handler = Talk()
    server = GrpcServer([handler])
    await server.start("127.0.0.1", 0)
    async with grpclib.client.Channel("127.0.0.1", server.port) as channel:
        stub = AskStub(channel)
        assert (await stub.upload(said("a", "b"))).producer_sequence == 2
        assert [r.producer_sequence async for r in stub.chat(said("a"))] == [1]
        ask = AskStub(channel, metadata={"x": "1"})
        assert (await ask.ask(SubscribeRequest())).epoch == "1 0"
    await server.close()
