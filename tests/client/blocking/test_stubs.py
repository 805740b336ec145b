"""Generated stubs without an event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from streamkit.client.aio import AsyncClient
from streamkit.client.blocking.client import Client
from streamkit.errors import ConnectError, DeadlineError, InvalidArgumentError, NotFoundError
from streamkit.generated.streamservice import SubscribeRequest
from tests.client.servers import ThreadServer, memory_server
from tests.transport.client.talk import Talk, TalkStub, assert_left


@pytest.fixture(scope="module")
def talk() -> Talk:
    return Talk()


@pytest.fixture(scope="module")
def server(talk: Talk) -> Iterator[ThreadServer]:
    with ThreadServer(talk) as server:
        yield server


@pytest.fixture
def client(server: ThreadServer) -> Iterator[Client]:
    with Client(server.address) as client:
        yield client


def said(*words: str) -> Iterator[SubscribeRequest]:
    for word in words:
        yield SubscribeRequest(client_id=word)


def test_all_kinds_of_methods(client: Client) -> None:
    stub = client.stub(TalkStub, metadata={"x": "1"}, timeout=50)
    assert_left(stub.metadata(SubscribeRequest()).epoch, "1", 50)
    assert stub.metadata(SubscribeRequest(), metadata={"x": "2"}).epoch.startswith("2 ")
    assert stub.upload(said("a", "b")).producer_sequence == 2
    assert stub.upload([]).producer_sequence == 0
    assert [reply.producer_sequence for reply in stub.chat(said("a", "bc"))] == [1, 2]
    assert "chat" in dir(stub)
    for name in ("_unary_unary", "nothing"):
        with pytest.raises(AttributeError, match=name):
            getattr(stub, name)


def test_errors_reach_the_caller(client: Client) -> None:
    stub = client.stub(TalkStub)
    with pytest.raises(NotFoundError):
        stub.upload(said("no"))
    with pytest.raises(DeadlineError):
        stub.metadata(SubscribeRequest(), timeout=0)

    def broken() -> Iterator[SubscribeRequest]:
        yield SubscribeRequest(client_id="a")
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        stub.upload(broken())
    with pytest.raises(ValueError, match="mine"):
        list(stub.chat(broken()))


def test_requests_may_come_slowly(client: Client) -> None:
    """A source that blocks holds up nobody else."""
    stub = client.stub(TalkStub)
    go = threading.Event()

    def slow() -> Iterator[SubscribeRequest]:
        yield SubscribeRequest(client_id="a")
        assert go.wait(10)
        yield SubscribeRequest(client_id="bc")

    replies = stub.chat(slow())
    assert next(replies).producer_sequence == 1
    assert stub.metadata(SubscribeRequest()).epoch == " 0"
    go.set()
    assert [reply.producer_sequence for reply in replies] == [2]
    assert list(replies) == []


@pytest.mark.parametrize("how", ["close", "with", "drop"])
def test_leaving_replies_ends_their_call(how: str, client: Client, talk: Talk) -> None:
    stub = client.stub(TalkStub)
    go = threading.Event()

    def endless() -> Iterator[SubscribeRequest]:
        yield SubscribeRequest(client_id="a")
        go.wait(10)

    replies = stub.chat(endless())
    assert next(replies).producer_sequence == 1
    assert talk.running == 1
    if how == "close":
        replies.close()
    elif how == "with":
        with replies:
            pass
    del replies
    until = time.monotonic() + 10
    while talk.running and time.monotonic() < until:
        time.sleep(0.005)
    go.set()
    assert talk.running == 0


def test_a_closed_client(server: ThreadServer) -> None:
    with Client(server.address) as client:
        stub = client.stub(TalkStub)
        assert stub.upload([]).producer_sequence == 0
    with pytest.raises(ConnectError, match="closed"):
        stub.upload([])


async def test_a_stub_of_an_async_client() -> None:
    async with (
        memory_server(Talk()) as address,
        AsyncClient(address, metadata={"x": "1"}) as client,
    ):
        stub = client.stub(TalkStub, timeout=50)
        assert_left((await stub.metadata(SubscribeRequest())).epoch, "1", 50)


def test_a_service_config_is_obeyed_without_an_event_loop() -> None:
    class Busy(Talk):
        calls = 0

        async def metadata(self, stream: Any) -> None:
            self.calls += 1
            if self.calls < 3:
                raise ConnectError("not yet")
            await super().metadata(stream)

    retry = {
        **{"maxAttempts": 3, "initialBackoff": "0.01s", "maxBackoff": "0.1s"},
        **{"backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]},
    }
    method = {"name": [{"service": "test.Talk"}], "timeout": "30s"}
    busy = Busy()
    with ThreadServer(busy) as server:
        with Client(server.address) as client, pytest.raises(ConnectError, match="not yet"):
            client.stub(TalkStub).metadata(SubscribeRequest())
        busy.calls = 0
        config = {"methodConfig": [method | {"retryPolicy": retry}]}
        with Client(server.address, service_config=config) as client:
            left = client.stub(TalkStub, metadata={"x": "1"}).metadata(SubscribeRequest()).epoch
            assert_left(left, "1", 30)
        assert busy.calls == 3


def test_what_is_wrong_with_a_service_config_is_told_at_once() -> None:
    with pytest.raises(InvalidArgumentError, match="retryPolic"):
        AsyncClient("x:1", service_config={"methodConfig": [{"retryPolic": {}}]})
