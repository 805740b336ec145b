"""Long runs of small fields, read at the speed of C.

A megabyte may hold half a million fields of two bytes. Reading them one statement at a time would
hold up the event loop for a second, so long runs are recognised as a whole: unknown fields and
singular scalars by a regular expression over the wire format, verbatim repetitions by comparison.
What comes out is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from streamkit.codec._plan import Field

__all__ = ["Runs", "repetitions"]

_VARINT: Final = rb"[\x80-\xff]{0,9}[\x00-\x7f]"
_WORTH_IT: Final = 256
"""Bytes left from which on a run is looked for."""


def _tag_bytes(tag: int) -> bytes:
    out = bytearray()
    while tag > 127:
        out.append(tag & 127 | 128)
        tag >>= 7
    return bytes([*out, tag])


def _wire_class(wire: int, low: int, high: int) -> bytes:
    return b"[%b]" % b"".join(b"\\x%02x" % b for b in range(low, high) if b & 7 == wire)


def _any_tag(wire: int) -> bytes:
    """A tag of this wire type, in its shortest form, up to four bytes, not of field number 0."""
    one, first = _wire_class(wire, 8, 128), _wire_class(wire, 128, 256)
    return rb"(?:%b|%b[\x80-\xff]{0,2}[\x01-\x7f])" % (one, first)


def _any_of(tags: Iterable[int]) -> bytes:
    """An expression for any of the tags, by their ends so that there are few alternatives."""
    firsts: dict[bytes, list[int]] = {}
    for raw in map(_tag_bytes, tags):
        firsts.setdefault(raw[1:], []).append(raw[0])
    return b"|".join(
        b"[%b]%b" % (b"".join(b"\\x%02x" % byte for byte in found), re.escape(end))
        for end, found in firsts.items()
    )


class Runs:
    """The expressions for one message class, compiled when a long run is first met."""

    def __init__(self, by_tag: Mapping[int, Field]) -> None:
        self.by_tag = by_tag
        self._unknown: re.Pattern[bytes] | None = None
        self._scalars: re.Pattern[bytes] | None = None
        self._singular = [
            field
            for tag, field in by_tag.items()
            if tag & 7 == 0 and not field.repeated and not field.group
        ]

    def unknown(self, buf: bytes, at: int, end: int) -> int:
        """Return the offset behind the unknown fields at `at`, none or as many as are simple."""
        if end - at < _WORTH_IT:
            return at
        if self._unknown is None:
            known = _any_of(self.by_tag)
            sized = b"|".join(rb"\x%02x[\x00-\xff]{%d}" % (size, size) for size in range(24))
            token = rb"%b%b|%b[\x00-\xff]{4}|%b[\x00-\xff]{8}|%b(?:%b)" % (
                _any_tag(0), _VARINT, _any_tag(5), _any_tag(1), _any_tag(2), sized
            )  # fmt: skip
            ahead = rb"(?!%b)" % known if known else b""
            self._unknown = re.compile(rb"(?:%b(?:%b))*+" % (ahead, token))
        found = self._unknown.match(buf, at, end)
        return at if found is None else found.end()

    def scalars(self, buf: bytes, at: int, end: int) -> tuple[int, dict[Field, bytes]]:
        """Skip singular varint fields; return the offset and the last varint of each field."""
        fields = self._singular
        if end - at < _WORTH_IT or not fields:
            return at, {}
        if self._scalars is None:
            tokens = (rb"%b(%b)" % (re.escape(_tag_bytes(one.tag)), _VARINT) for one in fields)
            self._scalars = re.compile(rb"(?:%b)*+" % b"|".join(tokens))
        found = self._scalars.match(buf, at, end)
        if found is None or found.end() == at:
            return at, {}
        last = zip(fields, found.groups(), strict=True)
        return found.end(), {field: raw for field, raw in last if raw is not None}


def repetitions(buf: bytes, start: int, at: int, end: int) -> int:
    """How often buf[start:at] is repeated from `at` on; 0 when it is not worth counting."""
    token = buf[start:at]
    size = at - start
    many = 16
    if end - at < size * many or buf[at : at + size] != token:
        return 0
    if buf[at : at + size * many] != token * many:
        return 0
    count = 0
    while many:
        step = size * many
        if at + step <= end and buf[at : at + step] == token * many:
            count += many
            at += step
            many *= 2
        else:
            many //= 2
    return count
