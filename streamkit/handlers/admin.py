"""AdminService: what a person wants to know of a server before they use it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from streamkit.codec import decode, encode
from streamkit.database import Databases
from streamkit.errors import InvalidArgumentError, LimitError, NotFoundError
from streamkit.generated.streamservice import (
    AdminServiceBase,
    BackupChunk,
    BackupRequest,
    CallInfo,
    Column,
    DescribeTableRequest,
    KickCallRequest,
    ListCallsReply,
    ListCallsRequest,
    ListTablesReply,
    ListTablesRequest,
    Pruned,
    PruneReply,
    PruneRequest,
    ServerStatus,
    StatusRequest,
    StreamStatus,
    Table,
    TableSchema,
)
from streamkit.handlers.calls import LiveCalls, kick_call, list_calls, size_of
from streamkit.handlers.colleagues import Colleagues, merged_calls, workers_of
from streamkit.handlers.paging import page_of
from streamkit.handlers.queries import check_visible
from streamkit.handlers.validation import check_length
from streamkit.journal.base import Journal, Stream
from streamkit.rights import STORE, Action
from streamkit.terms import VERSION
from streamkit.transport import context

__all__ = ["AdminHandler"]

_CHUNK = 256 * 1024
_MAX_REASON = 500
_ENTRY_COST = 32
"""Bytes of an item of a list beside its texts."""


class AdminHandler(AdminServiceBase):
    """Describes the server. `uptime`, `connections` and `draining` are asked at every status;
    `calls` are those that run, listed and ended for administrators. `colleagues` are the other
    processes of the same server, whose calls and readers count with this one's; `answers` is what
    this one tells them, by the name of the question. `number` tells it from the others."""

    def __init__(
        self,
        *,
        journal: Journal,
        databases: Databases,
        calls: LiveCalls,
        uptime: Callable[[], float] = lambda: 0.0,
        connections: Callable[[], int] = lambda: 0,
        draining: Callable[[], bool] = lambda: False,
        colleagues: Colleagues | None = None,
        number: int = 0,
    ) -> None:
        self._journal = journal
        self._databases = databases
        self._uptime = uptime
        self._connections = connections
        self._draining = draining
        self._copying = False
        self._calls = calls
        self._colleagues = colleagues
        self._number = number
        self.answers: dict[str, Callable[[Any], Any]] = {
            "status": lambda _: self._own_status(),
            "calls": lambda token: encode(self._own_calls(ListCallsRequest(token))),
            "kick": self._own_kick,
        }

    async def get_status(self, status_request: StatusRequest) -> ServerStatus:
        call = context()
        own = self._own_status()
        told, owner = [own], None
        if self._colleagues is not None:
            told += await self._colleagues.others("status", None)
            owner = await self._colleagues.owner("status", None)
        # Where the data lies is for those who may read or run it.
        close = call.allows(Action.ADMIN) or call.allows(Action.QUERY, STORE)
        store = await self._journal.status()
        return ServerStatus(
            version=VERSION,
            uptime=timedelta(seconds=own["uptime"] if owner is None else owner["uptime"]),
            store=store.url if close else "",
            durability=store.durability,
            store_bytes=store.bytes,
            epoch=self._journal.epoch,
            streams=[self._stream_status(stream, told) for stream in Stream],
            databases=[n for n in self._databases.names if call.allows(Action.QUERY, n)],
            connections=sum(answer["connections"] for answer in told),
            draining=self._draining(),
            faults=list(store.faults) if close else [],
            now=datetime.now(UTC),
            workers=[] if owner is None else workers_of(owner, told),
        )

    def _own_status(self) -> dict[str, Any]:
        """Of this process alone."""
        return {
            "number": self._number,
            "uptime": self._uptime(),
            "connections": self._connections(),
            "calls": len(self._calls),
            "subscribers": {s.value: self._journal.subscribers(s) for s in Stream},
        }

    async def list_tables(self, list_tables_request: ListTablesRequest) -> ListTablesReply:
        name = list_tables_request.database
        check_visible(self._databases, name)
        tables, following = page_of(
            await self._databases.tables(name),
            list_tables_request.page_token,
            "tables",
            lambda table: len(table.name.encode()) + len(name) + _ENTRY_COST,
        )
        return ListTablesReply([Table(t.name, t.kind, name) for t in tables], following)

    async def list_calls(self, list_calls_request: ListCallsRequest) -> ListCallsReply:
        own = self._own_calls(list_calls_request)
        if self._colleagues is None:
            return own
        others = await self._colleagues.others("calls", list_calls_request.page_token)
        return merged_calls([own, *(decode(ListCallsReply, page) for page in others)], size_of)

    def _own_calls(self, request: ListCallsRequest) -> ListCallsReply:
        return list_calls(self._calls, self._journal, request)

    async def kick_call(self, kick_call_request: KickCallRequest) -> CallInfo:
        check_length(kick_call_request.reason, _MAX_REASON, "reason")
        try:
            return kick_call(self._calls, self._journal, kick_call_request)
        except NotFoundError:
            if self._colleagues is None:
                raise
            asked = (kick_call_request.id, kick_call_request.reason)
            for answer in await self._colleagues.others("kick", asked):
                if answer is not None:
                    return decode(CallInfo, answer)
            raise

    def _own_kick(self, asked: tuple[int, str]) -> bytes | None:
        try:
            return encode(kick_call(self._calls, self._journal, KickCallRequest(*asked)))
        except NotFoundError:
            return None

    async def backup(self, backup_request: BackupRequest) -> AsyncIterator[BackupChunk]:
        context().finite = True
        if self._copying:
            raise LimitError("a backup is being made already")
        self._copying = True
        try:
            with await self._journal.copy() as file:
                size = os.fstat(file.fileno()).st_size
                while data := await asyncio.to_thread(file.read, _CHUNK):
                    yield BackupChunk(data, size)
                    size = 0
        finally:
            self._copying = False

    async def prune(self, prune_request: PruneRequest) -> PruneReply:
        found = await self._journal.prune(dry_run=prune_request.dry_run)
        return PruneReply(
            [Pruned(each.stream.value, each.pattern, each.records, each.bytes) for each in found]
        )

    async def describe_table(self, describe_table_request: DescribeTableRequest) -> TableSchema:
        table = describe_table_request.table
        if not table:
            raise InvalidArgumentError("table must not be empty")
        check_visible(self._databases, describe_table_request.database)
        columns, following = page_of(
            await self._databases.describe(table, describe_table_request.database),
            describe_table_request.page_token,
            "columns",
            lambda column: len(column.name.encode()) + len(column.type.encode()) + _ENTRY_COST,
        )
        return TableSchema(table, [Column(c.name, c.type, c.nullable) for c in columns], following)

    def _stream_status(self, stream: Stream, told: list[dict[str, Any]]) -> StreamStatus:
        oldest, newest = self._journal.bounds(stream)
        subscribers = sum(answer["subscribers"][stream.value] for answer in told)
        return StreamStatus(stream.value, oldest, newest, subscribers)
