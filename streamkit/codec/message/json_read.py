"""From what `json.loads` gives to messages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import betterproto
from dateutil.parser import isoparse  # type: ignore[import-untyped]  # no stubs for this alone

from streamkit.codec.message.install import encoder_for, ready
from streamkit.codec.message.json_values import (
    Literal,
    Unfit,
    as_bool,
    as_bytes,
    as_float,
    as_integer,
    as_paths,
    as_seconds,
    as_span,
    as_text,
    called,
)
from streamkit.codec.message.names import EnumNames, JsonField, class_named, json_names, special
from streamkit.codec.wire.field import INTEGER_RANGE, Field
from streamkit.codec.wire.scan import DEPTH
from streamkit.codec.wire.times import duration_from, timestamp_from
from streamkit.errors import EncodeError

__all__ = ["Reader", "parsed"]

_M = TypeVar("_M", bound=betterproto.Message)

_IGNORED: Final[Any] = object()
"""In place of a value that is left out."""


class Twice(dict[str, Any]):
    """An object with two values of one name: refused where it is met."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Twice(pairs)


def _no_constant(name: str) -> Any:
    raise Unfit(f"{name} is not JSON")


def parsed(text: str | bytes | bytearray | memoryview) -> Any:
    """Return the value; numbers are kept as they are written. Raises Unfit."""
    try:
        if not isinstance(text, str):
            text = bytes(text).decode()
        return json.loads(
            text,
            parse_int=Literal,
            parse_float=Literal,
            parse_constant=_no_constant,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError:
        raise Unfit("the text is not valid UTF-8") from None
    except json.JSONDecodeError as error:
        reason = f"{error.msg}, at line {error.lineno}, column {error.colno}"
        raise Unfit(f"not JSON: {reason}") from None
    except RecursionError:
        raise Unfit("nested too deeply") from None


class Reader:
    """Makes messages; raises Unfit.

    `ignore_fields`: names of fields that nobody knows are passed over; `ignore_members`: likewise
    those of members of enums, with the field. `lenient` takes what betterproto takes from a dict:
    messages, bytes and times as they are, times without an offset, one value for a list.
    """

    def __init__(
        self,
        near: str,
        *,
        ignore_fields: bool = False,
        ignore_members: bool = False,
        lenient: bool = False,
    ) -> None:
        self.near = near
        self.ignore_fields = ignore_fields
        self.ignore_members = ignore_members
        self.lenient = lenient

    def message(self, cls: type[_M], value: Any, depth: int = DEPTH) -> _M:
        if self.lenient and isinstance(value, cls):
            return value
        return _made(cls, self.values(cls, value, depth))

    def values(self, cls: type[betterproto.Message], value: Any, depth: int = DEPTH) -> Any:
        """The fields of a message, by their names in Python."""
        if depth == 0:
            raise Unfit("nested too deeply")
        name = special(cls)
        return self._special(name, cls, value, depth) if name else self._fields(cls, value, depth)

    def _fields(self, cls: type[betterproto.Message], value: Any, depth: int) -> dict[str, Any]:
        names = json_names(cls)
        values: dict[str, Any] = {}
        seen: set[str] = set()
        chosen: dict[str, str] = {}
        for name, one in _object_of(value).items():
            found = names.find(name)
            if found is None:
                if self.ignore_fields:
                    continue
                near = names.near(name)
                hint = f'; did you mean "{near}"?' if near else ""
                raise Unfit(f"there is no field {called(name)}{hint}")
            field = found.field
            try:
                if field.name in seen:
                    raise Unfit("the field is there twice, under two names")
                seen.add(field.name)
                read = self._field(found, one, depth)
                if read is _IGNORED:
                    continue
                if field.group:
                    other = chosen.setdefault(field.group, name)
                    if other != name:
                        raise Unfit(f"only one of {field.group} may be set, and {other} is")
            except Unfit as bad:
                bad.path.append(f".{name}")
                raise
            values[field.name] = read
        return values

    def _field(self, found: JsonField, value: Any, depth: int) -> Any:
        field = found.field
        if value is None and not _takes_null(field, found.enum):
            return _IGNORED
        if field.kind == "map":
            return self._map(found, value, depth)
        if not field.repeated:
            return self._one(field, found.enum, value, depth)
        if not isinstance(value, list):
            if not self.lenient or isinstance(value, (str, dict)):
                raise Unfit(f"{called(value)} is not a list")
            value = list(value) if hasattr(value, "__iter__") else [value]
        items: list[Any] = []
        for index, one in enumerate(value):
            try:
                item = self._element(field, found.enum, one, depth)
            except Unfit as bad:
                bad.path.append(f"[{index}]")
                raise
            if item is not _IGNORED:
                items.append(item)
        return items

    def _map(self, found: JsonField, value: Any, depth: int) -> dict[Any, Any]:
        key, item = found.field.key, found.field.value
        assert key is not None and item is not None
        items: dict[Any, Any] = {}
        for name, one in _object_of(value).items():
            try:
                read_key = self._key(key, name)
                if read_key in items:
                    raise Unfit("the key is there twice")
                read = self._element(_wide(item, one), found.enum, one, depth)
            except Unfit as bad:
                bad.path.append(f"[{json.dumps(name, default=str)}]")
                raise
            if read is not _IGNORED:
                items[read_key] = read
        return items

    def _key(self, key: Field, name: Any) -> Any:
        if self.lenient and not isinstance(name, str):
            return name
        if key.kind == "string":
            return as_text(name)
        if key.kind != "bool":
            return as_integer(key.kind, name)
        if name not in ("true", "false"):
            raise Unfit(f"{called(name)} is neither true nor false")
        return name == "true"

    def _element(self, field: Field, enum: EnumNames | None, value: Any, depth: int) -> Any:
        """A value of a list or map, where null is none."""
        if value is None and not _null_is_one(field, enum):
            raise Unfit("null stands in a list or map")
        return self._one(field, enum, value, depth)

    def _one(self, field: Field, enum: EnumNames | None, value: Any, depth: int) -> Any:
        kind = field.wrapped.kind if field.kind == "wrapper" else field.kind
        if kind == "message":
            assert field.target is not None
            return self.message(field.target, value, depth - 1)
        if kind == "enum":
            assert enum is not None
            return self._member(field.target, enum, value)
        if kind == "string":
            return as_text(value)
        if kind in INTEGER_RANGE:
            return as_integer(kind, value)
        if kind == "bool":
            return as_bool(value)
        if kind == "bytes":
            return as_bytes(value)
        if kind in ("timestamp", "duration"):
            return self._time(kind, value)
        return as_float(kind, value)

    def _member(self, target: Any, enum: EnumNames, value: Any) -> Any:
        if value is None and enum.null:
            return target.try_value(0)
        if isinstance(value, str) and not isinstance(value, Literal):
            number = enum.numbers.get(value)
            if number is not None:
                return target.try_value(number)
            if not value.lstrip("-").isdecimal():
                if self.ignore_members:
                    return _IGNORED
                raise Unfit(f"{target.__name__} has no {called(value)}")
        return target.try_value(as_integer("enum", value))

    def _time(self, kind: str, value: Any) -> datetime | timedelta:
        if self.lenient and isinstance(value, (datetime, timedelta)):
            return value
        if kind == "duration":
            return duration_from(*as_span(value))
        try:
            return timestamp_from(*as_seconds(value))
        except Unfit:
            if not self.lenient:
                raise
        try:
            moment: datetime = isoparse(as_text(value))
        except ValueError:
            raise Unfit(f"{called(value)} is not a time") from None
        return moment

    def _special(self, name: str, cls: Any, value: Any, depth: int) -> dict[str, Any]:
        if name == "Any":
            return self._any(value, depth)
        if name in ("Timestamp", "Duration"):
            seconds, nanos = as_seconds(value) if name == "Timestamp" else as_span(value)
            return {"seconds": seconds, "nanos": nanos}
        if name == "FieldMask":
            return {"paths": as_paths(value)}
        fields = ready(cls).by_name
        if name == "Struct":
            item = fields["fields"].value
            assert item is not None
            return _struct(item.target, _object_of(value), depth)
        if name == "ListValue":
            return _list(fields["values"].target, _list_of(value), depth)
        if name == "Value":
            return _value(cls, value, depth)
        return {"value": self._one(fields["value"], None, value, depth)}

    def _any(self, value: Any, depth: int) -> dict[str, Any]:
        entries = dict(_object_of(value))
        if not entries:
            return {}
        url = entries.pop("@type", None)
        if url is None:
            if self.lenient and not entries.keys() - {"typeUrl", "type_url", "value"}:
                text = entries.get("typeUrl", entries.get("type_url", ""))
                return {"type_url": as_text(text), "value": as_bytes(entries.get("value", ""))}
            raise Unfit("an Any has to have @type")
        _, slash, name = as_text(url).rpartition("/")
        cls = class_named(name, self.near) if slash else None
        if cls is None:
            raise Unfit(f"@type: there is no class for {called(url)}")
        if special(cls):
            if "value" not in entries or (len(entries) > 1 and not self.ignore_fields):
                raise Unfit(f"{name} has to be given by @type and value alone")
            try:
                message = self.message(cls, entries["value"], depth - 1)
            except Unfit as bad:
                bad.path.append(".value")
                raise
        else:
            message = self.message(cls, entries, depth - 1)
        try:
            return {"type_url": url, "value": encoder_for(cls)(message)}
        except EncodeError as error:
            raise Unfit(f"{name}: {error}") from None


# A function a level, not a method for each step: JSON may be a hundred levels deep.


def _value(cls: Any, value: Any, depth: int) -> dict[str, Any]:
    """The fields of a Value."""
    if depth == 0:
        raise Unfit("nested too deeply")
    fields = ready(cls).by_name
    match value:
        case None:
            null: Any = fields["null_value"].target
            return {"null_value": null.try_value(0)}
        case bool():
            return {"bool_value": value}
        case Literal() | int() | float():
            return {"number_value": as_float("double", value)}
        case str():
            return {"string_value": as_text(value)}
        case Mapping():
            struct: Any = fields["struct_value"].target
            return {"struct_value": _made(struct, _struct(cls, _object_of(value), depth))}
    many: Any = fields["list_value"].target
    return {"list_value": _made(many, _list(cls, _list_of(value), depth))}


def _struct(cls: Any, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    """The fields of a Struct; `cls` is Value."""
    items: dict[str, Any] = {}
    for name, one in value.items():
        try:
            items[as_text(name)] = _made(cls, _value(cls, one, depth - 1))
        except Unfit as bad:
            bad.path.append(f"[{json.dumps(name, default=str)}]")
            raise
    return {"fields": items}


def _list(cls: Any, value: list[Any], depth: int) -> dict[str, Any]:
    items: list[Any] = []
    for one in value:
        try:
            items.append(_made(cls, _value(cls, one, depth - 1)))
        except Unfit as bad:
            bad.path.append(f"[{len(items)}]")
            raise
    return {"values": items}


def _made(cls: type[_M], values: dict[str, Any]) -> _M:
    ready(cls)
    message = object.__new__(cls)
    vars(message).update(values)
    return message


def _object_of(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Twice):
        raise Unfit("a name is there twice")
    if not isinstance(value, Mapping):
        raise Unfit(f"{called(value)} is not an object")
    return value


def _list_of(value: Any) -> list[Any]:
    if isinstance(value, (str, Mapping)) or not hasattr(value, "__iter__"):
        raise Unfit(f"{called(value)} is not a list")
    return list(value)


def _null_is_one(field: Field, enum: EnumNames | None) -> bool:
    """Whether null is a value of this type."""
    if enum is not None:
        return enum.null
    return field.target is not None and special(field.target) == "Value"


def _takes_null(field: Field, enum: EnumNames | None) -> bool:
    return not field.plural and _null_is_one(field, enum)


def _wide(item: Field, value: Any) -> Field:
    """A map does not say which of four wrappers of integers it holds: one that takes the value."""
    if item.wraps == "int64":
        try:
            as_integer("int64", value)
        except Unfit:
            return replace(item, wraps="uint64")
    return item
