"""`to_dict` and `from_dict`, with betterproto's conventions, for every value that can be decoded.

betterproto's own raise on the number of an unknown enum member and leave bytes and times inside of
maps and wrappers as they are, which JSON then cannot hold.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import betterproto
from betterproto import Casing, _dump_float, _Duration, _parse_float, _Timestamp
from betterproto.casing import safe_snake_case
from dateutil.parser import isoparse  # type: ignore[import-untyped]

from streamkit.codec.message.install import blank, ready
from streamkit.codec.plan import UNSET, Field

__all__ = ["from_dict_values", "to_dict"]

_INT64: Final = frozenset({"int64", "uint64", "sint64", "fixed64", "sfixed64"})


def to_dict(
    self: betterproto.Message,
    casing: Callable[[str], str] = Casing.CAMEL,
    include_default_values: bool = False,
) -> dict[str, Any]:
    """Return what `json.dumps` takes. Fields that are not set are left out, unless asked for."""
    values = self.__dict__
    output: dict[str, Any] = {}
    for field in ready(type(self)).declared:
        value = values.get(field.name, UNSET)
        if not include_default_values and not _shown(field, value):
            continue
        if value is UNSET:
            bare = field.kind == "message" and not field.plural and not field.optional
            value = blank(field.target) if bare else field.default()
        name = casing(field.name).rstrip("_")
        if value is None:
            output[name] = None
        elif field.kind == "map":
            assert field.value is not None
            item = field.value
            output[name] = {
                key: _plain(item, one, casing, include_default_values, in_map=True)
                for key, one in value.items()
            }
        elif field.repeated:
            output[name] = [_plain(field, one, casing, include_default_values) for one in value]
        else:
            output[name] = _plain(field, value, casing, include_default_values)
    return output


def _shown(field: Field, value: Any) -> bool:
    if value is UNSET or value is None:
        return False
    if field.plural:
        return len(value) > 0
    if field.group or field.optional:
        return True
    if field.kind == "message":
        return bool(value._serialized_on_wire)
    return field.presence or bool(value != field.default())


def _plain(
    field: Field, value: Any, casing: Any, include_default_values: bool, in_map: bool = False
) -> Any:
    kind = field.kind
    if value is None:
        return None
    if kind == "message":
        if not isinstance(value, betterproto.Message):
            return value  # what Struct.from_dict leaves are plain values already
        return value.to_dict(casing, include_default_values)
    if kind == "timestamp":
        return _Timestamp.timestamp_to_json(value)
    if kind == "duration":
        return _Duration.delta_to_json(value)
    if kind == "enum" and not in_map:
        assert field.target is not None
        member = field.target.try_value(value)  # type: ignore[attr-defined]
        return int(value) if member.name is None else member.name
    if isinstance(value, (bytes, bytearray)):
        return b64encode(value).decode()
    if kind in _INT64 and not in_map:
        return str(value)
    return _dump_float(value) if isinstance(value, float) else value


def from_dict_values(
    cls: type[betterproto.Message], mapping: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the arguments of the constructor for what `to_dict` or JSON gives."""
    by_name = ready(cls).by_name
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        field = by_name.get(safe_snake_case(key))
        if field is None or value is None:
            continue
        if field.kind == "map":
            assert field.key is not None and field.value is not None
            item = field.value
            values[field.name] = {_key(field.key, one): _value(item, value[one]) for one in value}
        elif isinstance(value, list):
            values[field.name] = [_value(field, one) for one in value]
        else:
            values[field.name] = _value(field, value)
    return values


def _key(field: Field, key: Any) -> Any:
    """JSON has only text for keys."""
    if field.kind == "string" or not isinstance(key, str):
        return key
    return key == "true" if field.kind == "bool" else int(key)


def _value(field: Field, value: Any) -> Any:
    kind = field.wrapped.kind if field.kind == "wrapper" else field.kind
    if kind == "message":
        if isinstance(value, betterproto.Message):
            return value
        assert field.target is not None
        return field.target.from_dict(value)  # type: ignore[attr-defined]
    if kind == "enum":
        assert field.target is not None
        enum: Any = field.target
        return enum.from_string(value) if isinstance(value, str) else enum.try_value(value)
    if not isinstance(value, str):
        return float(value) if kind in ("float", "double") and value is not None else value
    if kind == "timestamp":
        return isoparse(value)
    if kind == "duration":
        return timedelta(seconds=float(value[:-1]))
    if kind == "bytes":
        return b64decode(value)
    if kind in ("float", "double"):
        return _parse_float(value)
    return value if kind in ("string", "bool") else int(value)
