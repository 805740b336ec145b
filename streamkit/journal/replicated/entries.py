"""What stands in the log: requests of one origin, and the little that servers agree on beside them.

An entry is `level, origin, number`, then for each request the lengths of two parts and the parts:
a head in JSON, and for what is written the very message of the wire. Everything that decides what
becomes of a request is in the entry, the time among it: whoever applies it gets the same.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from streamkit.codec import decode, encode
from streamkit.config import JournalOptions, Retention, RetentionRule
from streamkit.errors import EncodeError, InvalidArgumentError, StoreError, StreamkitError
from streamkit.generated.streamservice import WriteRequest
from streamkit.journal.base import ProducerId, Stream
from streamkit.journal.records.rows import item_from_row
from streamkit.journal.sqlite.requests import Append, AppendRun, Cancel, Report, Request

__all__ = [
    "Claim",
    "Leave",
    "Nudge",
    "Pass",
    "State",
    "packed",
    "read",
    "settings_of",
    "settled_options",
    "written",
]

LEVEL = 1
"""Of the form of entries. A server that meets a higher one has to be replaced first."""

_HEAD = struct.Struct(">B8sQ")
_LENGTHS = struct.Struct(">II")


class State(NamedTuple):
    """What a server has become by applying the log up to a place: the same on all of them."""

    place: int
    chain: str
    following: tuple[int, ...]
    """The next sequence of each stream."""


@dataclass(slots=True, kw_only=True)
class Claim(Request):
    """Somebody wants the lease of a term; the first in the log gets it. Its settings hold then."""

    term: int
    settings: str


@dataclass(slots=True, kw_only=True)
class Pass(Request):
    """Time passed, says who has the lease: these workers were silent (job, seconds, when it was
    last heard), and ages are counted to `aged`. The result: whether to come again at once."""

    term: int
    aged: datetime
    lapses: Sequence[tuple[str, float, str]]
    state: State | None
    """Of the holder, for the others to compare with."""


@dataclass(slots=True, kw_only=True)
class Leave(Request):
    """The holder gives its lease back."""

    term: int


@dataclass(slots=True, kw_only=True)
class Nudge(Request):
    """Somebody does not want to wait for the next `Pass`."""


def packed(request: Request) -> bytes:
    """A request as part of an entry. Raises InvalidArgumentError for what cannot be one."""
    now = request.now.isoformat()
    body = b""
    head: list[Any]
    try:
        match request:
            case Append(stream=Stream.UPDATES):
                head = ["A", now, "updates", request.producer]
                body = encode(WriteRequest(updates=list(request.messages)))
            case Append():
                head = ["A", now, "logs", request.producer]
                body = encode(WriteRequest(logs=list(request.messages)))
            case AppendRun():
                head = ["M", now, request.stream.value, _runs(request.batches)]
                messages = [message for batch, _ in request.batches for message in batch]
                if request.made:  # elsewhere, where they were not known to go into a log
                    item = item_from_row[request.stream]
                    messages = [item(row).message for row in messages]
                if request.stream is Stream.UPDATES:
                    body = encode(WriteRequest(updates=messages))
                else:
                    body = encode(WriteRequest(logs=messages))
            case Report():
                head = ["R", now, request.create]
                body = encode(WriteRequest(jobs=list(request.reports)))
            case Cancel():
                head = ["C", now, request.job_id, request.reason]
            case Claim():
                head = ["L", now, request.term, request.settings]
            case Pass():
                aged = request.aged.isoformat()
                head = ["P", now, request.term, aged, list(request.lapses), request.state]
            case Leave():
                head = ["F", now, request.term]
            case Nudge():
                head = ["N", now]
            case _:
                raise TypeError(f"{type(request).__name__} has no place in a log")
        text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"text that is not valid Unicode cannot be stored: {error}"
        ) from None
    except EncodeError as error:
        raise InvalidArgumentError(error.message) from None
    return b"".join((_LENGTHS.pack(len(text), len(body)), text, body))


def written(origin: bytes, number: int, parts: Sequence[bytes]) -> bytes:
    """An entry of requests that are packed."""
    return b"".join((_HEAD.pack(LEVEL, origin, number), *parts))


def read(data: bytes, seen: float) -> tuple[bytes, int, list[Request]]:
    """Origin, number and requests of an entry; `seen` is when its reports are heard here. Raises
    StoreError for what this streamkit has not written."""
    try:
        level, origin, number = _HEAD.unpack_from(data)
        if level > LEVEL:
            raise StoreError(
                f"the log was written by a newer streamkit (form {level}, this one knows {LEVEL})",
                hint="upgrade this server",
            )
        found: list[Request] = []
        at = _HEAD.size
        while at < len(data):
            head_size, body_size = _LENGTHS.unpack_from(data, at)
            at += _LENGTHS.size
            head = json.loads(data[at : at + head_size])
            at += head_size
            found.append(_READERS[head[0]](head, data[at : at + body_size], seen))
            at += body_size
    except StoreError:
        raise
    except (StreamkitError, struct.error, ValueError, LookupError, TypeError) as error:
        raise StoreError(
            f"the log holds an entry that no streamkit has written: {error}",
            hint="give the store a log of its own",
        ) from None
    return origin, number, found


def _append(head: list[Any], body: bytes, seen: float) -> Append:
    _, now, name, producer = head
    message = decode(WriteRequest, body)
    stream = Stream(name)
    messages: Sequence[Any] = message.updates if stream is Stream.UPDATES else message.logs
    return Append(
        now=datetime.fromisoformat(now),
        records=len(messages),
        size=len(body),
        stream=stream,
        messages=messages,
        producer=None if producer is None else ProducerId(*producer),
    )


def _runs(batches: Sequence[tuple[Sequence[Any], ProducerId | None]]) -> list[list[Any]]:
    """Who sent which of the messages: name, number, records, and so many requests alike."""
    runs: list[list[Any]] = []
    for messages, producer in batches:
        name, number = producer or (None, 0)
        if runs:
            before = runs[-1]
            expected = before[1] + before[3] if name is not None else 0
            if [name, number, len(messages)] == [before[0], expected, before[2]]:
                before[3] += 1
                continue
        runs.append([name, number, len(messages), 1])
    return runs


def _append_run(head: list[Any], body: bytes, seen: float) -> AppendRun:
    _, now, stream, runs = head
    message = decode(WriteRequest, body)
    messages = message.updates if Stream(stream) is Stream.UPDATES else message.logs
    batches: list[tuple[Sequence[Any], ProducerId | None]] = []
    at = 0
    for name, number, count, requests in runs:
        for request in range(requests):
            producer = None if name is None else ProducerId(name, number + request)
            batches.append((messages[at : at + count], producer))
            at += count
    return AppendRun(
        now=datetime.fromisoformat(now),
        records=len(messages),
        size=len(body),
        stream=Stream(stream),
        batches=batches,
    )


def _report(head: list[Any], body: bytes, seen: float) -> Report:
    _, now, create = head
    reports = decode(WriteRequest, body).jobs
    return Report(
        now=datetime.fromisoformat(now),
        records=len(reports),
        size=len(body),
        reports=reports,
        create=create,
        seen=seen,
    )


def _cancel(head: list[Any], body: bytes, seen: float) -> Cancel:
    _, now, job_id, reason = head
    return Cancel(now=datetime.fromisoformat(now), job_id=job_id, reason=reason)


def _claim(head: list[Any], body: bytes, seen: float) -> Claim:
    _, now, term, settings = head
    return Claim(now=datetime.fromisoformat(now), term=term, settings=settings)


def _pass(head: list[Any], body: bytes, seen: float) -> Pass:
    _, now, term, aged, lapses, state = head
    return Pass(
        now=datetime.fromisoformat(now),
        term=term,
        aged=datetime.fromisoformat(aged),
        lapses=[tuple(lapse) for lapse in lapses],
        state=None if state is None else State(state[0], state[1], tuple(state[2])),
    )


def _leave(head: list[Any], body: bytes, seen: float) -> Leave:
    return Leave(now=datetime.fromisoformat(head[1]), term=head[2])


def _nudge(head: list[Any], body: bytes, seen: float) -> Nudge:
    return Nudge(now=datetime.fromisoformat(head[1]))


_READERS: dict[str, Callable[[list[Any], bytes, float], Request]] = {
    "A": _append,
    "M": _append_run,
    "R": _report,
    "C": _cancel,
    "L": _claim,
    "P": _pass,
    "F": _leave,
    "N": _nudge,
}


def settings_of(options: JournalOptions) -> str:
    """The options that decide what becomes of requests, as all servers are to have them."""
    return json.dumps(
        {
            "retention": asdict(options.retention),
            "remembered_bytes": options.remembered_bytes,
            "live_jobs": options.live_jobs,
        }
    )


def settled_options(text: str) -> dict[str, Any]:
    """The same, as what a store's options are to be replaced by."""
    found = json.loads(text)
    kept = found["retention"]
    rules = tuple(RetentionRule(**rule) for rule in kept.pop("rules"))
    return {**found, "retention": Retention(**kept, rules=rules)}
