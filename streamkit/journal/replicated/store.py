"""One server's copy: a store that is changed by the log alone.

An entry is applied in the transaction that notes its place, so a server that died goes on behind
exactly what it has. What an entry does depends on nothing but the entry and what was stored before
it. So a failure that is this server's own (its disk is full) must not be answered and passed over:
the store is broken then, and nothing is applied any more.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from streamkit.config import JournalOptions
from streamkit.errors import PreconditionError, StoreError
from streamkit.journal.base import Stream
from streamkit.journal.records import rows
from streamkit.journal.records.items import text_of
from streamkit.journal.replicated.entries import (
    Claim,
    Leave,
    Nudge,
    Pass,
    State,
    settings_of,
    settled_options,
)
from streamkit.journal.replicated.retention import ReplicaRetention
from streamkit.journal.rules.jobs import grown_old
from streamkit.journal.rules.reports import Settled
from streamkit.journal.sqlite.requests import AppendRun, Committed, Request
from streamkit.journal.sqlite.schema import store_error
from streamkit.journal.sqlite.store import Store

__all__ = ["Entered", "Overdue", "ReplicaStore", "Verdict", "place_in"]

_ORIGINS = 1000
"""Servers' lives whose last number is remembered: those that wrote last."""
_STEPS = 8
"""Of retention in one entry: more of them would keep what comes after it waiting."""
_OVERDUE_AT_ONCE = 1000

_TABLE = """
create table if not exists log_origins(
    origin text primary key,
    number integer not null,
    place integer not null
) without rowid
"""

_logger = logging.getLogger("streamkit.journal")


class Verdict(NamedTuple):
    """What became of an entry."""

    accepted: bool
    expected: int
    """The number that was the next one of its origin: a smaller one was there before, before a
    larger one something is missing."""
    holder: str
    """The origin that has the lease; empty: nobody."""
    term: int
    full: bool
    """Whether so much was stored since time passed that it should again."""
    state: State


@dataclass(slots=True, kw_only=True)
class Entered(Request):
    """An entry of the log, at its place, with the digests of the log before and up to it."""

    place: int
    before: str
    chain: str
    origin: str
    number: int
    requests: Sequence[Request]

    @property
    def passes(self) -> bool:
        """Whether it removes, which needs a transaction of its own."""
        return any(isinstance(request, Pass) for request in self.requests)


@dataclass(slots=True, kw_only=True)
class Overdue(Request):
    """Whose workers are silent, as far as this server has seen: for a `Pass`. Changes nothing."""

    seen: float


class ReplicaStore(Store):
    """A store that follows the log of one life. Raises StoreError for one that follows another."""

    def __init__(self, path: str, options: JournalOptions, *, life: str) -> None:
        super().__init__(path, options)
        try:
            self._connection.execute(_TABLE)
            self._check_life(life)
            self._read_place()
        except sqlite3.Error as error:
            self._connection.close()
            raise store_error(error) from None
        except BaseException:
            self._connection.close()
            raise
        self._broken: Exception | None = None

    def _check_life(self, life: str) -> None:
        execute = self._connection.execute
        row = execute("select value from meta where key = 'log.life'").fetchone()
        if row is None:
            if any(following > 1 for following in self.following.values()):
                raise StoreError(
                    "the local copy holds records that are not from this log",
                    hint="give another --data; `streamkit backup` makes a copy of what is there",
                )
            execute("insert into meta values('log.life', ?)", (life,))
        elif row[0] != life:
            raise StoreError(
                f"the local copy belongs to another log (life {row[0]}, this one is {life})",
                hint="give another --data; or, if that log is gone for good, remove this one",
            )

    def _read_place(self) -> None:
        execute = self._connection.execute
        known = dict(execute("select key, value from meta where key like 'log.%'").fetchall())
        self.place = int(known.get("log.place", 0))
        self.before = str(known.get("log.before", ""))
        self.chain = str(known.get("log.chain", ""))
        self.term = int(known.get("log.term", 0))
        self.holder = str(known.get("log.holder", ""))
        self._settings = str(known.get("log.settings", "")) or settings_of(self._options)
        self._jobs_bytes = int(known.get("log.jobs_bytes", 0))
        ruled = known.get("log.ruled")
        self._ruled = None if ruled is None else datetime.fromisoformat(ruled)
        self._origins: dict[str, int] = {}
        self._heard_from: dict[str, tuple[int, int]] = {}
        self._settle_options()

    def _settle_options(self) -> None:
        """Go by the settings that were agreed on last."""
        self._options = replace(self._options, **settled_options(self._settings))
        self._retention: ReplicaRetention = ReplicaRetention(
            self._connection,
            self._retention.path,
            self._options,
            self.oldest,
            self.following,
            self._sizes,
            remembered=self._remembered,
            jobs=self._jobs,
        )
        self._look_after = 0  # a commit begins no retention: only an entry does
        self._full_after = self._options.retention.max_bytes // 16

    # ---- one transaction ----

    def commit(self, requests: Sequence[Request]) -> list[Committed]:
        """Apply entries, and answer what else is asked, in order."""
        done: list[Committed] = []
        together: list[Request] = []
        for request in requests:
            if isinstance(request, Entered) and request.passes:
                if together:
                    done.append(self._commit(together))
                    together = []
                done.append(self._commit([request]))
            else:
                together.append(request)
        if together:
            done.append(self._commit(together))
        return done

    def _commit(self, requests: list[Request]) -> Committed:
        oldest = dict(self.oldest)
        for again in (True, False):
            if self._broken is not None:
                break
            try:
                return self._transact(requests)
            except Exception as error:  # this server's own: nothing may be left out here
                self.undo()
                self.oldest.update(oldest)
                self._read_place()
                if again:
                    self._make_room(error)
                    continue
                self._broken = error
                if not isinstance(error, sqlite3.Error):
                    _logger.exception("an entry of the log cannot be applied")
        for request in requests:
            request.result, request.error = None, _told(self._broken)
        return Committed(requests, {})

    def _transact(self, requests: list[Request]) -> Committed:
        execute = self._connection.execute
        place = self.place
        before = self._sizes.total()
        execute("begin immediate")
        for request in requests:
            request.result = self._apply(request)
        group = self._group
        self._put(group)
        if self.place == place:
            execute("rollback")  # nothing but questions
        else:
            self._put_place()
            execute("commit")
        self._unlooked += max(0, self._sizes.total() - before)
        self._heard_from = {}
        self._settle(group)
        return Committed(requests, group.items)

    def _put_place(self) -> None:
        execute = self._connection.execute
        for origin, (number, place) in self._heard_from.items():
            execute("insert or replace into log_origins values(?, ?, ?)", (origin, number, place))
        self._set({"log.place": self.place, "log.before": self.before, "log.chain": self.chain})

    def _set(self, values: dict[str, Any]) -> None:
        some = ", ".join(["(?, ?)"] * len(values))
        parameters = [part for item in values.items() for part in item]
        self._connection.execute(f"insert or replace into meta values {some}", parameters)

    # ---- an entry ----

    def _apply(self, request: Request) -> Any:
        match request:
            case Entered():
                return self._enter(request)
            case Overdue():
                return self._overdue(request)
        return super()._apply(request)

    def _enter(self, entry: Entered) -> Verdict:
        expected = self._expected(entry.origin)
        accepted = entry.number == expected
        if accepted:
            for request in entry.requests:
                request.result = request.error = None
                try:
                    request.result = self._obey(request, entry.origin)
                except sqlite3.Error:
                    raise
                except Exception as error:  # the asker's to see, and the same on every server
                    request.error = error
            self._origins[entry.origin] = entry.number
            self._heard_from[entry.origin] = (entry.number, entry.place)
        self.place, self.before, self.chain = entry.place, entry.before, entry.chain
        following = tuple(self.following[stream] for stream in Stream)
        full = bool(self._full_after) and self._unlooked > self._full_after
        state = State(self.place, self.chain, following)
        return Verdict(accepted, expected, self.holder, self.term, full, state)

    def _expected(self, origin: str) -> int:
        last = self._origins.get(origin)
        if last is None:
            row = self._connection.execute(
                "select number from log_origins where origin = ?", (origin,)
            ).fetchone()
            last = self._origins[origin] = 0 if row is None else row[0]
        return last + 1

    def _obey(self, request: Request, origin: str) -> Any:
        match request:
            case Claim():
                return self._give(request, origin)
            case Pass():
                self._check_lease(request.term, origin)
                return self._pass(request)
            case Leave():
                self._check_lease(request.term, origin)
                self.holder = ""
                self._set({"log.holder": ""})
                return None
            case Nudge():
                return None
        return super()._apply(request)

    def _give(self, claim: Claim, origin: str) -> bool:
        """The first that claims a term has it, and what it believed the settings to be."""
        if claim.term != self.term + 1:
            return False
        self.term, self.holder = claim.term, origin
        self._set({"log.term": self.term, "log.holder": origin, "log.settings": claim.settings})
        if claim.settings != self._settings:
            self._settings = claim.settings
            self._settle_options()
        return True

    def _check_lease(self, term: int, origin: str) -> None:
        if (term, origin) != (self.term, self.holder):
            raise PreconditionError("somebody else has the lease")

    # ---- what time brings ----

    def _overdue(self, request: Overdue) -> list[tuple[str, float, str]]:
        found = []
        for job_id, silence in self._silences.overdue(request.seen, _OVERDUE_AT_ONCE):
            job = self._job(job_id)
            if job is None:
                self._silences.forget(job_id)
            else:
                found.append((job_id, silence, text_of(job.reported_at)))
        return found

    def _pass(self, request: Pass) -> bool:
        for job_id, silence, heard in request.lapses:
            job = self._job(job_id)
            if job is not None and text_of(job.reported_at) == heard:  # not heard of since
                self._change(job, grown_old(job, request.now, silence))
        self._put(self._group)
        self._group.tables = {}
        ruled = self._retention.look_again(request.aged, self._ruled)
        more = True
        steps = 0
        while more and steps < _STEPS:
            more = self._retention.remove()
            steps += 1
        if not self._retention.ruling:
            self._ruled = ruled
        self._unlooked = 0
        self._jobs_bytes = self._sizes["jobs"]
        self._sizes.save()
        ruled_text = None if self._ruled is None else self._ruled.isoformat()
        self._set({"log.jobs_bytes": self._jobs_bytes, "log.ruled": ruled_text})
        self._connection.execute(
            "delete from log_origins where place <"
            " (select place from log_origins order by place desc limit 1 offset ?)",
            (_ORIGINS - 1,),
        )
        self._origins.clear()
        self.retaining = True  # what is free now may be given back
        return more or len(request.lapses) >= _OVERDUE_AT_ONCE

    def _append_apart(self, run: AppendRun) -> list[tuple[int, int] | Exception]:
        found: list[tuple[int, int] | Exception] = []
        for request in run.apart():
            try:
                stored = self._append(request)
                found.append((stored.first, stored.count))
            except sqlite3.Error:
                raise
            except Exception as error:  # the caller's to see; the others go on
                found.append(error)
        return found

    def retain(self) -> None:
        """Give back some space, which is this server's own affair."""
        try:
            self.retaining = self._retention.tidy()
        except sqlite3.Error:
            self.retaining = False

    def _jobs_size(self) -> int:
        return self._jobs_bytes  # of the last pass: the present one depends on what is committed

    def _note_heard(self, settled: Settled) -> None:
        """Stored, because it decides whether a worker that is said to be silent was."""
        changed = {id(job) for job in settled.events}
        new = [
            rows.job_row(job)
            for job in settled.states.values()
            if not job.ended and id(job) not in changed
        ]
        if new:
            self._group.add("jobs", new)


class Place(NamedTuple):
    """How far a store has come."""

    place: int
    before: str
    chain: str
    term: int
    holder: str


def place_in(connection: sqlite3.Connection) -> Place:
    """How far a store has come; nowhere for one that follows no log."""
    known = dict(
        connection.execute("select key, value from meta where key like 'log.%'").fetchall()
    )
    return Place(
        int(known.get("log.place", 0)),
        str(known.get("log.before", "")),
        str(known.get("log.chain", "")),
        int(known.get("log.term", 0)),
        str(known.get("log.holder", "")),
    )


def _told(error: Exception | None) -> Exception:
    if isinstance(error, sqlite3.Error):
        return store_error(error)
    return StoreError(f"the local copy cannot be written: {type(error).__name__}: {error}")
