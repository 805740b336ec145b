"""Publishes that are made at once: one request, and each its own outcome."""

from __future__ import annotations

import asyncio
import time

import pytest

from streamkit.client import AsyncClient
from streamkit.client.writing.together import Together
from streamkit.errors import ConnectError, InvalidArgumentError, StreamkitError
from streamkit.generated.streamservice import Update
from streamkit.testing import FaultProxy
from streamkit.transport.grpc.deadline import Served
from tests.client.servers import QUICK, memory_server


class Store:
    """What updates are sent to; refuses those that say so."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.sequence = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, updates: list[Update]) -> list[int]:
        self.requests.append([update.message for update in updates])
        await self.gate.wait()
        if any(update.message == "bad" for update in updates):
            raise InvalidArgumentError("no")
        if any(update.message == "broken" for update in updates):
            raise ConnectError("lost")
        self.sequence += len(updates)
        return list(range(self.sequence - len(updates) + 1, self.sequence + 1))


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def together(store: Store) -> Together:
    return Together(store.send, asyncio.get_running_loop())


async def publish(together: Together, *texts: str) -> list[int | BaseException]:
    waiting = [together.publish(Update(topic="t", message=text), len(text)) for text in texts]
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_publishes_of_one_turn_are_one_request(store: Store, together: Together) -> None:
    assert await publish(together, "a", "b", "c") == [1, 2, 3]
    assert await publish(together, "d") == [4]
    assert store.requests == [["a", "b", "c"], ["d"]]
    many = [str(number) for number in range(1_500)]
    assert await publish(together, *many) == list(range(5, 1_505))
    assert list(map(len, store.requests[2:])) == [1_000, 500]
    await publish(together, *["x" * 100_000] * 5)
    assert list(map(len, store.requests[4:])) == [2, 2, 1]


async def test_what_is_refused_is_refused_alone(store: Store, together: Together) -> None:
    found = await publish(together, "a", "b", "bad", "c", "d", "e", "f", "g")
    assert isinstance(found.pop(2), InvalidArgumentError)
    assert found == list(range(1, 8))
    assert [request for request in store.requests if "bad" not in request] == [
        ["a", "b"],
        ["c"],
        ["d", "e", "f", "g"],
    ]


async def test_each_gets_an_error_of_its_own(store: Store, together: Together) -> None:
    one, other = await publish(together, "a", "broken")
    assert isinstance(one, ConnectError)
    assert isinstance(other, ConnectError)
    assert (one.message, other.message) == ("lost", "lost")
    assert one is not other
    assert len(store.requests) == 1  # nobody knows whether it was stored


@pytest.mark.parametrize("given_up", [0, 1])
async def test_one_that_is_cancelled_takes_no_other_with_it(
    store: Store, together: Together, given_up: int
) -> None:
    tasks = [asyncio.create_task(publish(together, text)) for text in "abc"]
    await asyncio.sleep(0)  # each has begun, and none was sent
    tasks[given_up].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found.pop(given_up), asyncio.CancelledError)
    sent = [text for place, text in enumerate("abc") if place != given_up]
    assert found == [[1], [2]]
    assert store.requests == [sent]


async def test_closing_fails_what_is_on_its_way(store: Store, together: Together) -> None:
    store.gate.clear()
    waiting = asyncio.create_task(publish(together, "a", "b"))
    while not store.requests:
        await asyncio.sleep(0)
    await together.close()
    assert all(isinstance(error, ConnectError) for error in await waiting)


async def test_a_client_publishes_at_once() -> None:
    async with memory_server() as address, AsyncClient(address, backoff=QUICK) as client:
        topics = ["t"] * 60
        topics[30] = "t." + "x" * 5_000  # longer than a name may be
        waiting = [client.publish(topic, str(n)) for n, topic in enumerate(topics)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(found.pop(30), StreamkitError)
        assert found == list(range(1, 60))
    with pytest.raises(ConnectError, match="closed"):
        await client.publish("t", "late")


async def test_publishes_are_stored_once_over_a_break() -> None:
    async with (
        memory_server() as address,
        FaultProxy(address) as proxy,
        AsyncClient(proxy.address, backoff=QUICK) as client,
    ):
        await client.publish("t", "first")
        for _ in range(3):
            waiting = asyncio.gather(*(client.publish("t", str(n)) for n in range(50)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            proxy.cut()
            found = await waiting
            assert found == list(range(found[0], found[0] + 50))
        assert found[-1] == 151


async def test_a_handler_publishes_within_its_own_deadline(
    store: Store, together: Together
) -> None:
    """It is not joined with others, whose time is another."""

    async def serving() -> int:
        Served(time.monotonic() + 5)
        return await together.publish(Update(topic="t", message="own"), 3)

    await asyncio.gather(publish(together, "a"), serving(), publish(together, "b"))
    assert sorted(store.requests) == [["a", "b"], ["own"]]
