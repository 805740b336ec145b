"""The lifespan of a server and what runs beside its calls: in which order, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

import streamkit
from streamkit.errors import InternalError, PreconditionError
from streamkit.generated.streamservice import SubscribeRequest
from tests.transport.client.talk import AskStub, Talk

FAILED = "works, in the background, has failed: "


def told(events: list[str]) -> Callable[[streamkit.Server], Any]:
    @contextlib.asynccontextmanager
    async def lifespan(server: streamkit.Server) -> AsyncIterator[str]:
        events.append(f"begin, journal {server.journal is not None}")
        yield "pool"
        events.append(f"end, journal {server.journal is not None}")

    return lifespan


async def test_the_lifespan_lies_around_the_calls_and_inside_of_the_journal() -> None:
    events: list[str] = []

    async def works() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            events.append("work ends")

    class Seeing(Talk):
        async def metadata(self, stream: Any) -> None:
            events.append(f"call with {streamkit.context().state}")
            await super().metadata(stream)

    server = streamkit.Server(
        [Seeing()], journal=":memory:", port=0, lifespan=told(events), background=[works]
    )
    async with server, streamkit.Channel(server.address) as channel:
        await AskStub(channel).ask(SubscribeRequest())
    assert events == ["begin, journal True", "call with pool", "work ends", "end, journal True"]


async def test_a_lifespan_that_fails_leaves_no_port() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(_: streamkit.Server) -> AsyncIterator[None]:
        raise ValueError("no database")
        yield

    server = streamkit.Server([Talk()], port=0, lifespan=lifespan)
    with pytest.raises(PreconditionError, match=r"cannot begin: .*life\.py:\d+: ValueError: no da"):
        await server.start()
    assert server.connections == 0 and server.port == 0


async def _fail(when: asyncio.Event) -> None:
    await when.wait()
    raise ValueError("lost")


@pytest.mark.parametrize("served", [True, False])
async def test_what_fails_in_the_background_is_told_and_ends_the_server(
    served: bool, caplog: pytest.LogCaptureFixture
) -> None:
    now, live = asyncio.Event(), Talk()

    async def works() -> None:
        await _fail(now)

    server = streamkit.Server([live], port=0, grace=5, background=[works])
    caplog.set_level(logging.ERROR, "streamkit")
    with pytest.raises(InternalError, match=FAILED):
        async with server, streamkit.Channel(server.address) as channel:

            async def requests() -> AsyncIterator[SubscribeRequest]:
                yield SubscribeRequest()
                await asyncio.Event().wait()

            replies = AskStub(channel).chat(requests())
            await anext(replies)
            now.set()
            with pytest.raises(streamkit.StreamkitError) as ended:
                await anext(replies)
            assert ended.value.status is streamkit.Status.UNAVAILABLE
            if served:
                await server.serve()
    (record,) = (r for r in caplog.records if FAILED in r.getMessage())
    assert "test_server_life.py" in record.getMessage() and record.exc_info is None


async def test_work_that_a_lifespan_began_and_that_fails_at_once_stops_the_start() -> None:
    @contextlib.asynccontextmanager
    async def lifespan(server: streamkit.Server) -> AsyncIterator[None]:
        now = asyncio.Event()
        now.set()
        server.spawn(_fail(now))
        await asyncio.sleep(0)
        yield

    server = streamkit.Server([Talk()], port=0, lifespan=lifespan)
    with pytest.raises(InternalError, match="_fail, in the background"):
        await server.start()


async def test_work_may_end_and_may_stop_the_server() -> None:
    ended: list[int] = []

    def stopping(work: Callable[[], Coroutine[Any, Any, None]]) -> streamkit.Server:
        return streamkit.Server([Talk()], port=0, background=[work])

    async def ends() -> None:
        ended.append(1)

    async def stops() -> None:
        await server.stop()

    server = stopping(ends)
    async with server:
        while not ended:
            await asyncio.sleep(0)
    server = stopping(stops)
    await asyncio.wait_for(server.serve(), 20)


async def test_a_server_that_has_begun_takes_no_other_settings() -> None:
    server = streamkit.Server([Talk()], port=1)
    server.configure(port=0)
    async with server:
        assert server.port > 1
        with pytest.raises(PreconditionError):
            server.configure(port=2)
