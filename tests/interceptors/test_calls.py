"""Who is connected: a hundred streams, one that has stalled, and one that is sent away."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from streamkit.client import AsyncClient
from streamkit.errors import ConnectError, NotFoundError
from streamkit.generated.streamservice import SubscribeRequest, Update
from streamkit.testing import serve
from streamkit.transport import Channel

SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"


async def test_the_lag_of_a_stalled_stream_is_seen() -> None:
    async with serve() as address, AsyncClient(address) as client, Channel(address) as channel:
        streams = [client.subscribe(f"quiet.{number}") for number in range(100)]
        for stream in streams:
            await stream.__aenter__()
        stalled = channel.stream(
            SUBSCRIBE, SubscribeRequest, Update, request=SubscribeRequest(["loud"])
        )
        async with stalled:
            await stalled.initial_metadata()
            for _ in range(40):
                await client.publish("loud", "x" * 500_000)
            async with asyncio.timeout(20):
                while True:
                    calls = {call.resource: call for call in await client.calls()}
                    if calls["loud"].lag > 10:
                        break
                    await asyncio.sleep(0.05)
            assert len(calls) >= 102  # the hundred, the stalled one, and the look itself
            assert all(calls[f"quiet.{number}"].lag == 0 for number in range(100))
            assert calls["loud"].bytes_sent > 500_000
        for stream in streams:
            await stream.close()


async def test_a_kicked_client_stays_away() -> None:
    async with (
        serve() as address,
        AsyncClient(address) as client,
        AsyncClient(address) as other,
        other.subscribe("orders") as updates,
    ):
        [call] = [call for call in await client.calls() if call.resource == "orders"]
        ended = await client.kick(call.id, "enough")
        assert ended.id == call.id
        with pytest.raises(ConnectError, match="an administrator ended the call: enough"):
            await asyncio.wait_for(anext(aiter(updates)), 5)
        await asyncio.sleep(0.3)
        assert not [call for call in await client.calls() if call.resource == "orders"]
        with pytest.raises(NotFoundError):
            await client.kick(call.id)


async def test_pages_of_calls_have_each_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small call after one that did not fit any more waits for the next page, too."""
    monkeypatch.setattr("streamkit.handlers.calls.PAGE_BYTES", 1500)
    async with serve() as address, AsyncClient(address) as client, AsyncExitStack() as stack:
        topics = [f"{n}" + "x" * length for n, length in enumerate((200, 100, 240, 1, 240, 1, 240))]
        for topic in topics:
            await stack.enter_async_context(client.subscribe(topic))
        found = [call for call in await client.calls() if call.resource]
    assert "".join(call.resource[0] for call in found) == "0123456"
    assert [call.id for call in found] == sorted(call.id for call in found)
