"""A service with all kinds of methods, and the stub that the plug-in would write for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import betterproto
from grpclib.const import Cardinality, Handler

from streamkit.errors import NotFoundError
from streamkit.generated.streamservice import SubscribeRequest, WriteReply
from streamkit.transport import context

UPLOAD, CHAT, METADATA = "/test.Talk/Upload", "/test.Talk/Chat", "/test.Talk/Metadata"


class Talk:
    """A reply to the end of the requests, or to each of them."""

    def __init__(self) -> None:
        self.running = 0

    async def upload(self, stream: Any) -> None:
        count = 0
        async for request in stream:
            count += 1
            if request.client_id == "enough":
                break
            if request.client_id == "no":
                raise NotFoundError("no")
        await stream.send_message(WriteReply(producer_sequence=count))

    async def chat(self, stream: Any) -> None:
        self.running += 1
        try:
            async for request in stream:
                await stream.send_message(WriteReply(producer_sequence=len(request.client_id)))
                if request.client_id == "last":
                    return
        finally:
            self.running -= 1

    async def metadata(self, stream: Any) -> None:
        await stream.recv_message()
        left = context().time_left()
        text = str(context().metadata.get("x", "")) + f" {left or 0:.0f}"
        await stream.send_message(WriteReply(epoch=text))

    def __mapping__(self) -> dict[str, Handler]:
        kinds = Cardinality
        return {
            UPLOAD: Handler(self.upload, kinds.STREAM_UNARY, SubscribeRequest, WriteReply),
            CHAT: Handler(self.chat, kinds.STREAM_STREAM, SubscribeRequest, WriteReply),
            METADATA: Handler(self.metadata, kinds.UNARY_UNARY, SubscribeRequest, WriteReply),
        }


class AskStub(betterproto.ServiceStub):
    """As the plug-in writes it, but for a method that is called like an attribute."""

    async def ask(self, request: SubscribeRequest, **options: Any) -> WriteReply:
        return await self._unary_unary(METADATA, request, WriteReply, **options)

    async def upload(self, requests: Any, **options: Any) -> WriteReply:
        return await self._stream_unary(UPLOAD, requests, SubscribeRequest, WriteReply, **options)

    async def chat(self, requests: Any, **options: Any) -> AsyncIterator[WriteReply]:
        async for reply in self._stream_stream(
            CHAT, requests, SubscribeRequest, WriteReply, **options
        ):
            yield reply


class TalkStub(AskStub):
    """With that method."""

    async def metadata(  # type: ignore[override]  # that is the case
        self, request: SubscribeRequest, **options: Any
    ) -> WriteReply:
        return await self._unary_unary(METADATA, request, WriteReply, **options)


def assert_left(said: str, x: str, most: float) -> None:
    """What `metadata` says: the metadata x, and the seconds left, of which a busy machine takes."""
    got, left = said.split()
    assert got == x
    assert most - 15 < float(left) <= most
