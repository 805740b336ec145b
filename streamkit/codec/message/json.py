"""Messages as JSON, by protobuf's rules: what every other protobuf reads and writes.

Two faces: the functions `to_json` and `from_json` are strict, for peers; `to_dict`, `from_dict` and
the methods of their names keep betterproto's conventions where those are no contradiction.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import betterproto
from betterproto import Casing

from streamkit.codec.message.json_read import Reader, parsed
from streamkit.codec.message.json_values import Unfit
from streamkit.codec.message.json_write import Writer
from streamkit.errors import DecodeError, EncodeError

__all__ = [
    "from_dict_values",
    "from_json",
    "from_json_method",
    "to_dict",
    "to_json",
    "to_json_method",
]

_M = TypeVar("_M", bound=betterproto.Message)


def to_json(message: betterproto.Message) -> str:
    """Return the message as JSON in its shortest form.

    Raises EncodeError, with the path of the field, for a value that its field cannot hold and for
    what JSON has no form of: an Any of a class that is not loaded, a Value that is not finite.
    """
    plain = _written(message, Writer(type(message).__module__))
    return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def from_json(
    cls: type[_M], text: str | bytes | bytearray | memoryview, *, ignore_unknown: bool = False
) -> _M:
    """Return the message that the JSON stands for.

    Raises DecodeError with the path of the wrong field. With `ignore_unknown`, fields and members
    of enums whose names nobody knows are passed over.
    """
    reader = Reader(cls.__module__, ignore_fields=ignore_unknown, ignore_members=ignore_unknown)
    with _refusals(cls):
        return reader.message(cls, parsed(text))


def to_dict(
    self: betterproto.Message,
    casing: Callable[[str], str] = Casing.CAMEL,
    include_default_values: bool = False,
) -> dict[str, Any]:
    """Return what `json.dumps` takes. Fields that are not set are left out, unless asked for.

    Members of enums have the names that they have in Python.
    """
    writer = Writer(
        type(self).__module__,
        lenient=True,
        # Protobuf's own rule is camel case too, and right for more names.
        casing=None if casing == Casing.CAMEL else casing,
        defaults=include_default_values,
    )
    plain: dict[str, Any] = _written(self, writer)
    return plain


def from_dict_values(cls: type[betterproto.Message], mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the constructor for what `to_dict` or JSON gives."""
    reader = Reader(cls.__module__, ignore_fields=True, lenient=True)
    with _refusals(cls):
        values: dict[str, Any] = reader.values(cls, mapping)
    return values


def from_json_method(self: _M, value: str | bytes) -> _M:
    """Set the fields that the JSON has, and return the message. Unknown fields are passed over."""
    cls = type(self)
    with _refusals(cls):
        values = Reader(cls.__module__, ignore_fields=True).values(cls, parsed(value))
    self._serialized_on_wire = True
    for name, one in values.items():
        setattr(self, name, one)
    return self


def to_json_method(
    self: betterproto.Message,
    indent: int | str | None = None,
    include_default_values: bool = False,
    casing: Callable[[str], str] = Casing.CAMEL,
) -> str:
    """Return what `to_dict` gives as text."""
    return json.dumps(to_dict(self, casing, include_default_values), indent=indent)


def _written(message: betterproto.Message, writer: Writer) -> Any:
    try:
        return writer.message(message)
    except Unfit as bad:
        raise EncodeError(bad.reason, _path(type(message), bad)) from None
    except RecursionError:
        raise EncodeError("nested too deeply", type(message).__name__) from None


@contextmanager
def _refusals(cls: type) -> Iterator[None]:
    try:
        yield
    except Unfit as bad:
        raise DecodeError(bad.reason, _path(cls, bad)) from None
    except RecursionError:
        raise DecodeError("nested too deeply", cls.__name__) from None


def _path(cls: type, bad: Unfit) -> str:
    return "".join([cls.__name__, *reversed(bad.path)])
