"""A field of a message, as data, and what follows from its type. Nothing here knows a class."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import betterproto

__all__ = [
    "EPOCH",
    "FIXED_FORMAT",
    "INTEGER_RANGE",
    "LEN",
    "MESSAGE_KINDS",
    "UNSET",
    "VARINT_KINDS",
    "WIRE_TYPE",
    "Field",
    "tags_of",
]


UNSET: Final[Any] = betterproto.PLACEHOLDER
"""betterproto's own mark for "nothing was given"."""


EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


VARINT, I64, LEN, I32 = 0, 1, 2, 5


VARINT_KINDS: Final = frozenset(
    {"enum", "bool", "int32", "int64", "uint32", "uint64", "sint32", "sint64"}
)


FIXED_FORMAT: Final = {
    "double": "<d",
    "fixed64": "<Q",
    "sfixed64": "<q",
    "float": "<f",
    "fixed32": "<I",
    "sfixed32": "<i",
}


WIRE_TYPE: Final = {
    **dict.fromkeys(VARINT_KINDS, VARINT),
    **dict.fromkeys(("double", "fixed64", "sfixed64"), I64),
    **dict.fromkeys(("float", "fixed32", "sfixed32"), I32),
    **dict.fromkeys(("string", "bytes", "message", "map", "timestamp", "duration", "wrapper"), LEN),
}


INTEGER_RANGE: Final = {
    **dict.fromkeys(("enum", "int32", "sint32", "sfixed32"), (-(1 << 31), (1 << 31) - 1)),
    **dict.fromkeys(("int64", "sint64", "sfixed64"), (-(1 << 63), (1 << 63) - 1)),
    **dict.fromkeys(("uint32", "fixed32"), (0, (1 << 32) - 1)),
    **dict.fromkeys(("uint64", "fixed64"), (0, (1 << 64) - 1)),
}


_SCALAR_DEFAULT: Final[dict[str, Any]] = {
    **dict.fromkeys(INTEGER_RANGE, 0),
    "bool": False,
    "float": 0.0,
    "double": 0.0,
    "string": "",
    "bytes": b"",
    "timestamp": EPOCH,
    "duration": timedelta(0),
    "wrapper": None,
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field, or the key or the value of a map.

    `kind` is a protobuf scalar type, or `message`, `map`, or one of the three kinds of message that
    betterproto shows as a Python value: `timestamp`, `duration`, `wrapper` (`wraps` says of what).
    """

    name: str
    number: int
    kind: str
    repeated: bool = False
    optional: bool = False
    group: str = ""
    target: type | None = None
    wraps: str = ""
    key: Field | None = None
    value: Field | None = None

    @property
    def plural(self) -> bool:
        """Whether the value is a list or a dict."""
        return self.repeated or self.kind == "map"

    @property
    def presence(self) -> bool:
        """Whether a default value that was set differs from none that was set."""
        return bool(self.optional or self.group) or self.kind in MESSAGE_KINDS

    @property
    def wrapped(self) -> Field:
        """The field inside a wrapper."""
        return Field("value", 1, "double" if self.wraps == "any_float" else self.wraps)

    @property
    def is_text_map(self) -> bool:
        key, value = self.key, self.value
        return key is not None and value is not None and key.kind == value.kind == "string"

    @property
    def packable(self) -> bool:
        return WIRE_TYPE[self.kind] != LEN

    @property
    def tag(self) -> int:
        """Number and wire type of one value, as they stand before it."""
        return self.number << 3 | WIRE_TYPE[self.kind]

    @property
    def tag_size(self) -> int:
        return (self.tag.bit_length() + 6) // 7

    @property
    def packed_tag(self) -> int:
        """Number and wire type of many values in one piece, which is how they are written."""
        return self.number << 3 | LEN

    def default(self) -> Any:
        """A new default value, as attribute access returns it for a field that is not set."""
        if self.kind == "map":
            return {}
        if self.repeated:
            return []
        if self.optional:
            return None
        if self.kind == "enum":
            assert self.target is not None
            return self.target.try_value(0)  # type: ignore[attr-defined]  # an enum has it
        return _SCALAR_DEFAULT[self.kind]


MESSAGE_KINDS: Final = frozenset({"message", "timestamp", "duration", "wrapper"})


def tags_of(fields: Iterable[Field]) -> dict[int, Field]:
    """Return the table that the exact decoder looks tags up in."""
    table = {one.tag: one for one in fields}
    table.update({one.packed_tag: one for one in fields if one.repeated})
    return table
