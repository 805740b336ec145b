"""Reading one field after the other: a function for each tag of a class, made when it is first met.

It takes the bytes, the offset behind the tag and the end, the state to fill and the levels that are
left, and returns the offset behind the value.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from streamkit.codec.exact.short import MERGED, ShortFields, State, element
from streamkit.codec.wire.field import FIXED_FORMAT, LEN, Field
from streamkit.codec.wire.runs import SHORT_SIZE, Runs
from streamkit.codec.wire.scan import (
    Malformed,
    any_tag_at,
    fixed_reader,
    fixed_size,
    integer_reader,
    length_at,
    skip,
    tag_at,
    varint,
    varint_at,
)
from streamkit.codec.wire.values import packed_reader

__all__ = ["SingleFields"]

Read = Callable[[bytes, int, int, State, int], int]

_SEVERAL: Final = 3
"""Short fields in a row after which more of them are expected."""
_KEPT: Final = 256
"""Entries of maps with unknown fields that are remembered: they take long to be written anew."""


class SingleFields(ShortFields):
    """What the decoder adds to read fields of any size and order."""

    def _one_by_one(
        self,
        runs: Runs,
        state: State,
        buf: bytes,
        at: int,
        end: int,
        depth: int,
        until_short: bool = False,
    ) -> int:
        """Read fields into `state`, all of them or until several short ones followed each other.

        Return the offset behind.
        """
        readers = runs.readers
        seen = 0
        while at < end and seen < _SEVERAL:
            start = at
            tag = buf[at]
            if 8 <= tag < 128:
                at += 1
            elif tag > 127 and at + 1 < end and 0 < buf[at + 1] < 128:
                tag += buf[at + 1] * 128 - 128
                at += 2
            elif runs.by_tag:
                tag, at = tag_at(buf, at, end)
            else:
                # In a message without any fields google.protobuf lets field number 0 pass; so does
                # this.
                tag, at = any_tag_at(buf, at, end)
            read = readers.get(tag)
            if read is None:
                field = runs.by_tag.get(tag)
                if field is None:
                    at = skip(buf, tag, at, end, depth)
                    state.unknown.append(buf[start:at])
                    if until_short:
                        seen = seen + 1 if at - start < SHORT_SIZE else 0
                    continue
                read = readers[tag] = self._reader(field, tag)
            try:
                at = read(buf, at, end, state, depth)
            except Malformed as bad:
                bad.path.append(element(runs.by_tag[tag], state.values))
                raise
            if until_short:
                seen = seen + 1 if at - start < SHORT_SIZE else 0
        return at

    def _scalar(self, field: Field, buf: bytes, at: int, end: int) -> tuple[Any, int]:
        if field.tag & 7 == 0:
            value, at = varint_at(buf, at, end)
            return integer_reader(field.kind, field.target)(value), at
        stop = at + fixed_size(field.kind)
        if stop > end:
            raise Malformed("the data is truncated")
        (value,) = fixed_reader(field.kind)(buf[at:stop])
        return value, stop

    def _reader(self, field: Field, tag: int) -> Read:
        read = _number(field) if tag & 7 != LEN else self._delimited(field, tag)
        if not field.group:
            return read

        def chosen(buf: bytes, at: int, end: int, state: State, depth: int) -> int:
            state.choose(field)
            return read(buf, at, end, state, depth)

        return chosen

    def _delimited(self, field: Field, tag: int) -> Read:
        """What reads a length and so many bytes."""
        name, kind = field.name, field.kind
        if kind == "map":
            return self._map(field, tag)
        if field.packable:
            many = packed_reader(field) if field.tag & 7 == 0 else fixed_reader(kind)

            def packed(buf: bytes, at: int, end: int, state: State, depth: int) -> int:
                at, stop = length_at(buf, at, end)
                state.values.setdefault(name, []).extend(many(buf[at:stop]))
                return stop

            return packed
        if kind in MERGED and not field.repeated:

            def merged(buf: bytes, at: int, end: int, state: State, depth: int) -> int:
                at, stop = length_at(buf, at, end)
                nested = state.nested.get(name)
                if nested is None:
                    nested = state.nested[name] = field, State(state.tried)
                self._read(field, nested[1], buf, at, stop, depth)
                return stop

            return merged
        if kind in MERGED:
            whole = self._whole

            def message(buf: bytes, at: int, end: int, state: State, depth: int) -> int:
                at, stop = length_at(buf, at, end)
                value = whole(field, buf[at:stop], depth, state.tried)
                state.values.setdefault(name, []).append(value)
                return stop

            return message
        value_of = _text if kind == "string" else bytes
        repeated = field.repeated

        def plain(buf: bytes, at: int, end: int, state: State, depth: int) -> int:
            at, stop = length_at(buf, at, end)
            value = value_of(buf[at:stop])
            if repeated:
                state.values.setdefault(name, []).append(value)
            else:
                state.values[name] = value
            return stop

        return plain

    def _map(self, field: Field, tag: int) -> Read:
        def entry(buf: bytes, at: int, end: int, state: State, depth: int) -> int:
            at, stop = length_at(buf, at, end)
            known = tag, buf[at:stop]
            odd = state.odd.get(known) or self._entry(field, state.values, buf, at, stop, depth)
            if odd:
                state.unknown += (varint(tag), odd)
                if len(state.odd) < _KEPT:
                    state.odd[known] = odd
            return stop

        return entry


def _number(field: Field) -> Read:
    """What reads one number."""
    name, repeated = field.name, field.repeated
    if field.tag & 7 == 0:
        convert = integer_reader(field.kind, field.target)

        def integer(buf: bytes, at: int, end: int, state: State, depth: int) -> int:
            if at < end and buf[at] < 128:
                value = convert(buf[at])
                at += 1
            else:
                whole, at = varint_at(buf, at, end)
                value = convert(whole)
            if repeated:
                state.values.setdefault(name, []).append(value)
            else:
                state.values[name] = value
            return at

        return integer
    form = Struct(FIXED_FORMAT[field.kind])

    def fixed(buf: bytes, at: int, end: int, state: State, depth: int) -> int:
        stop = at + form.size
        if stop > end:
            raise Malformed("the data is truncated")
        (value,) = form.unpack_from(buf, at)
        if repeated:
            state.values.setdefault(name, []).append(value)
        else:
            state.values[name] = value
        return stop

    return fixed


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("a string is not valid UTF-8") from None
