"""What JSON calls fields, members of enums and messages.

A generated class knows Python's names only, from which the schema's cannot always be told: `md5sum`
is `md5_sum` in Python, as is `md5Sum`, and `COLOUR_RED` is `RED`. The schema's own names are taken
from `descriptors.binpb`, what `protoc --include_imports --descriptor_set_out` writes, if it lies
where the generated packages do or in one of them. Without it:

- A field is called what protobuf makes of its Python name; it is read under every spelling of it.
- A member of an enum is written as its number, which every reader has to take, and read by the name
  that it has in Python, with or without that of the enum before it.
- A message in an Any is looked for among the classes, by its package and name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import betterproto
from betterproto.casing import pascal_case, snake_case
from betterproto.lib.google.protobuf import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorSet,
)

from streamkit.codec.message.install import decoder_for, ready
from streamkit.codec.wire.field import Field
from streamkit.errors import DecodeError

__all__ = ["DESCRIBED", "JsonField", "JsonNames", "class_named", "json_names", "special"]

DESCRIPTORS: Final = "descriptors.binpb"
DESCRIBED: Final = "_streamkit_described"
"""Of a class that was made of its descriptor: that."""

_GOOGLE: Final = "google.protobuf"
_LIBRARY: Final = (
    "betterproto.lib.std.google.protobuf",
    "betterproto.lib.pydantic.google.protobuf",
)
_SPECIAL: Final = frozenset(
    {
        *("Any", "Duration", "FieldMask", "ListValue", "Struct", "Timestamp", "Value"),
        *("BoolValue", "BytesValue", "DoubleValue", "FloatValue", "StringValue"),
        *("Int32Value", "Int64Value", "UInt32Value", "UInt64Value"),
    }
)


def special(cls: type) -> str:
    """The name of a message that has a form of its own in JSON, else nothing."""
    return cls.__name__ if cls.__module__ in _LIBRARY and cls.__name__ in _SPECIAL else ""


@dataclass(frozen=True, slots=True)
class EnumNames:
    numbers: Mapping[str, int]
    """Every name that is read."""
    members: Mapping[int, str]
    """The names that are written; empty when only the numbers are certain."""
    python: Mapping[int, str]
    """The names that Python has for them."""
    null: bool
    """Whether it is NullValue, whose only member is `null`."""


@dataclass(frozen=True, slots=True)
class JsonField:
    field: Field
    name: str
    enum: EnumNames | None
    """Of the field, or of a map's values."""


@dataclass(frozen=True, slots=True)
class JsonNames:
    """The fields of a class in their order, and how to find one."""

    fields: tuple[JsonField, ...]
    by_name: Mapping[str, JsonField]
    by_spelling: Mapping[str, JsonField]

    def find(self, name: str) -> JsonField | None:
        return self.by_name.get(name) or self.by_spelling.get(_spelling(name))

    def near(self, name: str) -> str:
        """The name that was probably meant; "" if none is like it."""
        from difflib import get_close_matches

        # Names of a peer may be long; none that is meant is.
        return "".join(get_close_matches(name[:100], [one.name for one in self.fields], 1))


_KEPT: Final = "_streamkit_json_names"


def json_names(cls: type[betterproto.Message]) -> JsonNames:
    found: JsonNames | None = cls.__dict__.get(_KEPT)
    if found is None:
        found = _names(cls)
        setattr(cls, _KEPT, found)
    return found


def _names(cls: type[betterproto.Message]) -> JsonNames:
    described = _described(cls)
    known: dict[int, tuple[str, str]] = {}
    if isinstance(described, DescriptorProto):
        known = {one.number: (one.json_name, one.name) for one in described.field}
    fields: list[JsonField] = []
    by_name: dict[str, JsonField] = {}
    spellings: dict[str, list[JsonField]] = {}
    for field in ready(cls).declared:
        name, original = known.get(field.number) or (_json_name(field.name), "")
        item = field.value if field.kind == "map" else field
        enum = _enum_names(item.target) if item and item.kind == "enum" else None
        fields.append(one := JsonField(field, name, enum))
        by_name[name] = one
        if original:
            by_name.setdefault(original, one)
        else:
            by_name.setdefault(field.name, one)
            spellings.setdefault(_spelling(field.name), []).append(one)
    certain = {spelling: found[0] for spelling, found in spellings.items() if len(found) == 1}
    return JsonNames(tuple(fields), by_name, certain)


def _json_name(name: str) -> str:
    """protobuf's rule: a letter behind an underscore becomes a capital."""
    first, *others = name.rstrip("_").split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


def _spelling(name: str) -> str:
    return name.replace("_", "").lower()


@cache
def _enum_names(target: Any) -> EnumNames:
    described = _described(target)
    members: dict[int, str] = {}
    numbers: dict[str, int] = {name: int(one) for name, one in target._member_map_.items()}
    prefix = snake_case(target.__name__).upper()
    numbers |= {f"{prefix}_{name}": number for name, number in numbers.items()}
    if isinstance(described, EnumDescriptorProto):
        numbers = {one.name: one.number for one in described.value}
        for one in described.value:
            members.setdefault(one.number, one.name)
    python = {number: one.name for number, one in target._value_map_.items()}
    null = target.__module__ in _LIBRARY and target.__name__ == "NullValue"
    if null:
        numbers["NULL_VALUE"] = 0  # the prefix is all of it, so Python has nothing left
    return EnumNames(numbers, members, python, null)


Described = DescriptorProto | EnumDescriptorProto


def _described(cls: type) -> Described | None:
    """What the schema says of a class, if it is at hand."""
    own: Described | None = cls.__dict__.get(DESCRIBED)
    if own is not None:
        return own
    for folder in _folders(cls.__module__):
        found = [
            (len(package), described)
            for (package, name), described in _descriptors(folder).items()
            if name == cls.__name__ and _is_of(cls.__module__, package)
        ]
        if found:  # what has no package may be of any: of a package is better
            return max(found, key=lambda one: one[0])[1]
    return None


def _is_of(module: str, package: str) -> bool:
    """Whether betterproto puts the package of a schema into the module, or one that ends so."""
    return not package or f".{module}".endswith(f".{package}")


def _folders(module: str) -> Iterator[Path]:
    """The folder of a package, those above it, and the one that the outermost lies in."""
    while module:
        file = getattr(sys.modules.get(module), "__file__", None)
        if file is None:
            return
        folder = Path(file).parent
        yield folder
        module = module.rpartition(".")[0]
    yield folder.parent


@cache
def _descriptors(folder: Path) -> Mapping[tuple[str, str], Described]:
    """What the descriptor set in a folder has, by package and class name."""
    file = folder / DESCRIPTORS
    if not file.is_file():
        return {}
    try:
        found = decoder_for(FileDescriptorSet)(file.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{file} is not a descriptor set: {error}") from None
    return {
        (one.package, name): described
        for one in found.file
        for name, described in _flat("", one.message_type, one.enum_type)
    }


def _flat(
    before: str, messages: list[DescriptorProto], enums: list[EnumDescriptorProto]
) -> Iterator[tuple[str, Described]]:
    """Everything that is nested, under the names that betterproto gives the classes."""
    for enum in enums:
        yield pascal_case(f"{before}_{enum.name}"), enum
    for message in messages:
        inside = f"{before}_{message.name}"
        yield pascal_case(inside), message
        yield from _flat(inside, message.nested_type, message.enum_type)


_LONGEST: Final = 512
"""Characters of a message's full name."""
_MOST: Final = 1024
_classes: dict[tuple[str, str], type[betterproto.Message]] = {}


def class_named(full_name: str, near: str) -> type[betterproto.Message] | None:
    """Return the class of a message, by its full name in the schema.

    Of several the one is taken whose module has most in common with the module `near`.
    """
    found = _classes.get((full_name, near))
    if found is None and len(full_name) <= _LONGEST:
        candidates = list(_candidates(full_name))
        if not candidates:
            return None
        found = max(candidates, key=lambda cls: _shared(cls.__module__, near))
        if len(_classes) >= _MOST:
            _classes.clear()
        _classes[full_name, near] = found
    return found


def _shared(left: str, right: str) -> int:
    """How many packages two modules have in common."""
    pairs = zip(left.split("."), right.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _candidates(full_name: str) -> Iterator[type[betterproto.Message]]:
    parts = full_name.split(".")
    cut = [(".".join(parts[:n]), pascal_case("_".join(parts[n:]))) for n in range(len(parts))]
    packages: dict[str, list[str]] = {}
    for package, name in cut:
        packages.setdefault(name, []).append(package)
    if full_name.startswith(f"{_GOOGLE}."):
        wanted = [cls for cls in _all() if cls.__module__ == _LIBRARY[0]]
        yield from (cls for cls in wanted if _GOOGLE in packages.get(cls.__name__, ()))
        return
    for cls in _all():
        for package in packages.get(cls.__name__, ()):
            if _is_of(cls.__module__, package):
                yield cls
                break


def _all() -> list[type[betterproto.Message]]:
    return betterproto.Message.__subclasses__()
