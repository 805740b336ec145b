"""gRPC's service config: deadlines, and retries of calls whose response has not begun."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamkit.errors import (
    ConnectError,
    DeadlineError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
)
from streamkit.generated.streamservice import (
    ProducerServiceBase,
    PublishRequest,
    StreamServiceBase,
    SubscribeRequest,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.testing import FaultProxy, InProcess
from streamkit.transport import Channel, GrpcServer, Servable, context
from streamkit.transport.client.service_config import Retrying, ServiceConfig
from tests.transport.client.conftest import NewChannel, Target
from tests.transport.client.raw_server import Peer, raw_server
from tests.transport.inside import pool_of

PUBLISH = "/streamservice.ProducerService/Publish"
WRITE = "/streamservice.ProducerService/Write"
SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"

POLICY: dict[str, Any] = {
    "maxAttempts": 4,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.02s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", 8],
}


def config(**more: Any) -> dict[str, Any]:
    return {"methodConfig": [{"name": [{}], "retryPolicy": POLICY}], **more}


class Failing(ProducerServiceBase):
    """Fails as often as it is told, and then answers."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.tried: list[str] = []

    def fail(self) -> None:
        self.tried.append(str(context().metadata.get("x", "")))
        if self.errors:
            raise self.errors.pop(0)

    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        self.fail()
        return WriteReply(producer_sequence=len(self.tried))

    async def write(
        self, write_request_iterator: AsyncIterator[WriteRequest]
    ) -> AsyncIterator[WriteReply]:
        count = 0
        async for _ in write_request_iterator:
            count += 1
        self.fail()
        yield WriteReply(producer_sequence=count)


class Watched(StreamServiceBase):
    """The same for a stream of replies, before the first and after it."""

    def __init__(self, failing: Failing) -> None:
        self.failing = failing

    async def subscribe_to_updates(
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Update]:
        if subscribe_request.client_id == "late":
            yield Update(message="0")
        self.failing.fail()
        for number in (1, 2):
            yield Update(message=str(number))


@pytest.fixture
def failing() -> Failing:
    return Failing()


@pytest.fixture(params=["socket", "inproc"])
async def target(request: Any, failing: Failing) -> AsyncIterator[Target]:
    handlers: list[Servable] = [failing, Watched(failing)]
    if request.param == "inproc":
        yield InProcess(handlers)
        return
    server = GrpcServer(handlers)
    await server.start("127.0.0.1", 0)
    yield server.addresses[0]
    await server.close()


async def publish(channel: Channel, **settings: Any) -> int:
    reply = await channel.unary(PUBLISH, PublishRequest(), WriteReply, **settings)
    return reply.producer_sequence


async def subscribe(channel: Channel, client: str = "") -> list[str]:
    request = SubscribeRequest(client_id=client)
    async with channel.stream(SUBSCRIBE, SubscribeRequest, Update, request=request) as call:
        return [update.message async for update in call]


async def test_a_call_is_tried_again(connect: NewChannel, target: Target, failing: Failing) -> None:
    channel = connect(target, service_config=json.dumps(config()))
    failing.errors = [ConnectError("a"), LimitError("b"), ConnectError("c")]
    assert await publish(channel, metadata={"x": "y"}) == 4
    assert failing.tried == ["y"] * 4
    failing.errors = [ConnectError("a")]
    assert await subscribe(channel) == ["1", "2"]
    failing.errors = [ConnectError("a")]
    async with channel.stream(WRITE, WriteRequest, WriteReply) as call:
        await call.send(WriteRequest())
        await call.send(WriteRequest())
        await call.end()
        assert (await call.reply()).producer_sequence == 2


async def test_what_is_not_tried_again(
    connect: NewChannel, target: Target, failing: Failing
) -> None:
    """Another status, one failure too many, a response that has begun, a request too large."""
    channel = connect(target, service_config=config())
    failing.errors = [NotFoundError("a")]
    with pytest.raises(NotFoundError):
        await publish(channel)
    failing.tried.clear()
    failing.errors = [ConnectError(str(number)) for number in range(10)]
    with pytest.raises(ConnectError, match="3"):
        await publish(channel)
    assert len(failing.tried) == 4
    failing.tried.clear()
    failing.errors = [ConnectError("late")]
    with pytest.raises(ConnectError, match="late"):
        await subscribe(channel, "late")
    assert len(failing.tried) == 1
    failing.tried.clear()
    failing.errors = [ConnectError("large")]
    with pytest.raises(ConnectError, match="large"):
        async with channel.stream(WRITE, WriteRequest, WriteReply) as call:
            for _ in range(10):
                await call.send(WriteRequest(updates=[Update(message="x" * 50_000)]))
            await call.end()
            await call.reply()
    assert len(failing.tried) == 1
    failing.errors = [ConnectError("a")]
    plain = connect(target)
    with pytest.raises(ConnectError):
        await publish(plain)


async def test_a_deadline_ends_the_trying(
    connect: NewChannel, target: Target, failing: Failing
) -> None:
    slow = POLICY | {"initialBackoff": "50s", "maxBackoff": "50s"}
    methods = [
        {"name": [{"service": "streamservice.ProducerService"}], "retryPolicy": slow},
        {
            "name": [{"service": "streamservice.ProducerService", "method": "Publish"}],
            "retryPolicy": slow,
            "timeout": "0.2s",
        },
    ]
    channel = connect(target, service_config={"methodConfig": methods})
    failing.errors = [ConnectError("a")]
    with pytest.raises(DeadlineError):
        await publish(channel, timeout=60)
    assert len(failing.tried) == 1
    failing.errors = [ConnectError("a")]
    task = asyncio.create_task(publish(channel, timeout=60))
    while len(failing.tried) < 2:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await channel.aclose()


async def test_a_connection_that_is_lost_or_refused(connect: NewChannel, failing: Failing) -> None:
    server = GrpcServer([failing])
    await server.start("127.0.0.1", 0)
    async with FaultProxy(server.addresses[0]) as proxy:
        slow = POLICY | {"initialBackoff": "0.3s", "maxBackoff": "0.3s", "maxAttempts": 5}
        methods = [{"name": [{}], "retryPolicy": slow}]
        channel = connect(proxy.address, service_config={"methodConfig": methods})
        await proxy.refuse()
        task = asyncio.create_task(publish(channel))
        await asyncio.sleep(0.1)
        await proxy.heal()
        assert await asyncio.wait_for(task, 10) == 1
        proxy.after(5, "cut")
        assert await asyncio.wait_for(publish(channel), 10) >= 2
        await channel.aclose()
    await server.close()


async def test_a_server_names_the_delay(connect: NewChannel) -> None:
    """As a number of milliseconds, or never; and is told how often the call was tried."""
    seen: list[str] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        for push_back in ("1", None, "-1"):
            stream = await peer.request()
            fields = peer.fields(stream)
            seen.append(fields.get("grpc-previous-rpc-attempts", "0"))
            trailers = [
                (":status", "200"),
                ("content-type", "application/grpc"),
                ("grpc-status", "14"),
                *([] if push_back is None else [("grpc-retry-pushback-ms", push_back)]),
            ]
            peer.send(peer.headers(stream, trailers, end=True))
        await peer.hang()

    slow = POLICY | {"initialBackoff": "0.01s", "maxBackoff": "50s"}
    methods = [{"name": [{}], "retryPolicy": slow}]
    async with raw_server(script) as server:
        channel = connect(server.target, service_config={"methodConfig": methods})
        with pytest.raises(ConnectError):
            await publish(channel, timeout=20)
        await channel.aclose()
    assert seen == ["0", "1", "2"]


async def test_an_answer_of_a_proxy_is_tried_again(connect: NewChannel) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        stream = await peer.request()
        peer.send(peer.headers(stream, [(":status", "503")]), peer.data(stream, b"busy", end=True))
        peer.answer(await peer.request(), bytes(WriteReply(producer_sequence=5)))
        await peer.hang()

    async with raw_server(script) as server:
        channel = connect(server.target, service_config=config())
        assert await publish(channel, timeout=20) == 5
        protocol = pool_of(channel).connection
        assert protocol is not None
        assert not protocol.processor.streams
        await channel.aclose()


def test_tokens_stop_a_channels_trying() -> None:
    parsed = ServiceConfig.parse(config(retryThrottling={"maxTokens": 4, "tokenRatio": 0.5}))
    error = ConnectError("a")

    def retrying() -> Retrying:
        found = parsed.retrying(parsed.of(PUBLISH))
        assert found is not None
        return found

    assert retrying().delay(error, None) is not None  # 3 are left
    assert retrying().delay(error, None) is None  # 2: no more than half
    retrying().succeeded()
    retrying().succeeded()
    retrying().succeeded()  # 3.5
    assert retrying().delay(error, None) is not None


def test_delays_grow_to_the_most() -> None:
    parsed = ServiceConfig.parse(config())
    policy = parsed.of(PUBLISH).policy
    assert policy is not None
    retrying = Retrying(policy, None, lambda low, high: high)
    delays = [retrying.delay(ConnectError("a"), None) for _ in range(4)]
    assert delays == [pytest.approx(0.012), pytest.approx(0.024), pytest.approx(0.024), None]


@pytest.mark.parametrize("push_back", ["-1", "", "soon", "1.5", "9" * 10, "9" * 5000, "\u0663"])
def test_a_delay_that_is_none_means_never(push_back: str) -> None:
    parsed = ServiceConfig.parse(config())
    retrying = parsed.retrying(parsed.of(PUBLISH))
    assert retrying is not None
    assert retrying.delay(ConnectError("a"), push_back) is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("{", "is no JSON"),
        ([], "is not an object"),
        ({"methodConfigs": []}, "methodConfigs is not known"),
        ({"methodConfig": {}}, "methodConfig is not a list"),
        ({"methodConfig": [{}]}, r"methodConfig\[0\].name is not a list"),
        ({"methodConfig": [{"name": [{"method": "M"}]}]}, "without a service"),
        ({"methodConfig": [{"name": [{}, {}]}]}, "was there before"),
        ({"methodConfig": [{"name": [{}], "timeout": 5}]}, "is not a duration"),
        ({"methodConfig": [{"name": [{}], "timeout": "0s"}]}, "is not a duration"),
        ({"methodConfig": [{"name": [{}], "waitForReady": True}]}, "is not supported"),
        ({"methodConfig": [{"name": [{}], "hedgingPolicy": {}}]}, "hedgingPolicy is not known"),
        (config(retryThrottling={"maxTokens": 0, "tokenRatio": 1}), "above 0"),
        (config(retryThrottling={"maxTokens": 1001, "tokenRatio": 1}), "over 1000"),
        *(
            ({"methodConfig": [{"name": [{}], "retryPolicy": POLICY | change}]}, words)
            for change, words in (
                ({"maxAttempts": 1}, "from 2 on"),
                ({"maxAttempts": True}, "from 2 on"),
                ({"initialBackoff": "soon"}, "is not a duration"),
                ({"backoffMultiplier": 0}, "above 0"),
                ({"retryableStatusCodes": []}, "no failures"),
                ({"retryableStatusCodes": ["OK"]}, "no failures"),
                ({"retryableStatusCodes": ["SAD"]}, "'SAD'"),
                ({"retryableStatusCodes": [99]}, "99"),
            )
        ),
    ],
)
def test_what_is_wrong_is_named(wrong: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        ServiceConfig.parse(wrong)


def test_the_nearest_name_holds() -> None:
    names = [{}, {"service": "a.B"}, {"service": "a.B", "method": "C"}]
    methods = [{"name": [name], "timeout": f"{n}s"} for n, name in enumerate(names, 1)]
    parsed = ServiceConfig.parse({"methodConfig": methods, "loadBalancingPolicy": "pick_first"})
    found = [parsed.of(path).timeout for path in ("/x/C", "/a.B/D", "/a.B/C")]
    assert found == [1, 2, 3]
    assert ServiceConfig.parse(None).of("/a.B/C").timeout is None
