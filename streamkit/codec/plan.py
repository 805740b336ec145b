"""What a message class is, as data: read once from betterproto, used by everything else here.

A `MessagePlan` holds no code and no text. The emitters turn it into source, the exact codec walks
it, the installer takes the default values from it.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import betterproto

from streamkit.codec.wire.runs import Runs

__all__ = [
    "EPOCH",
    "FIXED_FORMAT",
    "INTEGER_RANGE",
    "LEN",
    "UNSET",
    "VARINT_KINDS",
    "WIRE_TYPE",
    "Field",
    "MessagePlan",
    "plan_of",
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
        return bool(self.optional or self.group) or self.kind in _MESSAGE_KINDS

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
            return self.target.try_value(0)  # type: ignore[attr-defined]
        return _SCALAR_DEFAULT[self.kind]


_MESSAGE_KINDS: Final = frozenset({"message", "timestamp", "duration", "wrapper"})


_FEW: Final = 8


@dataclass(frozen=True, slots=True)
class MessagePlan:
    """A message class. `fields` are in the order of their numbers, `declared` as written."""

    cls: type[betterproto.Message]
    name: str
    fields: tuple[Field, ...]
    declared: tuple[Field, ...]
    by_name: dict[str, Field] = field(repr=False)
    by_tag: dict[int, Field] = field(repr=False)
    """Every tag that the class knows; repeated numbers have two, packed and not packed."""
    groups: dict[str, tuple[str, ...]]
    siblings: dict[str, tuple[str, ...]] = field(repr=False)
    """Member of a oneof -> the other members."""
    runs: Runs = field(repr=False)

    @property
    def flat(self) -> bool:
        """Whether there are but a few fields, all of them single numbers or texts."""
        return 0 < len(self.fields) <= _FEW and not any(
            one.plural or one.group or one.kind in _MESSAGE_KINDS for one in self.fields
        )


def plan_of(cls: type[betterproto.Message]) -> MessagePlan:
    """Read the class. Raises NameError when a type named in an annotation cannot be found."""
    module = sys.modules.get(cls.__module__)
    hints = typing.get_type_hints(cls, vars(module) if module else {}, {})
    written = tuple(
        _field(one.name, one.metadata["betterproto"], hints[one.name])
        for one in dataclasses.fields(cls)  # type: ignore[arg-type]
    )
    groups: dict[str, list[str]] = {}
    for one in written:
        if one.group:
            groups.setdefault(one.group, []).append(one.name)
    # An optional field may come with the one-member oneof that protoc makes up for it. The members
    # of a real one are optional, too, in the classes that are made for pydantic.
    made_up = {
        one.group
        for one in written
        if one.optional and one.group.startswith("_") and groups[one.group] == [one.name]
    }
    declared = tuple(
        dataclasses.replace(one, group="") if one.group in made_up else one for one in written
    )
    for name in made_up:
        del groups[name]
    by_tag = tags_of(declared)
    return MessagePlan(
        cls=cls,
        name=cls.__name__,
        fields=tuple(sorted(declared, key=lambda one: one.number)),
        declared=declared,
        by_name={one.name: one for one in declared},
        by_tag=by_tag,
        runs=Runs(by_tag, cls),
        groups={name: tuple(members) for name, members in groups.items()},
        siblings={
            one.name: tuple(name for name in groups[one.group] if name != one.name)
            for one in declared
            if one.group
        },
    )


def tags_of(fields: Iterable[Field]) -> dict[int, Field]:
    """Return the table that the exact decoder looks tags up in."""
    table = {one.tag: one for one in fields}
    table.update({one.packed_tag: one for one in fields if one.repeated})
    return table


def _field(name: str, meta: betterproto.FieldMetadata, hint: Any) -> Field:
    hint = _without_none(hint)
    origin = typing.get_origin(hint)
    if meta.proto_type == betterproto.TYPE_MAP:
        assert meta.map_types is not None
        key_hint, value_hint = typing.get_args(hint)
        key = _typed("key", 1, meta.map_types[0], key_hint)
        value = _typed("value", 2, meta.map_types[1], value_hint)
        return Field(name, meta.number, "map", key=key, value=value)
    repeated = origin is list
    if repeated:
        hint = typing.get_args(hint)[0]
    one = _typed(name, meta.number, meta.proto_type, hint, wraps=meta.wraps or "")
    return dataclasses.replace(
        one, repeated=repeated, optional=bool(meta.optional), group=meta.group or ""
    )


def _typed(name: str, number: int, proto_type: str, hint: Any, *, wraps: str = "") -> Field:
    hint = _without_none(hint)
    if proto_type == betterproto.TYPE_ENUM:
        return Field(name, number, "enum", target=hint)
    if proto_type != betterproto.TYPE_MESSAGE:
        return Field(name, number, proto_type)
    if wraps or hint in _WRAPPED:
        # betterproto does not record what a map's wrapper wraps: see _WRAPPED.
        return Field(name, number, "wrapper", wraps=wraps or _WRAPPED[hint])
    if hint is datetime:
        return Field(name, number, "timestamp")
    if hint is timedelta:
        return Field(name, number, "duration")
    return Field(name, number, "message", target=hint)


_WRAPPED: Final[dict[Any, str]] = {
    bool: "bool",
    int: "int64",
    float: "any_float",
    str: "string",
    bytes: "bytes",
}
"""The wrapper behind a map's value, by its annotation. An int may be any of four wrappers, which
agree on the wire up to 63 bits; a float is read in either width and written as a double."""


def _without_none(hint: Any) -> Any:
    while typing.get_origin(hint) in (typing.Union, types.UnionType):
        left = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(left) != 1:
            break
        hint = left[0]
    return hint
