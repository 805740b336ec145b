"""Requests that bring their own producers: in their order, and repeated they are stored once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamkit.errors import ConnectError, Status, error_from_status
from streamkit.generated.streamservice import WriteReply, WriteRequest
from streamkit.transport import ClientCall

__all__ = ["replay"]


async def replay(
    call: ClientCall[WriteRequest, WriteReply], requests: Sequence[WriteRequest]
) -> list[WriteReply]:
    """Send every request and return their replies.

    The first refusal is raised, and a lost connection: what was sent may be stored then, and after
    a cancellation. Nothing is lost or stored twice when all of it is sent again.
    """
    found: list[WriteReply] = []

    async def send() -> None:
        for request in requests:
            await call.send(request)
        await call.end()

    async with call:
        sending = asyncio.create_task(send())
        try:
            while replies := await call.receive():
                for reply in replies:
                    if reply.code:
                        raise error_from_status(Status(reply.code), reply.error)
                found += replies
            await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    if len(found) != len(requests):
        raise ConnectError("the server ended the stream before everything was stored")
    return found
