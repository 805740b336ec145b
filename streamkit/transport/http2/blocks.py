"""Header blocks (HPACK, RFC 7541): most calls of a connection repeat them byte for byte.

A block that leaves the dynamic table as it is means the same until something else changes the
table, so what it decodes to is kept until then, and so is what a list of fields is written as.
Where a deadline or an id makes each block another one, what it begins with is kept alike: the
fields that stand in the tables, and differ from call to call no more than they do elsewhere.
Names and values are text in which each character is one byte.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Any

from hpack.exceptions import (
    HPACKDecodingError,
    InvalidTableIndexError,
    InvalidTableSizeError,
    OversizedHeaderListError,
)
from hpack.huffman_table import decode_huffman
from hpack.struct import HeaderTuple
from hpack.table import HeaderTable

__all__ = ["BlockReader", "BlockWriter", "CallHeaders", "Fields"]

TABLE = 4096
"""Bytes of the dynamic table, both ways."""
_OVERHEAD = 32  # of an entry, as the table and a limit for header lists count it
_MOST = 32  # blocks kept in one direction of a connection,
_LONGEST = 512  # each of so many bytes at most, and only when they came, or went, twice
_STATIC: list[tuple[str, str]] = [
    (name.decode("latin-1"), value.decode("latin-1")) for name, value in HeaderTable.STATIC_TABLE
]
_FIRST = len(_STATIC) + 1  # the index of the newest entry of the dynamic table
_LONGEST_INTEGER = 2**32
_ODD = frozenset({"content-length", ":status"})
_HEAD = re.compile(rb"[\x81-\xfe]*")
"""What a block begins with: fields that are nothing but an index of one byte."""
_VARIES = frozenset({"grpc-timeout"})
"""What is another in every call, and is not worth a place in a table."""
_NAMES = 256
"""Names whose written form is kept, for all connections."""


class Fields(list[tuple[str, str]]):
    """A decoded block. It is kept, and comes out again for the same bytes: it must not be changed,
    and what is made of it alone can be kept with it. The same block may come as headers and as
    trailers, so what is made of it in one place must not be used in the other."""

    __slots__ = ("head", "kept", "made", "odd", "size")

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(fields)
        self.kept = False
        """Whether it will come out again."""
        self.odd = False
        """Whether HTTP/2 has rules of its own for it: it states the length of what follows, or is
        an informational response."""
        self.made: dict[str, Any] = {}
        """What was made of it, by the name of the place."""
        self.size = 0
        """As a limit for header lists counts it."""
        self.head: Fields | None = None
        """What it begins with, if that is kept."""


class CallHeaders(list[tuple[str, str]]):
    """A request's headers: the first `common` are those that `key` stands for on every connection
    to the server, the others differ from call to call."""

    __slots__ = ("common", "key")

    def __init__(self, key: object, common: list[tuple[str, str]]) -> None:
        super().__init__(common)
        self.key = key
        self.common = len(common)


class BlockReader:
    """Decodes what a peer's encoder writes. In the place of hpack's Decoder in h2."""

    def __init__(self) -> None:
        self.max_header_list_size = 64 * 1024
        """A longer list is an OversizedHeaderListError; the table is lost then."""
        self.max_allowed_table_size = TABLE
        self._table: deque[tuple[str, str]] = deque()  # the newest first
        self._size = 0
        self._limit = TABLE
        self._known: dict[bytes, Fields] = {}
        self._heads: dict[bytes, Fields] = {}  # of blocks that are not known
        self._once: set[int] = set()  # hashes of blocks and of heads that came once

    @property
    def header_table_size(self) -> int:
        """The size that the peer has chosen for the table."""
        return self._limit

    def decode(self, data: bytes, raw: bool = True) -> list[HeaderTuple]:
        """As `read`, in the form that h2 wants."""
        return [
            HeaderTuple(name.encode("latin-1"), value.encode("latin-1"))
            for name, value in self.read(bytes(data))
        ]

    def read(self, block: bytes) -> Fields:
        """Return the fields of a whole block. Raises HPACKError; the table is lost then."""
        fields = self._known.get(block)
        if fields is not None:
            return fields
        size = _HEAD.match(block, 0, _LONGEST).end()  # type: ignore[union-attr]  # it matches ""
        if size == len(block):
            size = 0  # the block is known as a whole, or will be
        head = self._heads.get(block[:size]) if size else None
        fields, changed = self._cut(block, 0 if head is None else size, head)
        if changed:
            self._known.clear()
            self._heads.clear()
            self._once.clear()
        else:
            if size and head is None and self._comes_again(block[:size]):
                head = self._cut(block[:size], 0, None)[0]
                head.kept = True
                if len(self._heads) >= _MOST:
                    self._heads.clear()
                self._heads[block[:size]] = head
            if len(block) <= _LONGEST and self._comes_again(block):
                if len(self._known) >= _MOST:
                    self._known.clear()
                fields.kept = True
                self._known[block] = fields
        return fields

    def _comes_again(self, block: bytes) -> bool:
        mark = hash(block)
        if mark in self._once:
            return True
        if len(self._once) >= 4 * _MOST:
            self._once.clear()
        self._once.add(mark)
        return False

    def _cut(self, block: bytes, position: int, head: Fields | None) -> tuple[Fields, bool]:
        """Decode a block from `position` on, before which is `head`; also whether it changes the
        table."""
        fields = Fields() if head is None else Fields(head)
        total = 0
        if head is not None:
            fields.head, fields.odd, total = head, head.odd, head.size
            if total > self.max_header_list_size:
                raise OversizedHeaderListError("header list over the limit")
        table = self._table
        end = len(block)
        changed = False
        try:
            while position < end:
                first = block[position]
                if first & 0x80:  # an indexed field
                    index = first & 0x7F
                    position += 1
                    if index == 0x7F:
                        index, position = _integer(block, position, index)
                    pair = self._entry(index)
                elif first & 0xE0 == 0x20:  # an update of the table's size
                    if fields:
                        raise HPACKDecodingError("table size update inside a block")
                    size, position = first & 0x1F, position + 1
                    if size == 0x1F:
                        size, position = _integer(block, position, size)
                    if size > self.max_allowed_table_size:
                        raise InvalidTableSizeError("table size over the limit")
                    self._limit = size
                    self._shrink()
                    changed = True
                    continue
                else:
                    mask = 0x3F if first & 0x40 else 0x0F
                    index, position = first & mask, position + 1
                    if index == mask:
                        index, position = _integer(block, position, index)
                    if index:
                        name = self._entry(index)[0]
                    else:
                        name, position = self._text(block, position, end)
                    value, position = self._text(block, position, end)
                    pair = (name, value)
                    if first & 0x40:
                        changed = True
                        table.appendleft(pair)
                        self._size += _OVERHEAD + len(name) + len(value)
                        self._shrink()
                fields.append(pair)
                if pair[0] in _ODD and (pair[0] == "content-length" or pair[1][:1] == "1"):
                    fields.odd = True
                total += _OVERHEAD + len(pair[0]) + len(pair[1])
                if total > self.max_header_list_size:
                    raise OversizedHeaderListError("header list over the limit")
        except IndexError:
            raise HPACKDecodingError("header block is cut short") from None
        if self._limit > self.max_allowed_table_size:
            raise InvalidTableSizeError("table not shrunk to the limit")
        fields.size = total
        return fields, changed

    def _entry(self, index: int) -> tuple[str, str]:
        if 0 < index < _FIRST:
            return _STATIC[index - 1]
        if _FIRST <= index < _FIRST + len(self._table):
            return self._table[index - _FIRST]
        raise InvalidTableIndexError(f"no header at index {index}")

    def _shrink(self) -> None:
        table = self._table
        while self._size > self._limit and table:
            name, value = table.pop()
            self._size -= _OVERHEAD + len(name) + len(value)

    @staticmethod
    def _text(block: bytes, position: int, end: int) -> tuple[str, int]:
        first = block[position]
        size, position = first & 0x7F, position + 1
        if size == 0x7F:
            size, position = _integer(block, position, size)
        stop = position + size
        if stop > end:
            raise HPACKDecodingError("header block is cut short")
        data = block[position:stop]
        if first & 0x80:
            data = decode_huffman(data)
        return data.decode("latin-1"), stop


class BlockWriter:
    """Encodes for a peer's decoder. In the place of hpack's Encoder in h2.

    What was written twice goes into the table, as long as there is room, and stays there: what
    differs from call to call leaves the table, and what the peer has kept, as they are. Huffman's
    code is not used: it saves a peer nothing and costs both sides much.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], int] = {}  # from 1, in the order of their coming
        self._names: dict[str, int] = {}
        self._size = 0
        self._limit = TABLE
        self._resized: list[int] = []  # sizes that the peer is to be told
        self._known: dict[Any, bytes] = {}
        self._once: set[int] = set()  # hashes of fields that were written once

    @property
    def header_table_size(self) -> int:
        """The size of the table: no larger than the peer allows."""
        return self._limit

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        if min(value, TABLE) == self._limit:
            return
        self._places.clear()
        self._names.clear()
        self._known.clear()
        self._once.clear()
        self._size = 0
        self._limit = min(value, TABLE)
        self._resized = [0, self._limit]

    def known(self, key: Any) -> bytes | None:
        """The block of the fields that `key` stands for, if it may be written as before."""
        return None if self._resized else self._known.get(key)

    def write(self, key: Any, fields: Iterable[tuple[str, str]]) -> bytes:
        """The block of fields that `key` stands for, always the same ones."""
        block = self._known.get(key)
        if block is None or self._resized:
            size = len(self._places)
            block = self.encode(fields)
            if size == len(self._places) and not self._resized and len(self._known) < _MOST:
                self._known[key] = block
        return block

    def encode(self, headers: Iterable[tuple[Any, Any]]) -> bytes:
        """Return the block of these fields."""
        out = bytearray()
        for size in self._resized:
            out += _number(0x20, 0x1F, size)
        resized, self._resized = bool(self._resized), []
        for name, value in headers:
            if isinstance(name, bytes):
                name, value = name.decode("latin-1"), value.decode("latin-1")
            self._put(out, (name, value))
        if resized:
            self._known.clear()
        return bytes(out)

    def _put(self, out: bytearray, pair: tuple[str, str]) -> None:
        index = _STATIC_PAIRS.get(pair)
        if index is None:
            place = self._places.get(pair)
            if place is not None:
                index = _FIRST + len(self._places) - place
        if index is not None:
            out += _number(0x80, 0x7F, index)
            return
        name, value = pair
        number = _STATIC_NAMES.get(name, 0)
        if not number and name in self._names:
            number = _FIRST + len(self._places) - self._names[name]
        size = _OVERHEAD + len(name) + len(value)
        keeps = self._size + size <= self._limit and self._came_before(pair)
        if not number and not keeps:
            out += _literal(name)
        else:
            out += _number(0x40, 0x3F, number) if keeps else _number(0, 0x0F, number)
            if not number:
                data = name.encode("latin-1")
                out += _number(0, 0x7F, len(data))
                out += data
        data = value.encode("latin-1")
        if len(data) < 0x7F:
            out.append(len(data))
        else:
            out += _number(0, 0x7F, len(data))
        out += data
        if keeps:
            self._size += size
            self._places[pair] = len(self._places) + 1
            self._names.setdefault(name, len(self._places))
            self._known.clear()  # the indices have moved

    def _came_before(self, pair: tuple[str, str]) -> bool:
        if pair[0] in _VARIES:
            return False
        mark = hash(pair)
        if mark in self._once or pair[0] in _CONSTANT:
            return True
        if len(self._once) >= 4 * _MOST:
            self._once.clear()
        self._once.add(mark)
        return False


_CONSTANT = frozenset(
    {
        ":authority",
        ":path",
        "content-type",
        "grpc-accept-encoding",
        "grpc-encoding",
        "te",
        "user-agent",
    }
)
"""What is the same in most calls; a status that is not OK has a text of its own."""
_STATIC_PAIRS = {pair: index for index, pair in reversed(list(enumerate(_STATIC, 1)))}
_STATIC_NAMES = {pair[0]: index for index, pair in reversed(list(enumerate(_STATIC, 1)))}


_LITERALS: dict[str, bytes] = {}


def _literal(name: str) -> bytes:
    """Write the name of a field that goes into no table."""
    found = _LITERALS.get(name)
    if found is None:
        data = name.encode("latin-1")
        found = b"\0" + _number(0, 0x7F, len(data)) + data
        if len(data) <= _LONGEST:
            if len(_LITERALS) >= _NAMES:
                _LITERALS.clear()
            _LITERALS[name] = found
    return found


def _integer(block: bytes, position: int, value: int) -> tuple[int, int]:
    """Read on an integer whose first bits are all ones."""
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if value > _LONGEST_INTEGER or shift > 56:
            raise HPACKDecodingError("integer over the limit")
        if byte < 0x80:
            return value, position
        shift += 7


def _number(flags: int, mask: int, value: int) -> bytes:
    """Write an integer after the flags in its first byte."""
    if value < mask:
        return bytes((flags | value,))
    out = bytearray((flags | mask,))
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
