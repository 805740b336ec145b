"""A log in NATS JetStream: one stream of one subject, synced to disk before it is acknowledged.

Entries are published without waiting for each: they are seen to be there when they come out of
`tail`, a pull consumer without acknowledgements that is made anew whenever it falls silent.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from streamkit.config import LogLimits
from streamkit.errors import PreconditionError, StoreError
from streamkit.journal.base import new_epoch
from streamkit.journal.replicated.log import Log, LogEntry, LogStatus, Snapshot
from streamkit.journal.replicated.monitor import check_synced

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["NatsLog"]

_LEVEL = "1"
"""Of the stream. A server that meets another one has to be replaced first."""
_OLDEST = (2, 12)
_SECOND = 1_000_000_000  # JetStream counts in nanoseconds
_AT_ONCE = 64
_EXPIRES = 5
_SILENCE = 1.25
"""Seconds without a heartbeat, of which there are two in one, that a consumer is believed."""
_ANSWER = 5.0
_CONNECT = 5.0
_MAKE = 30.0
"""Seconds: of a cluster that has just begun, the first questions are not answered at all."""
_BACK = 5.0
"""Seconds: a new leader may not know all of its log at once."""
_PAUSE = 0.2
_LARGEST = LogLimits().largest + 4096
_PENDING = 64 * 1024 * 1024
_TAKEN = 10058  # the number of "stream name already in use with a different configuration"
_NOT_FOUND = (10037, 10059)

_logger = logging.getLogger("streamkit.journal")


class _Away(StoreError):
    """JetStream does not answer now; it may again."""


class NatsLog(Log):
    """The stream of this name. With a `monitor`, the port where the servers tell how they sync, it
    is checked that they do before they acknowledge; None: somebody has said that they need not."""

    def __init__(
        self,
        servers: Sequence[str],
        name: str,
        url: str,
        *,
        replicas: int = 0,
        monitor: int | None = 8222,
        **connecting: Any,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
            raise StoreError(
                f"a log cannot be called {name!r}", hint="take up to 32 letters, digits, - and _"
            )
        self._servers = list(servers)
        self._replicas = replicas or (3 if len(servers) >= 3 else 1)
        self._monitor = monitor
        self._connecting = connecting
        self.name, self.url = name, url
        self.life = ""
        self._subject = f"sk.{name}"
        self._kept = f"{name}-snapshots"
        self._writing: Client | None = None
        self._reading: Client | None = None
        self._acks = ""
        self._told = ""
        self._refused = ""

    async def open(self) -> None:
        try:
            import nats  # noqa: F401  # only to see that it is there
        except ImportError:
            raise PreconditionError(
                "a store at nats:// needs nats-py: pip install 'streamkit-grpc[nats]'"
            ) from None
        self._writing = await self._connect()
        self._reading = await self._connect()
        self._check_server(self._writing)
        if self._monitor is not None:
            await check_synced(self._servers, self._monitor)
        info = await self._made(
            self.name,
            {
                "subjects": [self._subject],
                "deny_delete": True,
                "metadata": {"streamkit.life": new_epoch(), "streamkit.level": _LEVEL},
            },
        )
        self.life = self._life_of(info)
        self._acks = self._writing.new_inbox()
        await self._writing.subscribe(
            self._acks, cb=self._acknowledged, pending_msgs_limit=0, pending_bytes_limit=0
        )

    async def append(self, data: bytes) -> None:
        import nats.errors

        assert self._writing is not None
        try:
            await self._writing.publish(self._subject, data, reply=self._acks)
        except (nats.errors.Error, OSError) as error:
            raise self._away(error) from None

    async def tail(self, after: int) -> AsyncGenerator[Sequence[LogEntry], None]:
        place = after
        back_since: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            try:
                try:
                    await self._check(place)
                    back_since = None
                except _WentBack:
                    if back_since is None:
                        back_since = loop.time()
                    if loop.time() - back_since > _BACK:
                        raise
                    await asyncio.sleep(_PAUSE)
                    continue
                async with aclosing(self._pulled(self.name, max(place, 1))) as messages:
                    async for some in messages:
                        self._told = ""
                        place = some[-1][0]
                        yield [LogEntry(number, message.data) for number, message in some]
            except _Away as error:
                if error.message != self._told:
                    self._told = error.message
                    _logger.warning("%s; trying again", error.message)
                await asyncio.sleep(_PAUSE)

    async def status(self) -> LogStatus:
        info = await self._info(self.name)
        state = info["state"]
        notes = [self._refused] if self._refused else []
        for replica in info.get("cluster", {}).get("replicas") or ():
            if not replica.get("current") or replica.get("offline"):
                behind = replica.get("lag", 0)
                notes.append(f"the replica on {replica.get('name')} is {behind} entries behind")
        first, last = state["first_seq"], state["last_seq"]
        return LogStatus(first if state["messages"] else last + 1, last, state["bytes"], (*notes,))

    async def trim(self, before: int) -> None:
        await self._api(f"STREAM.PURGE.{self.name}", {"seq": before})

    # ---- snapshots ----

    async def snapshot(self) -> Snapshot | None:
        found = await self._manifest()
        if found is None:
            return None
        return Snapshot(
            place=found["place"],
            size=found["size"],
            digest=found["digest"],
            name=f"{found['first']}-{found['parts']}",
        )

    async def put_snapshot(self, snapshot: Snapshot, parts: AsyncIterator[bytes]) -> None:
        await self._made(
            self._kept, {"subjects": [f"{self._subject}.parts", f"{self._subject}.snapshot"]}
        )
        first = number = 0
        async for part in parts:
            placed = await self._published(f"{self._subject}.parts", part)
            first = first or placed
            number += 1
        manifest = {
            "place": snapshot.place,
            "size": snapshot.size,
            "digest": snapshot.digest,
            "first": first,
            "parts": number,
        }
        await self._published(f"{self._subject}.snapshot", json.dumps(manifest).encode())
        await self._api(f"STREAM.PURGE.{self._kept}", {"seq": first})

    async def get_snapshot(self, snapshot: Snapshot) -> AsyncGenerator[bytes, None]:
        first, left = map(int, snapshot.name.split("-"))
        async with aclosing(
            self._pulled(self._kept, first, filter_subject=f"{self._subject}.parts")
        ) as messages:
            async for some in messages:
                for _, message in some:
                    yield message.data
                    left -= 1
                    if not left:
                        return

    async def _manifest(self) -> dict[str, Any] | None:
        wanted = {"last_by_subj": f"{self._subject}.snapshot"}
        try:
            found = await self._api(f"STREAM.MSG.GET.{self._kept}", wanted)
        except _Refused as error:
            if error.number in _NOT_FOUND:
                return None
            raise
        manifest: dict[str, Any] = json.loads(base64.b64decode(found["message"]["data"]))
        return manifest

    async def _published(self, subject: str, data: bytes) -> int:
        """Publish, and return the place once it is durable."""
        found = await self._answer(subject, data)
        if "error" in found:
            raise StoreError(f"the log {self.name}: {found['error'].get('description')}")
        return int(found["seq"])

    async def close(self) -> None:
        for client in (self._writing, self._reading):
            if client is not None and not client.is_closed:
                await client.close()

    # ---- making and checking ----

    async def _connect(self) -> Client:
        import nats
        import nats.errors

        async def quiet(error: Exception) -> None:
            """It would be printed; what does not work is told by who notices."""

        try:
            async with asyncio.timeout(_CONNECT):  # it would try for ever
                return await nats.connect(
                    self._servers,
                    name="streamkit",
                    connect_timeout=5,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=_PAUSE,
                    allow_reconnect=True,
                    error_cb=quiet,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    pending_size=_PENDING,
                    **self._connecting,
                )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise self._away(error) from None

    def _check_server(self, client: Client) -> None:
        version = client.connected_server_version
        if (version.major, version.minor) < _OLDEST:
            raise StoreError(
                f"the NATS server at {self.url} is {version}: a log needs 2.12 or later",
                hint="upgrade it",
            )
        if client.max_payload < _LARGEST:
            raise StoreError(
                f"the NATS server at {self.url} takes messages of {client.max_payload} bytes: a log"
                f" needs {_LARGEST}",
                hint="set `max_payload: 8MB` in its configuration",
            )

    async def _made(self, stream: str, config: dict[str, Any]) -> dict[str, Any]:
        """A stream as it is, made if it is not there."""
        whole = {
            "name": stream,
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": self._replicas,
            "allow_direct": False,
            **config,
        }
        loop = asyncio.get_running_loop()
        until = loop.time() + _MAKE
        while True:
            try:
                info = await self._api(f"STREAM.CREATE.{stream}", whole)
                break
            except _Refused as error:
                if error.number == _TAKEN:
                    info = await self._info(stream)
                    break
                if loop.time() > until or error.code < 500 or len(self._servers) == 1:
                    raise
            except _Away:
                if loop.time() > until or len(self._servers) == 1:
                    raise
            await asyncio.sleep(_PAUSE)
        found = info["config"]
        if found.get("subjects") != config["subjects"] or found.get("storage") != "file":
            raise StoreError(
                f"the stream {stream} at {self.url} is no log of streamkit",
                hint="give the log another name: nats://.../NAME",
            )
        if found["num_replicas"] < self._replicas:
            raise StoreError(
                f"the stream {stream} has {found['num_replicas']} replicas, not"
                f" {self._replicas}: acknowledged writes would be lost with one machine",
                hint=f"`nats stream edit {stream} --replicas {self._replicas}`, or ?replicas="
                f"{found['num_replicas']}",
            )
        return info

    def _life_of(self, info: dict[str, Any]) -> str:
        metadata = info["config"].get("metadata") or {}
        life, level = metadata.get("streamkit.life"), metadata.get("streamkit.level")
        if not life:
            raise StoreError(
                f"the stream {self.name} at {self.url} is no log of streamkit",
                hint="give the log another name: nats://.../NAME",
            )
        if level != _LEVEL:
            raise StoreError(
                f"the log {self.name} is of a newer streamkit (level {level}, this one knows"
                f" {_LEVEL})",
                hint="upgrade this server",
            )
        return str(life)

    async def _check(self, place: int) -> None:
        """Raise StoreError unless the stream is the one that was read up to a place."""
        try:
            info = await self._info(self.name)
        except _Refused as error:
            if error.number in _NOT_FOUND:
                raise _WentBack(f"the log {self.name} is gone: its stream was removed") from None
            raise _Away(error.message) from None
        life, state = self._life_of(info), info["state"]
        if life != self.life:
            raise StoreError(
                f"the log {self.name} is another one now (life {life}, not {self.life})",
                hint="give this server an empty --data if that is right",
            )
        if state["last_seq"] < place:
            raise _WentBack(
                f"the log {self.name} went back: it ends at {state['last_seq']}, and this server"
                f" has applied {place}",
                hint="an older copy of its files was put back; see growing.md",
            )
        if place and state["first_seq"] > place:
            raise StoreError(
                f"the log {self.name} begins at {state['first_seq']} now, and this server has only"
                f" {place}",
                hint="start it again: it loads a snapshot",
            )

    # ---- talking ----

    async def _info(self, stream: str) -> dict[str, Any]:
        return await self._api(f"STREAM.INFO.{stream}", {})

    async def _api(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        found = await self._answer(f"$JS.API.{verb}", json.dumps(body).encode())
        if "error" in found:
            raise _Refused(self.name, found["error"])
        return found

    async def _answer(self, subject: str, data: bytes) -> dict[str, Any]:
        import nats.errors

        assert self._reading is not None
        try:
            reply = await self._reading.request(subject, data, timeout=_ANSWER)
            found: dict[str, Any] = json.loads(reply.data)
        except nats.errors.NoRespondersError:
            raise _Away(
                f"nobody answers for JetStream at {self.url}",
                hint="switch it on: `jetstream { store_dir: ... }` in the servers' configuration",
            ) from None
        except (nats.errors.Error, OSError, ValueError, TimeoutError) as error:
            raise self._away(error) from None
        return found

    async def _acknowledged(self, message: Msg) -> None:
        refused = ""
        if b'"error"' in message.data:
            with suppress(ValueError, LookupError):  # then it says no more than that
                refused = (
                    f"the log takes no more: {json.loads(message.data)['error']['description']}"
                )
        if refused and refused != self._refused:
            _logger.warning("%s", refused)
        self._refused = refused

    async def _pulled(
        self, stream: str, start: int, **config: Any
    ) -> AsyncGenerator[list[tuple[int, Msg]], None]:
        """The messages of a stream from a place on, without end. Raises _Away when it falls
        silent."""
        import nats.errors

        client = self._reading
        assert client is not None
        made = await self._consumer(stream, start, config)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{made}"
        waiting: deque[Msg] = deque()
        woken = asyncio.Event()

        async def arrived(message: Msg) -> None:
            waiting.append(message)
            woken.set()

        ask = json.dumps(
            {"batch": _AT_ONCE, "expires": _EXPIRES * _SECOND, "idle_heartbeat": _SECOND // 2}
        ).encode()
        inbox = client.new_inbox()
        subscription = await client.subscribe(
            inbox, cb=arrived, pending_msgs_limit=0, pending_bytes_limit=0
        )
        try:
            await client.publish(subject, ask, reply=inbox)
            left = _AT_ONCE
            while True:
                found: list[tuple[int, Msg]] = []
                again = False
                while waiting and len(found) < _AT_ONCE:
                    message = waiting.popleft()
                    place = _place_of(message)
                    if place is not None:
                        found.append((place, message))
                        left -= 1
                    elif (message.headers or {}).get("Status") != "100":
                        again = True  # the question is over: it expired, or was answered
                if again or left <= _AT_ONCE // 2:
                    await client.publish(subject, ask, reply=inbox)
                    left = _AT_ONCE if again else left + _AT_ONCE
                if found:
                    yield found
                elif not waiting:
                    woken.clear()
                    async with asyncio.timeout(_SILENCE):
                        await woken.wait()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise self._away(error) from None
        finally:
            with suppress(nats.errors.Error, OSError):  # what was read counts
                await subscription.unsubscribe()

    async def _consumer(self, stream: str, start: int, config: dict[str, Any]) -> str:
        wanted = {
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start,
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30 * _SECOND,
            **config,
        }
        body = {"stream_name": stream, "config": wanted}
        try:
            made = await self._api(f"CONSUMER.CREATE.{stream}", body)
        except _Refused as error:
            raise _Away(error.message) from None
        return str(made["name"])

    def _away(self, error: BaseException) -> _Away:
        text = f"{error}".strip() or type(error).__name__
        return _Away(f"the log at {self.url} does not answer: {text}")


class _WentBack(StoreError):
    """The log ends before what was read of it."""


class _Refused(StoreError):
    """JetStream has answered that it cannot."""

    def __init__(self, name: str, error: dict[str, Any]) -> None:
        super().__init__(f"the log {name}: {error.get('description', 'JetStream refused')}")
        self.code = int(error.get("code", 0))
        self.number = int(error.get("err_code", 0))


def _place_of(message: Msg) -> int | None:
    """Where a message stands in its stream; None for what is none."""
    reply = message.reply or ""
    if not reply.startswith("$JS.ACK."):
        return None
    tokens = reply.split(".")
    # With the domain and the account in it, it is longer.
    return int(tokens[7] if len(tokens) >= 11 else tokens[5])
