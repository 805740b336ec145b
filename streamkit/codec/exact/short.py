"""Reading many short fields at once: the part of the exact decoder that a megabyte depends on.

Short fields that follow each other are split by one regular expression and sorted by field. Order
matters only within a field, within a oneof and among the unknown fields, and there it is kept. Then
each field takes all of its values together: of a singular number only the last one is read, texts
are checked and split as one text, equal messages are read once.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from streamkit.codec.exact.pieces import (
    BadElement,
    check_packed,
    copies_of,
    cut_between_fields,
    empty_of,
    ends_itself,
    has_mutable,
    payloads_of,
    split,
    texts_of,
)
from streamkit.codec.plan import MessagePlan
from streamkit.codec.wire.field import VARINT_KINDS, Field
from streamkit.codec.wire.runs import Runs, flat_run, pair, short, short_run
from streamkit.codec.wire.scan import Malformed, fixed_reader, varint, varint_at, varints
from streamkit.codec.wire.times import duration_from, timestamp_from
from streamkit.codec.wire.values import UNREAD, integers

__all__ = ["MERGED", "ShortFields", "State", "element"]

_SECONDS: Final = Field("seconds", 1, "int64")
_NANOS: Final = Field("nanos", 2, "int32")

MERGED: Final = frozenset({"message", "timestamp", "duration", "wrapper"})

_WORTH_IT: Final = 64
"""Bytes left from which on short fields are looked for."""
_ENOUGH: Final = 256
"""Bytes of one field, or of fields that nobody knows, that need no sorting."""
_CHUNK: Final = 1 << 14
"""Bytes that are sorted at a time, so that a later run of one field is not missed."""
_FEW: Final = 48
"""Bytes for which it is not worth while to sort."""


class State:
    """A message while it is read: its values, and the singular messages in it, read likewise."""

    __slots__ = ("chosen", "nested", "odd", "tried", "unknown", "values")

    def __init__(self, tried: bool = False) -> None:
        self.tried = tried  # whether the compiled decoder gave these bytes up
        self.values: dict[str, Any] = {}
        self.nested: dict[str, tuple[Field, State]] = {}
        self.unknown: list[bytes] = []
        self.odd: dict[tuple[int, bytes], bytes] = {}  # entries of maps that are unknown fields
        self.chosen: dict[str, str] = {}  # the member of each oneof that came last

    def choose(self, field: Field) -> None:
        """Let a oneof's member replace the others."""
        chosen = self.chosen.get(field.group, field.name)
        if chosen != field.name:
            self.values.pop(chosen, None)
            self.nested.pop(chosen, None)
        self.chosen[field.group] = field.name


class InOrder(Exception):
    """These fields have to be read one after the other. Nothing of them was read yet."""


class ShortFields(ABC):
    """What the decoder of single fields adds to read many."""

    _ready: Callable[[Any], MessagePlan]
    """From a class to its plan."""

    _compiled: Callable[[Any], Callable[..., Any]]
    """From a class to its compiled decoder's `scan`."""

    @abstractmethod
    def _read(
        self, field: Field, state: State, buf: bytes, at: int, end: int, depth: int
    ) -> None: ...

    @abstractmethod
    def _entry(
        self, field: Field, values: dict[str, Any], buf: bytes, at: int, end: int, depth: int
    ) -> bytes: ...

    @abstractmethod
    def _scalar(self, field: Field, buf: bytes, at: int, end: int) -> tuple[Any, int]: ...

    @abstractmethod
    def _whole(self, field: Field, raw: bytes, depth: int, tried: bool = False) -> Any: ...

    @abstractmethod
    def _one_by_one(
        self, runs: Runs, state: State, buf: bytes, at: int, end: int, depth: int
    ) -> int: ...

    def _short(self, runs: Runs, state: State, buf: bytes, at: int, end: int, depth: int) -> int:
        """Read the short fields at `at`, as many as there are, and return the offset behind."""
        while end - at >= _WORTH_IT:
            stop = runs.unknown(buf, at, end)
            if stop > at + _ENOUGH:
                state.unknown.append(buf[at:stop])
                at = stop
                continue
            if depth and buf[at] & 7 == 3:
                stop = runs.unknown(buf, at, end, groups=True)
                if stop > at + _ENOUGH and all(
                    map(ends_itself, set(short().findall(buf, at, stop)))
                ):
                    state.unknown.append(buf[at:stop])
                    at = stop
                    continue
            stop, last = runs.numbers(buf, at, end)
            if stop > at + _ENOUGH:
                for field, raw in last.items():
                    state.values[field.name] = self._scalar(field, raw, 0, len(raw))[0]
                at = stop
                continue
            tag = buf[at] if buf[at] < 128 else buf[at] + buf[at + 1] * 128 - 128
            known = runs.by_tag.get(tag)
            if known is not None:
                token, run = runs.same(known)
                found = run.match(buf, at, end)
                stop = at if found is None else found.end()
                if stop > at + _ENOUGH:
                    try:
                        self._lane(known, split(token, buf, at, stop), runs, state, depth)
                    except InOrder:
                        self._one_by_one(runs, state, buf, at, stop, depth)
                    at = stop
                    continue
            found = (short_run() if depth else flat_run()).match(buf, at, min(end, at + _CHUNK))
            stop = at if found is None else found.end()
            if stop - at < _FEW:
                return at
            try:
                self._sorted(short().findall(buf, at, stop), runs, state, depth)
            except InOrder:
                self._one_by_one(runs, state, buf, at, stop, depth)
            at = stop
        return at

    def _sorted(self, tokens: list[bytes], runs: Runs, state: State, depth: int) -> None:
        lanes = _Lanes(runs.by_tag)
        for token in tokens:
            head: Any = token[0]
            if head > 127:
                head = token[:2] if token[1] < 128 else _TAG.match(token)[0]  # type: ignore[index]  # matches
            lanes[head].append(token)
        if lanes.groups and not all(map(ends_itself, set(lanes.unknown))):
            raise InOrder
        # Maps come first: they are what may turn out to depend on the order.
        oneofs: dict[str, list[tuple[Field, list[bytes]]]] = {}
        for field, found in sorted(lanes.fields.values(), key=lambda one: one[0].kind != "map"):
            if field.group:
                oneofs.setdefault(field.group, []).append((field, found))
            else:
                self._lane(field, found, runs, state, depth)
        for members in oneofs.values():
            if len(members) == 1:
                self._lane(*members[0], runs, state, depth)
            else:
                self._members(members, tokens, runs, state, depth)
        if lanes.unknown:
            state.unknown.append(b"".join(lanes.unknown))

    def _members(
        self,
        members: list[tuple[Field, list[bytes]]],
        tokens: list[bytes],
        runs: Runs,
        state: State,
        depth: int,
    ) -> None:
        """Read fields of one oneof: the last one stays, the others have to be right."""
        heads = {varint(field.tag): field for field, _ in members}
        every = tuple(heads)
        last: Field | None = None
        together = 0
        for token in reversed(tokens):
            if token.startswith(every):
                field = next(field for head, field in heads.items() if token.startswith(head))
                last = last or field
                if field is not last:
                    break
                together += 1
        kept: list[bytes] = []
        for field, found in members:
            earlier = found
            if field is last:
                earlier, kept = found[:-together], found[-together:]
            else:
                state.choose(field)
            if earlier and not field.packable:
                self._lane(field, earlier, runs, State(), depth)
        assert last is not None
        self._lane(last, kept, runs, state, depth)

    def _lane(
        self, field: Field, tokens: list[bytes], runs: Runs, state: State, depth: int
    ) -> None:
        """Read all these values of one field."""
        if field.group:
            state.choose(field)
        values, kind, name = state.values, field.kind, field.name
        try:
            if field.repeated:
                found = values.setdefault(name, [])
                found += self._column(field, tokens, depth)
            elif field.packable:
                values[name] = self._scalar(field, tokens[-1], field.tag_size, len(tokens[-1]))[0]
            elif kind == "map":
                self._entries(field, payloads_of(field, tokens), runs, state, depth)
            elif kind in MERGED:
                self._merge(field, payloads_of(field, tokens), state, depth)
            else:
                values[name] = self._column(field, tokens, depth)[-1]
        except BadElement as bad:
            step = f"{name}[{len(values[name]) + bad.index}]" if field.repeated else name
            bad.path.append(step)
            raise
        except Malformed as bad:
            bad.path.append(element(field, values))
            raise

    def _column(self, field: Field, tokens: list[bytes], depth: int) -> Sequence[Any]:
        """The values of all these; `tokens` may have the tag of packed values, too."""
        if field.packable:
            return self._numbers(field, tokens)
        payloads = payloads_of(field, tokens)
        if field.kind == "string":
            return texts_of(payloads)
        if field.kind == "bytes":
            return payloads
        if field.kind == "message":
            return self._messages(field, payloads, depth)
        if not depth:
            raise Malformed("nested too deeply")
        different = list(dict.fromkeys(payloads))
        if len(different) <= len(payloads) // 4:
            try:
                values = self._values(field, different, depth)
            except BadElement as bad:
                bad.index = payloads.index(different[bad.index])
                raise
            return list(map(dict(zip(different, values, strict=True)).__getitem__, payloads))
        return self._values(field, payloads, depth)

    def _values(self, field: Field, payloads: list[bytes], depth: int) -> Sequence[Any]:
        """The values of messages that are shown as something else."""
        try:
            if field.kind == "wrapper":
                return self._pairs(field.wrapped, None, payloads, depth)[0]
            seconds, nanos = self._pairs(_SECONDS, _NANOS, payloads, depth)
        except (_Unpaired, Malformed):
            return self._each(field, payloads, depth)
        make = timestamp_from if field.kind == "timestamp" else duration_from
        return list(map(make, seconds, nanos))

    def _each(self, field: Field, payloads: list[bytes], depth: int) -> list[Any]:
        """The values of many messages, one after the other."""
        found: list[Any] = []
        scan = self._compiled(field.target) if field.kind == "message" and depth else None
        for raw in payloads:
            try:
                if scan is not None:
                    found.append(scan(raw, 0, len(raw), depth - 1))
                    continue
            except UNREAD:
                pass
            try:
                found.append(self._whole(field, raw, depth, tried=scan is not None))
            except Malformed as bad:
                raise BadElement(len(found), bad.reason, bad.path) from None
        return found

    def _numbers(self, field: Field, tokens: list[bytes]) -> Sequence[Any]:
        size = field.tag_size
        packed = varint(field.packed_tag)
        if not field.repeated or not any(token.startswith(packed) for token in tokens):
            bodies = [token[size:] for token in tokens]
        else:
            bodies = [token[size + 1 if token.startswith(packed) else size :] for token in tokens]
            check_packed(field, bodies)
        chunk = b"".join(bodies)
        if field.kind in VARINT_KINDS:
            return integers(field)(varints(chunk))
        return tuple(fixed_reader(field.kind)(chunk))

    def _entries(
        self, field: Field, payloads: list[bytes], runs: Runs, state: State, depth: int
    ) -> None:
        if not depth:
            raise Malformed("nested too deeply")
        key, value = field.key, field.value
        assert key is not None and value is not None
        # The last of equal entries decides, with the same outcome as the others.
        kept = list(dict.fromkeys(reversed(payloads)))
        kept.reverse()
        entries: dict[str, Any] = {}
        try:
            entries[field.name] = dict(zip(*self._pairs(key, value, kept, depth), strict=True))
        except (_Unpaired, Malformed):
            for raw in kept:
                if self._entry(field, entries, raw, 0, len(raw), depth):
                    raise InOrder from None
        state.values.setdefault(field.name, {}).update(entries[field.name])

    def _pairs(
        self, first: Field, second: Field | None, payloads: list[bytes], depth: int
    ) -> tuple[Sequence[Any], Sequence[Any]]:
        """The values of the two fields of many small messages, defaults where there is none."""
        pattern = pair(first, second)
        try:
            found = [match.groups() for match in map(pattern.fullmatch, payloads)]  # type: ignore[union-attr]  # caught
        except AttributeError:
            raise _Unpaired from None
        empty = empty_of(first)
        columns = [self._column(first, [one[0] or one[-1] or empty for one in found], depth - 1)]
        if second is not None:
            empty = empty_of(second)
            tokens = [one[1] or one[2] or empty for one in found]
            columns.append(self._column(second, tokens, depth - 1))
        return columns[0], columns[-1]

    def _merge(self, field: Field, payloads: list[bytes], state: State, depth: int) -> None:
        """Merging messages is reading their bytes as one, once each was found right by itself."""
        nested = state.nested.setdefault(field.name, (field, State()))[1]
        if not depth:
            raise Malformed("nested too deeply")
        whole = b"".join(payloads)
        different = set(payloads)
        if len(different) < 64 or not cut_between_fields(whole, payloads):
            for raw in different:
                self._whole(field, raw, depth)
        self._read(field, nested, whole, 0, len(whole), depth)

    def _messages(self, field: Field, payloads: list[bytes], depth: int) -> list[Any]:
        different = set(payloads)
        if len(different) > len(payloads) // 4:
            return self._each(field, payloads, depth)
        states: dict[bytes, dict[str, Any]] = {}
        for raw in different:
            try:
                states[raw] = self._whole(field, raw, depth).__dict__
            except Malformed as bad:
                raise BadElement(payloads.index(raw), bad.reason, bad.path) from None
        if any(map(has_mutable, states.values())):
            return self._each(field, payloads, depth)
        return copies_of(field.target, states, payloads)


class _Unpaired(Exception):
    """Some of many small messages have more in them than two fields in turn."""


class _Lanes(dict[Any, list[bytes]]):
    """The first bytes of a field -> the list of all of those that it goes together with."""

    def __init__(self, by_tag: Mapping[int, Field]) -> None:
        super().__init__()
        self.by_tag = by_tag
        self.unknown: list[bytes] = []
        self.groups = False
        self.fields: dict[str, tuple[Field, list[bytes]]] = {}

    def __missing__(self, head: int | bytes) -> list[bytes]:
        tag = head if isinstance(head, int) else varint_at(head, 0, len(head))[0]
        field = self.by_tag.get(tag)
        if field is None:
            self.groups |= tag & 7 == 3
            lane = self.unknown
        else:
            lane = self.fields.setdefault(field.name, (field, []))[1]
        self[head] = lane
        return lane


_TAG: Final = re.compile(rb"[\x80-\xff]*[\x00-\x7f]")


def element(field: Field, values: Mapping[str, Any]) -> str:
    """The last step of a path: the field, and which of its elements."""
    if field.repeated:
        return f"{field.name}[{len(values.get(field.name, ()))}]"
    return field.name
