"""Message classes made of descriptors, for schemas that are known only when they are met.

They are what the plug-in would have written, but for the names: fields are called as in the schema,
and JSON has the schema's names without a file beside the module.
"""

from __future__ import annotations

import itertools
import keyword
import sys
import types
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

import betterproto
import betterproto.lib.google.protobuf as google
from betterproto.casing import pascal_case
from betterproto.lib.google.protobuf import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FieldDescriptorProtoLabel,
    FieldDescriptorProtoType,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from streamkit.codec.message.names import DESCRIBED
from streamkit.errors import InvalidArgumentError, NotFoundError

__all__ = ["Schema"]

_MESSAGE = FieldDescriptorProtoType.TYPE_MESSAGE
_ENUM = FieldDescriptorProtoType.TYPE_ENUM
_GROUP = FieldDescriptorProtoType.TYPE_GROUP
_REPEATED = FieldDescriptorProtoLabel.LABEL_REPEATED
_HINTS: dict[str, type] = {
    **dict.fromkeys(("double", "float"), float),
    **{"bool": bool, "string": str, "bytes": bytes},
}
_GOOGLE = ".google.protobuf."
_PLAIN: dict[str, type] = {"Timestamp": datetime, "Duration": timedelta}
_WRAPPERS: dict[str, tuple[str, type]] = {
    f"{kind}Value": (kind.lower(), _HINTS.get(kind.lower(), int))
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}
_COUNT = itertools.count()


@dataclass(frozen=True, slots=True)
class _Described:
    descriptor: DescriptorProto | EnumDescriptorProto
    package: str
    inside: str
    """Its name and those of what it is in, joined by underscores."""


class Schema:
    """The services and messages of some files, of which each is given as its descriptor."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._described: dict[str, _Described] = {}
        self._classes: dict[str, type] = {}
        self._services: dict[str, ServiceDescriptorProto] = {}
        self._root = f"streamkit_reflected_{next(_COUNT)}"
        for file in files:
            prefix = f".{file.package}" if file.package else ""
            for enum in file.enum_type:
                self._add(enum, f"{prefix}.{enum.name}", file.package, enum.name)
            for message in file.message_type:
                self._add_message(message, f"{prefix}.{message.name}", file.package, message.name)
            for service in file.service:
                self._services[f"{prefix}.{service.name}".removeprefix(".")] = service

    def method(self, service: str, name: str) -> MethodDescriptorProto:
        """Return the description of a method; NotFoundError for one that is not there."""
        found = self._services.get(service)
        for method in found.method if found is not None else ():
            if method.name == name:
                return method
        near = get_close_matches(name, [method.name for method in found.method] if found else [], 1)
        hint = f"did you mean {near[0]}?" if near else ""
        raise NotFoundError(f"there is no method {service}/{name}", hint=hint)

    def message(self, name: str) -> type[betterproto.Message]:
        """Return the class of a message, by its full name; a leading point is passed over."""
        cls: type[betterproto.Message] = self._class(f".{name.removeprefix('.')}")
        return cls

    def _add(self, one: Any, name: str, package: str, inside: str) -> None:
        self._described[name] = _Described(one, package, inside)

    def _add_message(self, one: DescriptorProto, name: str, package: str, inside: str) -> None:
        self._add(one, name, package, inside)
        for enum in one.enum_type:
            self._add(enum, f"{name}.{enum.name}", package, f"{inside}_{enum.name}")
        for nested in one.nested_type:
            deeper = f"{inside}_{nested.name}"
            self._add_message(nested, f"{name}.{nested.name}", package, deeper)

    def _class(self, name: str) -> Any:
        found = self._classes.get(name)
        if found is not None:
            return found
        if name.startswith(_GOOGLE):
            return getattr(google, pascal_case(name.removeprefix(_GOOGLE)))
        described = self._described.get(name)
        if described is None:
            raise InvalidArgumentError(f"the schema does not describe {name.removeprefix('.')}")
        if isinstance(described.descriptor, EnumDescriptorProto):
            return self._enum(name, described, described.descriptor)
        return self._message(name, described, described.descriptor)

    def _module(self, package: str) -> str:
        """The module of a package: an Any finds its class by the end of the name."""
        name = f"{self._root}.{package}" if package else self._root
        sys.modules.setdefault(name, types.ModuleType(name))
        return name

    def _enum(self, name: str, described: _Described, enum: EnumDescriptorProto) -> type:
        space: dict[str, Any] = {"__module__": self._module(described.package)}
        for value in enum.value:
            taken = keyword.iskeyword(value.name) or hasattr(betterproto.Enum, value.name)
            space[f"{value.name}_" if taken else value.name] = value.number
        made: Any = type(betterproto.Enum)
        cls: type = made(pascal_case(described.inside), (betterproto.Enum,), space)
        setattr(cls, DESCRIBED, enum)
        self._classes[name] = cls
        return cls

    def _message(self, name: str, described: _Described, message: DescriptorProto) -> type:
        space: dict[str, Any] = {"__module__": self._module(described.package)}
        cls = type(pascal_case(described.inside), (betterproto.Message,), space)
        setattr(cls, DESCRIBED, message)
        self._classes[name] = cls  # before its fields: they may be of its own kind
        hints: dict[str, Any] = {}
        for field in message.field:
            if field.type == _GROUP:
                continue  # an unknown field, which is kept as it came
            called = field.name
            while (
                keyword.iskeyword(called)
                or hasattr(betterproto.Message, called)
                or (called in hints)
            ):
                called += "_"
            hints[called], value = self._field(message, field)
            setattr(cls, called, value)
        cls.__annotations__ = hints
        return dataclass(eq=False, repr=False)(cls)

    def _field(self, message: DescriptorProto, field: FieldDescriptorProto) -> tuple[Any, Any]:
        target = self._described.get(field.type_name)
        if target is not None and isinstance(target.descriptor, DescriptorProto):
            entry = target.descriptor
            if entry.options.map_entry:
                (key_kind, key, _), (value_kind, value, _) = map(self._kind, entry.field)
                made = betterproto.map_field(field.number, key_kind, value_kind)
                return dict[key, value], made  # type: ignore[valid-type]  # types made now
        kind, hint, wraps = self._kind(field)
        repeated = field.label == _REPEATED
        group = None
        if field.is_set("oneof_index") and not field.proto3_optional:
            group = message.oneof_decl[field.oneof_index].name
        optional = field.proto3_optional
        made = getattr(betterproto, f"{kind}_field")(
            field.number,
            group=group,
            optional=optional,
            **({"wraps": wraps} if wraps else {}),
        )
        return (list[hint] if repeated else hint | None if optional else hint), made  # type: ignore[valid-type]  # ""

    def _kind(self, field: FieldDescriptorProto) -> tuple[str, Any, str]:
        """What betterproto calls the type, the hint of one value, and what it wraps."""
        short = field.type_name.removeprefix(_GOOGLE)
        if field.type == _MESSAGE and short != field.type_name:
            if short in _PLAIN:
                return "message", _PLAIN[short], ""
            if short in _WRAPPERS:
                wraps, hint = _WRAPPERS[short]
                return "message", hint | None, wraps
        if field.type in (_MESSAGE, _ENUM):
            kind = "message" if field.type == _MESSAGE else "enum"
            return kind, self._class(field.type_name), ""
        name = str(FieldDescriptorProtoType(field.type).name).removeprefix("TYPE_").lower()
        return name, _HINTS.get(name, int), ""
