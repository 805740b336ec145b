"""What a message class is, as data: read once from betterproto, used by everything else here.

A `MessagePlan` holds no code and no text. The emitters turn it into source, the exact codec walks
it, the installer takes the default values from it.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import betterproto

from streamkit.codec.wire.field import Field, tags_of
from streamkit.codec.wire.runs import Runs

__all__ = ["MessagePlan", "plan_of"]


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


def plan_of(cls: type[betterproto.Message]) -> MessagePlan:
    """Read the class. Raises NameError when a type named in an annotation cannot be found, and
    TypeError for a class that is no message or has an enum of another kind than betterproto's."""
    if not (issubclass(cls, betterproto.Message) and dataclasses.is_dataclass(cls)):
        raise TypeError(f"{cls.__qualname__} is no message class of betterproto's")
    module = sys.modules.get(cls.__module__)
    hints = typing.get_type_hints(cls, vars(module) if module else {}, {})
    written = tuple(
        _field(one.name, one.metadata["betterproto"], hints[one.name])
        for one in dataclasses.fields(cls)
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
        if not (isinstance(hint, type) and issubclass(hint, betterproto.Enum)):
            shown = getattr(hint, "__qualname__", hint)
            raise TypeError(f"{name}: {shown} is no betterproto.Enum, which an enum field needs")
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
