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
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from streamkit.config import LogLimits
from streamkit.errors import PreconditionError, StoreError
from streamkit.journal.base import new_epoch
from streamkit.journal.replicated.jetstream import Away, JetStream, Refused
from streamkit.journal.replicated.log import ANSWER, Log, LogEntry, LogStatus, Snapshot
from streamkit.journal.replicated.monitor import check_synced

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

__all__ = ["NatsLog"]

_LEVEL = "1"
"""Of the stream. A server that meets another one has to be replaced first."""
_OLDEST = (2, 12)
_AT_ONCE = 64
_PARTS = 8
"""Parts of a snapshot on their way at once: they are large."""
_SILENT_AT_MOST = 10
_MAKE = 30.0
"""Seconds: of a cluster that has just begun, the first questions are not answered at all."""
_BACK = 5.0
"""Seconds: a new leader may not know all of its log at once."""
_BACK_OF_MANY = 25.0
"""A leader that was cut off from the others learns within 20 seconds that it is none, and says
until then where the log ended."""
_PATIENCE = 3.0
_PAUSE = 0.2
_LARGEST = LogLimits().largest + 4096
_TAKEN = 10058  # the number of "stream name already in use with a different configuration"
_NOT_FOUND = (10037, 10059)

_logger = logging.getLogger("streamkit.journal")


class NatsLog(Log):
    """The stream of this name. With a `monitor`, the port where the servers tell how they sync, it
    is checked that they do before they acknowledge; None: somebody has said that they need not.
    `patience`: seconds in which a server does nothing for the log until another one is asked."""

    def __init__(
        self,
        servers: Sequence[str],
        name: str,
        url: str,
        *,
        replicas: int = 0,
        monitor: int | None = 8222,
        patience: float = _PATIENCE,
        **connecting: Any,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", name):
            raise StoreError(
                f"a log cannot be called {name!r}", hint="take up to 32 letters, digits, - and _"
            )
        self._servers = list(servers)
        self._replicas = replicas or (3 if len(servers) >= 3 else 1)
        self._monitor = monitor
        self._patience = patience
        self._connecting = connecting
        self.name, self.url = name, url
        self.life = ""
        self._subject = f"sk.{name}"
        self._kept = f"{name}-snapshots"
        self._writing: JetStream | None = None
        self._reading: JetStream | None = None
        self._acks = ""
        self._told = ""
        self._refused = ""
        self._unheard: float | None = None
        """When the first entry was published to which nothing was answered."""
        self._read: int | None = None
        """The place of the last entry that was read, once `tail` is."""
        self._behind: tuple[int, float] | None = None
        """It, and since when there is more that does not come."""

    async def open(self) -> None:
        try:
            import nats  # noqa: F401  # only to see that it is there
        except ImportError:
            raise PreconditionError(
                "a store at nats:// needs nats-py: pip install 'streamkit-grpc[nats]'"
            ) from None
        self._writing = await JetStream.connect(self._servers, self.url, **self._connecting)
        self._reading = await JetStream.connect(self._servers, self.url, **self._connecting)
        self._check_server(self._writing.client)
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
        self._acks = await self._writing.hear(self._acknowledged)

    async def append(self, data: bytes) -> None:
        assert self._writing is not None
        now = asyncio.get_running_loop().time()
        if self._unheard is None:
            self._unheard = now
        elif now - self._unheard > self._patience:
            self._unheard = now
            self._writing.move()
        await self._writing.publish(self._subject, data, self._acks)

    async def tail(self, after: int) -> AsyncGenerator[Sequence[LogEntry], None]:
        place = self._read = after
        back_since: float | None = None
        away_since: float | None = None
        most = _BACK if len(self._servers) == 1 else _BACK_OF_MANY
        loop = asyncio.get_running_loop()
        while True:
            try:
                try:
                    await self._check(place)
                    back_since = None
                except _WentBack:
                    if back_since is None:
                        back_since = loop.time()
                    if loop.time() - back_since > most:
                        raise
                    await asyncio.sleep(_PAUSE)
                    continue
                async with aclosing(
                    self._jetstream.pulled(self.name, max(place, 1), _AT_ONCE, there=place > 0)
                ) as messages:
                    async for some in messages:
                        self._told, away_since = "", None
                        place = self._read = some[-1][0]
                        yield [LogEntry(number, message.data) for number, message in some]
            except Away as error:
                if error.message != self._told:
                    self._told = error.message
                    _logger.warning("%s; trying again", error.message)
                if away_since is None:
                    away_since = loop.time()
                elif loop.time() - away_since > self._patience:
                    away_since = loop.time()
                    self._jetstream.move()
                await asyncio.sleep(_PAUSE)

    async def status(self, within: float = ANSWER) -> LogStatus:
        info = await self._jetstream.info(self.name, within)
        state = info["state"]
        self._check_progress(state["last_seq"])
        notes = [self._refused] if self._refused else []
        for replica in info.get("cluster", {}).get("replicas") or ():
            if not replica.get("current") or replica.get("offline"):
                behind = replica.get("lag", 0)
                notes.append(f"the replica on {replica.get('name')} is {behind} entries behind")
        first, last = state["first_seq"], state["last_seq"]
        return LogStatus(first if state["messages"] else last + 1, last, state["bytes"], (*notes,))

    def _check_progress(self, last: int) -> None:
        """A replica that does not catch up gives signs of life and no entries: read elsewhere."""
        now = asyncio.get_running_loop().time()
        if self._read is None or self._read >= last:
            self._behind = None
        elif self._behind is None or self._behind[0] != self._read:
            self._behind = (self._read, now)
        elif now - self._behind[1] > self._patience:
            self._behind = None
            self._jetstream.move()

    async def trim(self, before: int) -> None:
        await self._jetstream.api(f"STREAM.PURGE.{self.name}", {"seq": before})

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
        await self._jetstream.api(f"STREAM.PURGE.{self._kept}", {"seq": first})

    async def get_snapshot(self, snapshot: Snapshot) -> AsyncGenerator[bytes, None]:
        first, parts = map(int, snapshot.name.split("-"))
        following = first
        silent = 0
        while following < first + parts:
            try:
                async with aclosing(
                    self._jetstream.pulled(self._kept, following, _PARTS)
                ) as messages:
                    async for some in messages:
                        silent = 0
                        for place, message in some:
                            if following <= place < first + parts:
                                following = place + 1
                                yield message.data
                        if following >= first + parts:
                            return
            except Away:
                silent += 1
                if silent > _SILENT_AT_MOST:
                    raise

    async def _manifest(self) -> dict[str, Any] | None:
        wanted = {"last_by_subj": f"{self._subject}.snapshot"}
        try:
            found = await self._jetstream.api(f"STREAM.MSG.GET.{self._kept}", wanted)
        except Refused as error:
            if error.number in _NOT_FOUND:
                return None
            raise
        manifest: dict[str, Any] = json.loads(base64.b64decode(found["message"]["data"]))
        return manifest

    async def _published(self, subject: str, data: bytes) -> int:
        """Publish, and return the place once it is durable."""
        return int((await self._jetstream.ask(subject, data))["seq"])

    async def close(self) -> None:
        for connection in (self._writing, self._reading):
            if connection is not None:
                await connection.close()

    @property
    def _jetstream(self) -> JetStream:
        """To read, and to ask."""
        assert self._reading is not None, "the log was not opened"
        return self._reading

    # ---- making and checking ----

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
                info = await self._made_or_found(stream, whole)
                break
            except Refused as error:
                if loop.time() > until or len(self._servers) == 1:
                    raise
                # What somebody else is making just now is taken, but not there yet.
                if error.code < 500 and error.number not in _NOT_FOUND:
                    raise
            except Away:
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

    async def _made_or_found(self, stream: str, config: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._jetstream.api(f"STREAM.CREATE.{stream}", config)
        except Refused as error:
            if error.number != _TAKEN:
                raise
            return await self._jetstream.info(stream)

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
            info = await self._jetstream.soon(f"STREAM.INFO.{self.name}", {})
        except Refused as error:
            if error.number in _NOT_FOUND:
                raise _WentBack(f"the log {self.name} is gone: its stream was removed") from None
            raise Away(error.message) from None
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

    async def _acknowledged(self, message: Msg) -> None:
        refused, code = "", 503 if not message.data else 0
        if b'"error"' in message.data:
            with suppress(ValueError, LookupError):  # then it says no more than that
                error = json.loads(message.data)["error"]
                code = int(error.get("code", 0))
                refused = f"the log takes no more: {error['description']}"
        if code != 503:
            self._unheard = None
        elif self.on_missed is not None:  # nobody was there to take it
            self.on_missed()
        if refused and refused != self._refused:
            _logger.warning("%s", refused)
        self._refused = refused


class _WentBack(StoreError):
    """The log ends before what was read of it."""
