"""From messages to what `json.dumps` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import betterproto

from streamkit.codec.message.install import blank, decoder_for, ready
from streamkit.codec.message.json_values import (
    Unfit,
    as_bool,
    as_text,
    bytes_text,
    called,
    float_value,
    paths_text,
    span_text,
    time_text,
)
from streamkit.codec.message.names import EnumNames, JsonField, class_named, json_names, special
from streamkit.codec.wire.field import INTEGER_RANGE, UNSET, Field
from streamkit.codec.wire.scan import DEPTH
from streamkit.codec.wire.times import duration_parts, timestamp_parts
from streamkit.errors import DecodeError

__all__ = ["Writer"]

_AS_TEXT: Final = frozenset({"int64", "uint64", "sint64", "fixed64", "sfixed64"})


class Writer:
    """Makes plain values; raises Unfit for what JSON or the field cannot hold.

    With `lenient`, for `to_dict`: members of enums have their names in Python, keys of maps are
    left as they are, and a value that does not fit its field or the message in an Any that nobody
    knows is shown all the same. `casing` names the fields; `defaults` shows those that are not set.
    """

    def __init__(
        self,
        near: str,
        *,
        lenient: bool = False,
        casing: Callable[[str], str] | None = None,
        defaults: bool = False,
    ) -> None:
        self.near = near
        self.lenient = lenient
        self.casing = casing
        self.defaults = defaults

    def message(self, message: Any, depth: int = DEPTH) -> Any:
        if depth == 0:
            raise Unfit("nested too deeply")
        cls = type(message)
        ready(cls)
        name = special(cls)
        return self._special(name, message, depth) if name else self._fields(message, depth)

    def _fields(self, message: Any, depth: int) -> dict[str, Any]:
        output: dict[str, Any] = {}
        values = vars(message)
        for one in json_names(type(message)).fields:
            field = one.field
            value = values.get(field.name, UNSET)
            if not _shown(field, value):
                if not self.defaults:
                    continue
                if value is UNSET:
                    bare = field.kind == "message" and not field.plural and not field.optional
                    value = blank(field.target) if bare else field.default()
            name = self.casing(field.name).rstrip("_") if self.casing else one.name
            try:
                output[name] = None if value is None else self._field(one, value, depth)
            except Unfit as bad:
                bad.path.append(f".{field.name}")
                raise
        return output

    def _field(self, one: JsonField, value: Any, depth: int) -> Any:
        field = one.field
        if field.kind == "map":
            return self._map(one, value, depth)
        if not field.repeated:
            return self._one(field, one.enum, value, depth)
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            if not self.lenient:
                raise Unfit(f"{called(value)} is not a list")
            value = [value]  # as betterproto does it
        items: list[Any] = []
        for item in value:
            try:
                items.append(self._one(field, one.enum, item, depth))
            except Unfit as bad:
                bad.path.append(f"[{len(items)}]")
                raise
        return items

    def _map(self, one: JsonField, value: Any, depth: int) -> dict[Any, Any]:
        item = one.field.value
        assert item is not None
        output: dict[Any, Any] = {}
        if not isinstance(value, Mapping):
            raise Unfit(f"{called(value)} is not a dict")
        for key, element in value.items():
            try:
                name = key if self.lenient else _key(one.field, key)
                output[name] = self._one(item, one.enum, element, depth)
            except Unfit as bad:
                bad.path.append(f"[{key!r}]")
                raise
        return output

    def _one(self, field: Field, enum: EnumNames | None, value: Any, depth: int) -> Any:
        kind = field.wrapped.kind if field.kind == "wrapper" else field.kind
        if kind == "message":
            if not isinstance(value, betterproto.Message):
                # What Struct.from_dict leaves are plain values already.
                return _plain(value, depth - 1)
            return self.message(value, depth - 1)
        try:
            if kind == "enum":
                assert enum is not None
                return self._member(enum, value)
            return _scalar(kind, value)
        except Unfit:
            if self.lenient:
                return value
            raise

    def _member(self, enum: EnumNames, value: Any) -> Any:
        if enum.null:
            return None
        number = _integer("enum", value)
        # betterproto shows the names that Python has.
        name = enum.members.get(number) or (enum.python.get(number) if self.lenient else None)
        return number if name is None else name

    def _special(self, name: str, message: Any, depth: int) -> Any:
        if name == "Any":
            return self._any(message, depth)
        if name == "Timestamp":
            return time_text(message.seconds, message.nanos)
        if name == "Duration":
            return span_text(message.seconds, message.nanos)
        if name == "FieldMask":
            return paths_text(message.paths)
        if name in ("Struct", "ListValue", "Value"):
            return _plain(message, depth)
        return self._one(ready(type(message)).declared[0], None, message.value, depth)

    def _any(self, message: Any, depth: int) -> Any:
        url, value = as_text(message.type_url), message.value
        if not url and not value:
            return {}
        _, slash, name = url.rpartition("/")
        cls = class_named(name, self.near) if slash else None
        if cls is None:
            if self.lenient:
                return {"typeUrl": url, "value": bytes_text(value)}
            raise Unfit(f"there is no class for {called(url)}")
        try:
            inner = decoder_for(cls)(value)
        except DecodeError as error:
            raise Unfit(f"the value is no {name}: {error}") from None
        shown = self.message(inner, depth - 1)
        return {"@type": url, "value": shown} if special(cls) else {"@type": url, **shown}


def _shown(field: Field, value: Any) -> bool:
    if value is UNSET or value is None:
        return False
    if field.plural:
        return not hasattr(value, "__len__") or len(value) > 0
    if field.group or field.optional:
        return True
    if field.kind == "message":
        return not isinstance(value, betterproto.Message) or bool(value._serialized_on_wire)
    return field.presence or not _is_default(field, value)


def _is_default(field: Field, value: Any) -> bool:
    # Minus zero is not the default.
    return bool(value == field.default()) and not (
        isinstance(value, float) and str(value)[0] == "-"
    )


def _key(field: Field, key: Any) -> str:
    assert field.key is not None
    if field.key.kind == "string":
        return as_text(key)
    if field.key.kind == "bool":
        return "true" if as_bool(key) else "false"
    return str(_integer(field.key.kind, key))


def _integer(kind: str, value: Any) -> int:
    if not isinstance(value, int):
        raise Unfit(f"{called(value)} is not an integer")
    low, high = INTEGER_RANGE[kind]
    if not low <= value <= high:
        raise Unfit(f"{int(value)} is out of range for {kind}")
    return int(value)


def _scalar(kind: str, value: Any) -> Any:
    if kind == "string":
        return as_text(value)
    if kind in INTEGER_RANGE:
        number = value if kind == "int64" and type(value) is int else _integer(kind, value)
        return str(number) if kind in _AS_TEXT else number
    if kind == "bool":
        return bool(value) if isinstance(value, int) else as_bool(value)
    if kind == "bytes":
        return bytes_text(value)
    if kind == "timestamp":
        if not isinstance(value, datetime):
            raise Unfit(f"{called(value)} is not a datetime")
        return time_text(*timestamp_parts(value))
    if kind == "duration":
        if not isinstance(value, timedelta):
            raise Unfit(f"{called(value)} is not a timedelta")
        return span_text(*duration_parts(value))
    return float_value(kind, value)


def _plain(value: Any, depth: int) -> Any:
    """A Struct, ListValue or Value, or what is plain Python already."""
    if isinstance(value, betterproto.Message):
        value = _held(value)
    if depth == 0:
        raise Unfit("nested too deeply")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        number = float_value("double", value)
        if isinstance(number, str):
            raise Unfit(f"{number} has no JSON in a Value")
        return int(number) if 0 < abs(number) < 1 << 53 and number.is_integer() else number
    if isinstance(value, str):
        return as_text(value)
    # No comprehensions: each would be a frame more, and this may be a hundred levels deep.
    if isinstance(value, Mapping):
        entries: dict[str, Any] = {}
        for key, one in value.items():
            try:
                entries[as_text(key)] = _plain(one, depth - 1)
            except Unfit as bad:
                bad.path.append(f"[{key!r}]")
                raise
        return entries
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        items: list[Any] = []
        for one in value:
            try:
                items.append(_plain(one, depth - 1))
            except Unfit as bad:
                bad.path.append(f"[{len(items)}]")
                raise
        return items
    raise Unfit(f"{called(value)} is not a JSON value")


def _held(message: betterproto.Message) -> Any:
    """What a Struct, ListValue or Value stands for; of a Value in a Value, the inner one's."""
    name, values = special(type(message)), vars(message)
    if name == "Value":
        kind, held = betterproto.which_one_of(message, "kind")
        if kind == "":
            raise Unfit("a Value without a kind has no JSON")
        if kind == "null_value":
            return None
        if not isinstance(held, betterproto.Message):
            return held
        name, values = special(type(held)), vars(held)
    if name == "Struct":
        return values.get("fields", {})
    if name == "ListValue":
        return values.get("values", [])
    raise Unfit(f"{called(message)} is not a JSON value")
