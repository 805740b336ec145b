"""A connection to JetStream: questions and answers, and a stream as it comes.

Of nats-py this uses the connection, subscriptions and requests alone: its own readers do not
survive every way in which a server can go.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from streamkit.background import all_ended
from streamkit.errors import StoreError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["Away", "JetStream", "Refused"]

_SECOND = 1_000_000_000  # JetStream counts in nanoseconds
_EXPIRES = 5
_SILENCE = 1.25
"""Seconds without a heartbeat, of which there are two in one, that a consumer is believed."""
_FIRST = 3.0
"""Seconds in which a consumer has to give what is known to be there."""
_ANSWER = 5.0
_SOON = 1.5
"""Seconds for what can be asked again: while a cluster has no leader nobody answers at all."""
_ASK_AGAIN = 0.4
_CONNECT = 3
_ATTEMPTS = 2
"""Of each server, at the start."""
_PAUSE = 0.2
_PENDING = 64 * 1024 * 1024
_AS_GIVEN = {"dont_randomize": True}

_logger = logging.getLogger("streamkit.journal")


class Away(StoreError):
    """JetStream does not answer now; it may again."""


class Refused(StoreError):
    """JetStream has answered that it cannot: with a status, and a number of its own."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"JetStream: {error.get('description', 'refused')}")
        self.code = int(error.get("code", 0))
        self.number = int(error.get("err_code", 0))


class JetStream:
    """One connection, made anew by itself after it broke. `url` is what may be shown of where."""

    def __init__(
        self, client: Client, servers: Sequence[str], url: str, connecting: dict[str, Any]
    ) -> None:
        self.client = client
        self._servers = servers
        self._url = url
        self._connecting = connecting
        self._heard: list[tuple[str, Callable[[Msg], Awaitable[None]]]] = []
        self._moving: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, servers: Sequence[str], url: str, **connecting: Any) -> JetStream:
        """Raises Away when nobody answers in a few attempts."""
        return cls(await _connected(servers, url, connecting), servers, url, connecting)

    def move(self) -> None:
        """Find another server in the background, because this one does not do what it should: it
        may be cut off from the others, or from here without knowing. The connection stays until
        there is a new one."""
        if self._moving is None or self._moving.done():
            self._moving = asyncio.get_running_loop().create_task(self._move())
            self._moving.add_done_callback(_told)

    async def _move(self) -> None:
        import nats.errors

        before = self.client
        url = before.connected_url
        last = "" if url is None else url.netloc
        order = sorted(self._servers, key=lambda server: (last in server, random.random()))
        try:
            client = await _connected(order, self._url, {**self._connecting, **_AS_GIVEN})
        except Away:
            return  # who notices that nothing is better asks again
        try:
            for inbox, answered in self._heard:
                await _hear(client, inbox, answered)
        except BaseException as error:
            await client.close()
            if isinstance(error, (nats.errors.Error, OSError)):
                return  # it went at once; who notices asks again
            raise
        self.client = client
        await _let_go(before)

    async def publish(self, subject: str, data: bytes, reply: str) -> None:
        """Send, without waiting for what is answered to `reply`. Raises Away."""
        import nats.errors

        try:
            await self.client.publish(subject, data, reply=reply)
        except (nats.errors.Error, OSError) as error:
            raise _away(self._url, error) from None

    async def hear(self, answered: Callable[[Msg], Awaitable[None]]) -> str:
        """A place for answers, and what is done with each."""
        inbox = self.client.new_inbox()
        await _hear(self.client, inbox, answered)
        self._heard.append((inbox, answered))
        return inbox

    async def info(self, stream: str, seconds: float = _ANSWER) -> dict[str, Any]:
        """What a stream is and holds. Raises Away or Refused."""
        return await self.api(f"STREAM.INFO.{stream}", {}, seconds)

    async def soon(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for something that may be done twice, again and again for a moment: there is an
        answer as soon as there is who can give it. Raises Away or Refused."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _SOON
        asked: set[asyncio.Task[dict[str, Any]]] = set()
        try:
            while (left := until - loop.time()) > 0:
                asked.add(loop.create_task(self.api(verb, body, left)))
                done, _ = await asyncio.wait(
                    asked, timeout=min(left, _ASK_AGAIN), return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    return done.pop().result()
            raise Away(f"the log at {self._url} does not answer")
        finally:
            await all_ended(asked)
            for one in asked:
                _ = one.cancelled() or one.exception()  # seen: one answer was enough

    async def api(
        self, verb: str, body: dict[str, Any], seconds: float = _ANSWER
    ) -> dict[str, Any]:
        """Ask JetStream for something. Raises Away or Refused."""
        return await self.ask(f"$JS.API.{verb}", json.dumps(body).encode(), seconds)

    async def ask(self, subject: str, data: bytes, seconds: float = _ANSWER) -> dict[str, Any]:
        """Send, and return the answer of JetStream. Raises Away or Refused."""
        import nats.errors

        try:
            reply = await self.client.request(subject, data, timeout=seconds)
            found: dict[str, Any] = json.loads(reply.data)
        except nats.errors.NoRespondersError:
            raise Away(
                f"nobody answers for JetStream at {self._url}",
                hint="switch it on: `jetstream { store_dir: ... }` in the servers' configuration",
            ) from None
        except (nats.errors.Error, OSError, ValueError, TimeoutError) as error:
            raise _away(self._url, error) from None
        if "error" in found:
            raise Refused(found["error"])
        return found

    async def close(self) -> None:
        """Never fails, also while there is nobody to say farewell to."""
        if self._moving is not None:
            await all_ended({self._moving})
        await _let_go(self.client)

    async def pulled(
        self, stream: str, start: int, batch: int, *, there: bool = False
    ) -> AsyncGenerator[list[tuple[int, Msg]], None]:
        """The messages of a stream from a place on, without a hole and without end, at most so many
        on their way. Raises Away when it falls silent, when what is known to be `there`, at that
        place, does not come soon, and when another one comes than the next: what a server sends to
        another one may be lost, and a consumer whose server was away begins where it once began."""
        import nats.errors

        client, loop = self.client, asyncio.get_running_loop()
        made = await self._consumer(stream, start)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{made}"
        waiting: deque[Msg] = deque()
        woken = asyncio.Event()

        async def arrived(message: Msg) -> None:
            waiting.append(message)
            woken.set()

        ask = json.dumps(
            {"batch": batch, "expires": _EXPIRES * _SECOND, "idle_heartbeat": _SECOND // 2}
        ).encode()
        inbox = client.new_inbox()
        subscription = await client.subscribe(
            inbox, cb=arrived, pending_msgs_limit=0, pending_bytes_limit=0
        )
        try:
            await client.publish(subject, ask, reply=inbox)
            left, following = batch, start
            first_until = loop.time() + _FIRST
            while True:
                found: list[tuple[int, Msg]] = []
                again = False
                while waiting and len(found) < batch:
                    message = waiting.popleft()
                    place = _place_of(message)
                    if place is not None:
                        if place != following:
                            raise Away(f"{stream} came with {place} in place of {following}")
                        following += 1
                        found.append((place, message))
                        left -= 1
                    elif (message.headers or {}).get("Status") != "100":
                        again = True  # the question is over: it expired, or was answered
                if again or left <= batch // 2:
                    await client.publish(subject, ask, reply=inbox)
                    left = batch if again else left + batch
                if found:
                    there = False
                    yield found
                elif not waiting:
                    woken.clear()
                    until = loop.time() + _SILENCE
                    async with asyncio.timeout_at(min(until, first_until) if there else until):
                        await woken.wait()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise _away(self._url, error) from None
        finally:
            with suppress(nats.errors.Error, OSError):  # what was read counts
                await subscription.unsubscribe()

    async def _consumer(self, stream: str, start: int) -> str:
        name = secrets.token_hex(8)  # so that it is one, however often it is asked for
        wanted = {
            "name": name,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start,
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30 * _SECOND,
        }
        body = {"stream_name": stream, "config": wanted}
        try:
            await self.soon(f"CONSUMER.CREATE.{stream}.{name}", body)
        except Refused as error:
            raise Away(error.message) from None
        return name


async def _connected(servers: Sequence[str], url: str, connecting: dict[str, Any]) -> Client:
    """Raises Away."""
    import nats
    import nats.errors

    async def quiet(error: Exception) -> None:
        """It would be printed; what does not work is told by who notices."""

    try:
        client = await nats.connect(
            list(servers),
            name="streamkit",
            connect_timeout=_CONNECT,
            max_reconnect_attempts=_ATTEMPTS,
            reconnect_time_wait=_PAUSE,
            allow_reconnect=True,
            error_cb=quiet,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=_PENDING,
            **connecting,
        )
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise _away(url, error) from None
    # The bound was for the first time: from now on it is to try for ever.
    client.options["max_reconnect_attempts"] = -1
    return client


async def _let_go(client: Client) -> None:
    import nats.errors

    if client.is_closed:
        return
    if not client.is_connected:
        # It would be written to what is gone, and the error keeps close() from ending its tasks.
        client._pending.clear()
        client._pending_data_size = 0
    with suppress(nats.errors.Error, OSError, TimeoutError):
        # What was written to a server that is not there is waited for by close() for minutes.
        async with asyncio.timeout(_SOON):
            await client.close()


async def _hear(client: Client, inbox: str, answered: Callable[[Msg], Awaitable[None]]) -> None:
    await client.subscribe(inbox, cb=answered, pending_msgs_limit=0, pending_bytes_limit=0)


def _told(moving: asyncio.Task[None]) -> None:
    error = None if moving.cancelled() else moving.exception()
    if error is not None:
        _logger.error("no other server of the log was found for a reason of ours", exc_info=error)


def _away(url: str, error: BaseException) -> Away:
    text = f"{error}".strip() or type(error).__name__
    return Away(f"the log at {url} does not answer: {text}")


def _place_of(message: Msg) -> int | None:
    """Where a message stands in its stream; None for what is none."""
    reply = message.reply or ""
    if not reply.startswith("$JS.ACK."):
        return None
    tokens = reply.split(".")
    # With the domain and the account in it, it is longer.
    return int(tokens[7] if len(tokens) >= 11 else tokens[5])
