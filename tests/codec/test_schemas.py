"""Schemas at random: the same one for google.protobuf and for betterproto, and messages of it."""

from __future__ import annotations

import dataclasses
import itertools
import random
from dataclasses import dataclass
from typing import Any

import betterproto
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamkit.codec import decode, encode
from tests.codec.mutations import fill, mutate
from tests.codec.peers import difference, plain_google, plain_ours
from tests.codec.test_fuzz import check

PROTO = descriptor_pb2.FieldDescriptorProto
TYPES = {
    "double": (PROTO.TYPE_DOUBLE, float),
    "float": (PROTO.TYPE_FLOAT, float),
    "int32": (PROTO.TYPE_INT32, int),
    "int64": (PROTO.TYPE_INT64, int),
    "uint32": (PROTO.TYPE_UINT32, int),
    "uint64": (PROTO.TYPE_UINT64, int),
    "sint32": (PROTO.TYPE_SINT32, int),
    "sint64": (PROTO.TYPE_SINT64, int),
    "fixed32": (PROTO.TYPE_FIXED32, int),
    "fixed64": (PROTO.TYPE_FIXED64, int),
    "sfixed32": (PROTO.TYPE_SFIXED32, int),
    "sfixed64": (PROTO.TYPE_SFIXED64, int),
    "bool": (PROTO.TYPE_BOOL, bool),
    "string": (PROTO.TYPE_STRING, str),
    "bytes": (PROTO.TYPE_BYTES, bytes),
}
KEYS = sorted(set(TYPES) - {"double", "float", "bytes"})
LABELS = ("plain", "optional", "repeated", "oneof", "map")
_serial = itertools.count()


class Shade(betterproto.Enum):
    NONE = 0
    DARK = 1
    BELOW = -2


@dataclass(frozen=True)
class Drawn:
    """One field of a drawn schema."""

    number: int
    label: str
    kind: str
    key: str


NUMBERS = st.one_of(st.integers(1, 20), st.sampled_from([100, 2047, 2048, 20_000, 536_870_911]))
FIELDS = st.lists(
    st.builds(
        Drawn,
        number=NUMBERS,
        label=st.sampled_from(LABELS),
        kind=st.sampled_from([*TYPES, "enum", "message"]),
        key=st.sampled_from(KEYS),
    ),
    min_size=1,
    max_size=9,
    unique_by=lambda field: field.number,
)


def google_class(name: str, fields: list[Drawn], inner: list[Drawn]) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
    shade = file.enum_type.add(name="Shade")
    for member in Shade:
        shade.value.add(name=member.name, number=member.value)
    for title, drawn in (("Inner", inner), ("Outer", fields)):
        _add_message(file.message_type.add(name=title), name, drawn)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{name}.Outer"))


def _add_message(message: Any, package: str, fields: list[Drawn]) -> None:
    if any(field.label == "oneof" for field in fields):
        message.oneof_decl.add(name="one")
    for drawn in fields:
        field = message.field.add(name=f"f{drawn.number}", number=drawn.number)
        field.label = PROTO.LABEL_OPTIONAL
        if drawn.label == "map":
            entry = message.nested_type.add(name=f"F{drawn.number}Entry")
            entry.options.map_entry = True
            key = entry.field.add(name="key", number=1, label=PROTO.LABEL_OPTIONAL)
            key.type = TYPES[drawn.key][0]
            value = entry.field.add(name="value", number=2, label=PROTO.LABEL_OPTIONAL)
            _set_type(value, package, drawn.kind)
            field.type, field.label = PROTO.TYPE_MESSAGE, PROTO.LABEL_REPEATED
            field.type_name = f".{package}.{message.name}.{entry.name}"
            continue
        _set_type(field, package, drawn.kind)
        if drawn.label == "repeated":
            field.label = PROTO.LABEL_REPEATED
        elif drawn.label == "oneof":
            field.oneof_index = 0
    for field, drawn in zip(message.field, fields, strict=True):
        if drawn.label == "optional":
            field.proto3_optional = True
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")


def _set_type(field: Any, package: str, kind: str) -> None:
    if kind == "enum":
        field.type, field.type_name = PROTO.TYPE_ENUM, f".{package}.Shade"
    elif kind == "message":
        field.type, field.type_name = PROTO.TYPE_MESSAGE, f".{package}.Inner"
    else:
        field.type = TYPES[kind][0]


def our_class(title: str, fields: list[Drawn], inner: Any) -> Any:
    columns: list[tuple[str, Any, Any]] = []
    for drawn in fields:
        hint: Any = {"enum": Shade, "message": inner}.get(drawn.kind) or TYPES[drawn.kind][1]
        if drawn.label == "map":
            hint = dict[TYPES[drawn.key][1], hint]  # type: ignore[misc]  # made now
            made = betterproto.map_field(drawn.number, drawn.key, drawn.kind)
        else:
            made = betterproto.dataclass_field(
                drawn.number,
                drawn.kind,
                optional=drawn.label == "optional",
                group="one" if drawn.label == "oneof" else None,
            )
            if drawn.label == "repeated":
                hint = list[hint]
            elif drawn.label == "optional":
                hint = hint | None
        columns.append((f"f{drawn.number}", hint, made))
    made_class = dataclasses.make_dataclass(
        title, columns, bases=(betterproto.Message,), eq=False, repr=False
    )
    made_class.__module__ = __name__
    return made_class


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(outer=FIELDS, inner=FIELDS, seed=st.integers(0, 2**32))
def test_any_schema_means_the_same_to_both(
    outer: list[Drawn], inner: list[Drawn], seed: int
) -> None:
    # A message in the inner message would have to name a class that does not exist yet.
    inner = [dataclasses.replace(f, kind="int32") if f.kind == "message" else f for f in inner]
    name = f"drawn{next(_serial)}"
    google = google_class(name, outer, inner)
    ours = our_class("Outer", outer, our_class("Inner", inner, None))
    rng = random.Random(seed)
    seeds = []
    for density in (0.3, 0.7, 1.0):
        message = google()
        fill(rng, message, density)
        data = message.SerializeToString()
        seeds.append(data)
        plain = plain_google(message)
        mine = decode(ours, data)
        assert not difference(plain_ours(mine), plain)
        assert not difference(plain_google(google.FromString(encode(mine))), plain)
        # The same values, given to the constructor and assigned one by one.
        values = {
            field.name: getattr(mine, field.name)
            for field in dataclasses.fields(ours)
            if mine.is_set(field.name)
        }
        made, assigned = ours(**values), ours()
        for field_name, value in values.items():
            setattr(assigned, field_name, value)
        assert encode(made) == encode(assigned) == encode(mine)
        assert made == assigned == mine
    for data in seeds:
        check(ours, google, mutate(rng, data, seeds))
