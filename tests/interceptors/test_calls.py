"""Who is connected: a hundred streams, one that has stalled, and one that is sent away."""

from __future__ import annotations

import asyncio

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
            async with asyncio.timeout(2):
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
