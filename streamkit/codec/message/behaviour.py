"""What betterproto.Message does, on top of the state that _install describes.

Each method keeps the contract of betterproto's documentation; the differences are fixes. They are
put on `betterproto.Message` once, which also ends the replacement of `parse` and `__bytes__` by
betterproto_rust_codec when that is installed: there is one codec, whatever else is there.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import betterproto

from streamkit.codec.message.install import blank, decoder_for, encoder_for, ready
from streamkit.codec.message.json import from_dict_values, from_json_method, to_dict, to_json_method
from streamkit.codec.wire.field import UNSET, Field
from streamkit.errors import DecodeError

__all__ = ["take_over"]

Message = betterproto.Message


class _Reader(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Writer(Protocol):
    def write(self, data: bytes, /) -> object: ...


def _post_init(self: Message) -> None:
    """Runs after betterproto's own `__init__`, the first time that a class is used."""
    plan = ready(type(self))
    values = self.__dict__
    kept = {
        name: values[name]
        for name, field in plan.by_name.items()
        if values.get(name, UNSET) is not UNSET and not (field.optional and values[name] is None)
    }
    # Of several members of a oneof the last one stays.
    last = {plan.by_name[name].group: name for name in kept}
    for name in list(kept):
        group = plan.by_name[name].group
        if group and last[group] != name:
            del kept[name]
    blank = values.get("_blank", False)
    values.clear()
    values.update(kept)
    if not kept and plan.declared:
        values["_blank"] = blank


def _bytes(self: Message) -> bytes:
    return encoder_for(type(self))(self)


def _serialize(self: Message) -> bytes:
    return self.__bytes__()


def _length(self: Message) -> int:
    return len(self.__bytes__())


def _dump(self: Message, stream: _Writer, delimit: bool = False) -> None:
    data = self.__bytes__()
    if delimit:  # documented as a bool; what is passed is SIZE_DELIMITED, which is -1
        betterproto.dump_varint(len(data), stream)
    stream.write(data)


def _from_string(cls: type[Message], data: bytes) -> Message:
    return decoder_for(cls)(data)


def _parse(self: Message, data: bytes) -> Message:
    ready(type(self))
    values = self.__dict__
    if values and values.keys() != {"_blank"}:
        # To parse into a message that has content is to merge, which is to decode one after other.
        data = self.__bytes__() + bytes(data)
    fresh = decoder_for(type(self))(data)
    values.clear()
    values.update(fresh.__dict__)
    return self


def _load(self: Message, stream: _Reader, size: int | None = None) -> Message:
    if size == betterproto.SIZE_DELIMITED:
        size, _ = betterproto.load_varint(stream)
    data = stream.read() if size is None else stream.read(size)
    if size is not None and len(data) < size:
        reason = f"{size} bytes were announced and {len(data)} came"
        raise DecodeError(reason, type(self).__name__)
    return self.parse(data)


def _equal(self: Message, other: object) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    plan = ready(type(self))
    mine, theirs = self.__dict__, other.__dict__
    for field in plan.fields:
        left, right = mine.get(field.name, UNSET), theirs.get(field.name, UNSET)
        if left is right:
            continue
        left = _default(field) if left is UNSET else left
        right = _default(field) if right is UNSET else right
        if not (left == right or _same(left, right)):
            return False
    return True


def _same(left: Any, right: Any) -> bool:
    """Whether two values that are not equal stand for the same on the wire."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isnan(left) and math.isnan(right)
    if isinstance(left, datetime) and isinstance(right, datetime):
        return _aware(left) == _aware(right)
    if isinstance(left, list) and isinstance(right, list):
        pairs: Iterable[tuple[Any, Any]] = zip(left, right, strict=False)
        return len(left) == len(right) and all(a == b or _same(a, b) for a, b in pairs)
    if isinstance(left, dict) and isinstance(right, dict):
        pairs = ((left[key], right[key]) for key in left if key in right)
        same = left.keys() == right.keys()
        return same and all(a == b or _same(a, b) for a, b in pairs)
    return False


def _aware(value: datetime) -> datetime:
    return value if value.utcoffset() is not None else value.replace(tzinfo=UTC)


def _default(field: Field) -> Any:
    if field.kind == "message" and not field.plural and not field.optional:
        return blank(field.target)
    return field.default()


def _true(self: Message) -> bool:
    plan = ready(type(self))
    values = self.__dict__
    return any(
        field.name in values and values[field.name] != _default(field) for field in plan.fields
    )


def _shown(self: Message) -> Iterator[tuple[str, Any]]:
    values = self.__dict__
    for field in ready(type(self)).fields:
        value = values.get(field.name, None if field.optional else UNSET)
        if value is not UNSET:
            yield field.name, value


def _repr(self: Message) -> str:
    shown = ", ".join(f"{name}={value!r}" for name, value in _shown(self))
    return f"{type(self).__name__}({shown})"


def _rich_repr(self: Message) -> Iterator[tuple[str, Any, Any]]:
    for name, value in _shown(self):
        yield name, value, UNSET


def _copy(self: Message) -> Message:
    ready(type(self))
    copied: Message = object.__new__(type(self))
    copied.__dict__.update(self.__dict__)
    return copied


def _deepcopy(self: Message, memo: dict[int, Any] | None = None) -> Message:
    ready(type(self))
    copied: Message = object.__new__(type(self))
    copied.__dict__.update(deepcopy(self.__dict__, memo))
    return copied


def _is_set(self: Message, name: str) -> bool:
    field = ready(type(self)).by_name[name]
    value = self.__dict__.get(name, UNSET)
    if value is UNSET or (field.optional and value is None):
        return False
    # A sub-message that attribute access made is not set until something is put into it.
    looked_at = isinstance(value, betterproto.Message) and value.__dict__.get("_blank", False)
    return not looked_at or bool(value._serialized_on_wire)


_METHODS: Final[dict[str, Any]] = {
    "__post_init__": _post_init,
    "__bytes__": _bytes,
    "__len__": _length,
    "__eq__": _equal,
    "__bool__": _true,
    "__repr__": _repr,
    "__rich_repr__": _rich_repr,
    "__copy__": _copy,
    "__deepcopy__": _deepcopy,
    "SerializeToString": _serialize,
    "FromString": classmethod(_from_string),
    "parse": _parse,
    "load": _load,
    "dump": _dump,
    "is_set": _is_set,
    "to_dict": to_dict,
    "to_json": to_json_method,
    "from_json": from_json_method,
    "_from_dict_init": classmethod(from_dict_values),
}


def _is_own(cls: type) -> bool:
    # "abc" or "types": betterproto makes its classes of map entries with `make_dataclass`.
    return cls.__module__.partition(".")[0] in ("betterproto", "streamkit", "abc", "types")


def _forget_unset(message: Message) -> None:
    values = object.__getattribute__(message, "__dict__")
    sent = values.pop("_serialized_on_wire", True)
    chosen = values.pop("_group_current", {})
    unknown = values.pop("_unknown_fields", b"")
    for name in [name for name, value in values.items() if value is UNSET]:
        del values[name]
    for field in ready(type(message)).declared:
        if field.group and chosen.get(field.group) != field.name:
            values.pop(field.name, None)
    if unknown:
        values["_unknown_fields"] = unknown
    if not sent:
        values["_blank"] = False


def take_over() -> None:
    """Put the methods on betterproto.Message, and bring what exists into the form of _install.

    Messages that were made before the codec came hold betterproto's mark for every field that is
    not set; without it they are the same to betterproto, and right for an installed class.
    """
    if any(not _is_own(cls) for cls in Message.__subclasses__()):
        for message in [one for one in gc.get_objects() if isinstance(one, Message)]:
            _forget_unset(message)
    for name, method in _METHODS.items():
        function = getattr(method, "__func__", method)
        # pickle looks for FromString by the name of what it is given.
        function.__name__ = name
        function.__qualname__ = f"Message.{name}"
        setattr(betterproto.Message, name, method)
