"""What a page shows of a server's methods: names, comments, the shape of a request."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from betterproto.lib.google.protobuf import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FieldDescriptorProtoLabel,
    FieldDescriptorProtoType,
    FileDescriptorProto,
    FileDescriptorSet,
)

__all__ = ["methods_json"]

_DEPTH = 4
"""How deep the shape of a request is shown: messages may hold themselves."""
_SAMPLES: dict[str, Any] = {
    ".google.protobuf.Timestamp": "2026-01-31T12:00:00Z",
    ".google.protobuf.Duration": "1.5s",
    ".google.protobuf.FieldMask": "",
    ".google.protobuf.Struct": {},
    ".google.protobuf.Value": None,
    ".google.protobuf.ListValue": [],
    ".google.protobuf.Empty": {},
    ".google.protobuf.Any": {"@type": ""},
    ".google.protobuf.StringValue": "",
    ".google.protobuf.BytesValue": "",
    ".google.protobuf.BoolValue": False,
}
_ZERO_TEXT = {
    FieldDescriptorProtoType.TYPE_STRING: "",
    FieldDescriptorProtoType.TYPE_BYTES: "",
    FieldDescriptorProtoType.TYPE_BOOL: False,
    FieldDescriptorProtoType.TYPE_INT64: "0",
    FieldDescriptorProtoType.TYPE_UINT64: "0",
    FieldDescriptorProtoType.TYPE_SINT64: "0",
    FieldDescriptorProtoType.TYPE_FIXED64: "0",
    FieldDescriptorProtoType.TYPE_SFIXED64: "0",
}


def methods_json(descriptor_sets: Iterable[bytes], served: Iterable[str]) -> str:
    """Return the methods of the services that are `served` (full names), as the page reads them."""
    catalog = _Catalog(descriptor_sets)
    return json.dumps(catalog.services(set(served)), separators=(",", ":"))


class _Catalog:
    def __init__(self, descriptor_sets: Iterable[bytes]) -> None:
        self._files: dict[str, FileDescriptorProto] = {}
        for data in descriptor_sets:
            for file in FileDescriptorSet().parse(data).file:
                # Of one file, the copy that has the comments.
                known = self._files.get(file.name)
                if known is None or len(file.source_code_info.location) > len(
                    known.source_code_info.location
                ):
                    self._files[file.name] = file
        self._types: dict[str, DescriptorProto | EnumDescriptorProto] = {}
        self._comments: dict[tuple[str, int], str] = {}
        """Of the fields of messages that stand in no other."""
        for file in self._files.values():
            prefix = f".{file.package}" if file.package else ""
            for message in file.message_type:
                self._add(message, prefix)
            for place in file.source_code_info.location:
                if len(place.path) == 4 and (place.path[0], place.path[2]) == (4, 2):
                    name = f"{prefix}.{file.message_type[place.path[1]].name}"
                    comment = (place.leading_comments or place.trailing_comments).strip()
                    self._comments[name, place.path[3]] = comment
            for enum in file.enum_type:
                self._types[f"{prefix}.{enum.name}"] = enum

    def _add(self, message: DescriptorProto, prefix: str) -> None:
        name = f"{prefix}.{message.name}"
        self._types[name] = message
        for nested in message.nested_type:
            self._add(nested, name)
        for enum in message.enum_type:
            self._types[f"{name}.{enum.name}"] = enum

    def services(self, served: set[str]) -> list[dict[str, Any]]:
        found = []
        for file in self._files.values():
            comments = {
                tuple(place.path): (place.leading_comments or place.trailing_comments).strip()
                for place in file.source_code_info.location
            }
            for number, service in enumerate(file.service):
                name = ".".join(filter(None, (file.package, service.name)))
                if name not in served:
                    continue
                methods = [
                    {
                        "name": method.name,
                        "comment": comments.get((6, number, 2, place), ""),
                        "requests": method.client_streaming,
                        "replies": method.server_streaming,
                        "input": method.input_type.removeprefix("."),
                        "output": method.output_type.removeprefix("."),
                        "fields": self._fields(method.input_type),
                        "example": self._example(method.input_type, _DEPTH),
                    }
                    for place, method in enumerate(service.method)
                ]
                comment = comments.get((6, number), "")
                found.append({"name": name, "comment": comment, "methods": methods})
        return sorted(found, key=lambda service: str(service["name"]))

    def _fields(self, type_name: str) -> list[dict[str, Any]]:
        """What a form of a request has to ask for."""
        message = self._types.get(type_name)
        if not isinstance(message, DescriptorProto) or type_name in _SAMPLES:
            return []
        return [
            {
                "name": field.json_name or field.name,
                "comment": self._comments.get((type_name, place), ""),
                **self._kind(field),
                **(
                    {"oneof": message.oneof_decl[field.oneof_index].name}
                    if field.is_set("oneof_index") and not field.proto3_optional
                    else {}
                ),
            }
            for place, field in enumerate(message.field)
        ]

    def _kind(self, field: FieldDescriptorProto) -> dict[str, Any]:
        target = self._types.get(field.type_name)
        if isinstance(target, DescriptorProto) and target.options.map_entry:
            return {"type": "map", "many": False}
        many = field.label == FieldDescriptorProtoLabel.LABEL_REPEATED
        if isinstance(target, EnumDescriptorProto):
            values = {} if many else {"values": [value.name for value in target.value]}
            return {"type": field.type_name[1:], "many": many, **values}
        scalar = FieldDescriptorProtoType(field.type).name or ""
        name = field.type_name[1:] or scalar.removeprefix("TYPE_").lower()
        return {"type": name, "many": many}

    def _example(self, type_name: str, depth: int) -> Any:
        if type_name in _SAMPLES:
            return _SAMPLES[type_name]
        message = self._types.get(type_name)
        if not isinstance(message, DescriptorProto) or depth == 0:
            return {}
        shown: dict[str, Any] = {}
        oneofs: set[int] = set()
        for field in message.field:
            if field.is_set("oneof_index") and not field.proto3_optional:
                if field.oneof_index in oneofs:
                    continue  # one of them: the first
                oneofs.add(field.oneof_index)
            shown[field.json_name or field.name] = self._value(field, depth)
        return shown

    def _value(self, field: FieldDescriptorProto, depth: int) -> Any:
        target = self._types.get(field.type_name)
        if isinstance(target, DescriptorProto) and target.options.map_entry:
            return {}
        if field.type == FieldDescriptorProtoType.TYPE_MESSAGE:
            value = self._example(field.type_name, depth - 1)
        elif isinstance(target, EnumDescriptorProto):
            value = target.value[0].name if target.value else 0
        else:
            value = _ZERO_TEXT.get(field.type, 0)
        repeated = field.label == FieldDescriptorProtoLabel.LABEL_REPEATED
        return [value] if repeated else value
