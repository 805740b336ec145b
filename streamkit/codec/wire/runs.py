"""Long runs of small fields, found at the speed of C.

A megabyte may hold half a million fields of two bytes. Reading them one statement at a time would
hold up the event loop for a second, so runs of short fields are recognised as a whole, by regular
expressions over the wire format. The limits of `re` set the limits here: a length can be matched
only one by one, so values of up to 23 bytes are short. Expressions are compiled when a long run is
first met.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

from streamkit.codec.wire.field import Field

__all__ = [
    "SHORT_SIZE",
    "Runs",
    "flat_run",
    "group_run",
    "pair",
    "short",
    "short_run",
    "tiny_run",
]

SHORT_SIZE: Final = 24
"""Values of fewer bytes are short."""

_WORTH_IT: Final = 256
"""Bytes left from which on a run is looked for."""

_ANY: Final = rb"[\x00-\xff]"


def _sized(limit: int) -> bytes:
    """A length below `limit` and so many bytes."""
    return b"(?:%b)" % b"|".join(rb"\x%02x%b{%d}" % (size, _ANY, size) for size in range(limit))


_VALUE: Final = {
    0: rb"[\x80-\xff]{0,9}[\x00-\x7f]",
    2: _sized(SHORT_SIZE),
    5: _ANY + b"{4}",
    1: _ANY + b"{8}",
}


def _tag_bytes(tag: int) -> bytes:
    out = bytearray()
    while tag > 127:
        out.append(tag & 127 | 128)
        tag >>= 7
    return bytes([*out, tag])


def _wire_class(wire: int, low: int, high: int) -> bytes:
    return b"[%b]" % b"".join(rb"\x%02x" % b for b in range(low, high) if b & 7 == wire)


def _field(lowest: int) -> bytes:
    """One field whose first byte is at least `lowest`: 8 means its tag is in shortest form."""
    rest = rb"(?:[\x80-\xff]{0,2}[\x%02x-\x7f]|[\x80-\xff]{3}[\x%02x-\x0f])"
    rest %= (lowest > 0, lowest > 0)
    forms = (
        b"(?:%b|%b%b)%b"
        % (_wire_class(wire, lowest, 128), _wire_class(wire, 128, 256), rest, value)
        for wire, value in _VALUE.items()
    )
    return b"|".join(forms)


def _many(one: bytes) -> bytes:
    """As many of these as there are; one of which only the beginning fits is not touched.

    The inner group is what keeps the end right before CPython 3.11.5, where a possessive
    quantifier goes on from wherever its last, failed attempt had come to (gh-106052).
    """
    return b"(?:(?>%b))*+" % one


def _group() -> bytes:
    """A group of one level, its number below 2048. Whether it ends itself is left to be checked."""
    opening, closing = (
        rb"(?:%b|%b[\x01-\x7f])" % (_wire_class(wire, 8, 128), _wire_class(wire, 128, 256))
        for wire in (3, 4)
    )
    return opening + _many(_field(0)) + closing


@cache
def flat_run() -> re.Pattern[bytes]:
    """Short fields of any number and type, without groups, for where no level is left."""
    return re.compile(_many(_field(8)))


@cache
def group_run() -> re.Pattern[bytes]:
    """Short fields in a group, where a field number of 0 passes."""
    return re.compile(_many(_field(0)))


@cache
def short_run() -> re.Pattern[bytes]:
    """Short fields and groups of them."""
    return re.compile(_many(b"%b|%b" % (_field(8), _group())))


@cache
def short() -> re.Pattern[bytes]:
    """One field of such a run."""
    return re.compile(b"%b|%b" % (_field(8), _group()))


@cache
def pair(first: Field, second: Field | None) -> re.Pattern[bytes]:
    """All of a small message with at most these two fields.

    Groups: the first and the second field, or the second and the first, each with its tag.
    """
    one, two = (
        b"(%b%b)" % (re.escape(_tag_bytes(field.tag)), _VALUE[field.tag & 7]) if field else b"(?!)"
        for field in (first, second)
    )
    return re.compile(b"(?:%b(?:%b)?|%b(?:%b)?)?" % (one, two, two, one) if second else one + b"?")


@cache
def tiny_run() -> re.Pattern[bytes]:
    """Many fields of very few bytes each, which should not be read one by one."""
    return re.compile(rb"(?:[\x80-\xff]?[\x00-\x7f]%b){48}" % _sized(9))


def _any_of(tags: Iterable[int]) -> bytes:
    """An expression for any of the tags, by their ends so that there are few alternatives."""
    firsts: dict[bytes, list[int]] = {}
    for raw in map(_tag_bytes, tags):
        firsts.setdefault(raw[1:], []).append(raw[0])
    return b"|".join(
        b"[%b]%b" % (b"".join(rb"\x%02x" % byte for byte in found), re.escape(end))
        for end, found in firsts.items()
    )


class Runs:
    """What is known of the fields of a message: by tag, and the expressions for runs of them."""

    def __init__(self, by_tag: Mapping[int, Field], cls: Any = None) -> None:
        self.by_tag = by_tag
        self.cls = cls
        self.readers: dict[int, Any] = {}
        """By tag what reads one such field: see _single.py, which fills it."""
        self._unknown: dict[bool, re.Pattern[bytes]] = {}
        self._numbers: re.Pattern[bytes] | None = None
        self._singular: list[Field] = []
        self._same: dict[str, tuple[re.Pattern[bytes], re.Pattern[bytes]]] = {}

    def unknown(self, buf: bytes, at: int, end: int, groups: bool = False) -> int:
        """Return the offset behind the unknown fields at `at`, none or as many as are simple.

        With `groups` there may be such whose end has yet to be checked.
        """
        if end - at < _WORTH_IT:
            return at
        run = self._unknown.get(groups)
        if run is None:
            known = _any_of(self.by_tag)
            ahead = b"(?!%b)" % known if known else b""
            field = b"%b|%b" % (_field(8), _group()) if groups else _field(8)
            run = self._unknown[groups] = re.compile(_many(b"%b(?:%b)" % (ahead, field)))
        found = run.match(buf, at, end)
        return at if found is None else found.end()

    def numbers(self, buf: bytes, at: int, end: int) -> tuple[int, dict[Field, bytes]]:
        """Skip singular numbers; return the offset and the last value of each field."""
        if self._numbers is None:
            self._singular = [
                field
                for field in self.by_tag.values()
                if field.packable and not field.repeated and not field.group
            ]
            tokens = (
                b"%b(%b)" % (re.escape(_tag_bytes(one.tag)), _VALUE[one.tag & 7])
                for one in self._singular
            )
            self._numbers = re.compile(_many(b"|".join(tokens) or b"(?!)"))
        found = self._numbers.match(buf, at, end)
        if found is None or found.end() == at:
            return at, {}
        last = zip(self._singular, found.groups(), strict=True)
        return found.end(), {field: raw for field, raw in last if raw is not None}

    def same(self, field: Field) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        """The expressions for one short value of a known field and for many."""
        found = self._same.get(field.name)
        if found is None:
            tags = {field.tag, field.packed_tag} if field.repeated else {field.tag}
            token = b"|".join(re.escape(_tag_bytes(tag)) + _VALUE[tag & 7] for tag in tags)
            found = re.compile(token), re.compile(_many(token))
            self._same[field.name] = found
        return found
