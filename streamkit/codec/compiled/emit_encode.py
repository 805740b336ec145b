"""The text of a class's encoder.

It writes the fields in the order of their numbers from the message's `__dict__`, as every protobuf
encoder does. A value of any unexpected type or size makes some operation below raise, and the exact
encoder starts over: the text has no checks of its own where an operation already is one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

from streamkit.codec.compiled.compile import ClassNames
from streamkit.codec.compiled.maps import text_map, text_pairs
from streamkit.codec.compiled.rows import rows_bytes
from streamkit.codec.compiled.writing import (
    ENDING,
    UNWRITTEN,
    duration_bytes,
    heads,
    integer_writer,
    packed_writer,
    text_heads,
    timestamp_bytes,
    varint,
)
from streamkit.codec.plan import MessagePlan
from streamkit.codec.wire.field import FIXED_FORMAT, Field
from streamkit.codec.wire.scan import varint as any_varint
from streamkit.codec.wire.values import Odd

__all__ = ["encode_all_source", "encode_source"]

Link = Callable[[dict[str, Any], str, type], None]
"""`link(names, name, cls)` binds a name to a function of another class, compiled when called."""


def encode_source(
    plan: MessagePlan, exact: Callable[[Any], bytes], link: Link, link_all: Link
) -> tuple[str, dict[str, Any]]:
    """Return the source of `encode(message)` and the names that it needs."""
    emitter = _Emitter(plan, link, link_all)
    source = f"""\
{emitter.functions_text()}def encode(message):
    try:
        d = message.__dict__
        r = b""
{emitter.body(8)}
        if "_unknown_fields" in d:
            r += d["_unknown_fields"]
        return r
    except UNWRITTEN:
        pass
    return exact(message)
"""
    # The very dictionary that was given to `link`: it is where the link is replaced later.
    emitter.names.update(exact=exact)
    return source, emitter.names


def encode_all_source(plan: MessagePlan, link: Link, link_all: Link) -> tuple[str, dict[str, Any]]:
    """Return the source of `encode_all(messages, heads, tag)` and the names that it needs.

    It writes a repeated field of this class: one call for all the elements.
    """
    emitter = _Emitter(plan, link, link_all)
    source = f"""\
{emitter.functions_text()}def encode_all(messages, heads, tag):
{_in_columns(plan)}    z = []
    for message in messages:
        if type(message) is not cls:
            raise Odd
        d = message.__dict__
        r = b""
{emitter.body(8)}
        if "_unknown_fields" in d:
            r += d["_unknown_fields"]
        z += (heads[len(r)], r)
    return join(z)
"""
    emitter.names.update(cls=plan.cls, rows_bytes=rows_bytes)
    return source, emitter.names


def _in_columns(plan: MessagePlan) -> str:
    if len(plan.fields) != 1 or not plan.fields[0].is_text_map:
        return ""
    (field,) = plan.fields
    return f"""\
    try:
        return rows_bytes(messages, cls, {field.name!r}, {field.tag}, tag)
    except UNWRITTEN:
        pass
"""


class _Emitter:
    def __init__(self, plan: MessagePlan, link: Link, link_all: Link) -> None:
        self.link = link
        self.link_all = link_all
        self.lines: list[str] = []
        self.classes = ClassNames()
        self.functions: dict[str, str] = {}
        self.names: dict[str, Any] = {
            "Odd": Odd,
            "UNWRITTEN": UNWRITTEN,
            "V": ENDING,
            "varint": varint,
            "timestamp_bytes": timestamp_bytes,
            "duration_bytes": duration_bytes,
            "copysign": math.copysign,
            "join": b"".join,
            "text_map": text_map,
            "text_pairs": text_pairs,
        }
        for field in plan.fields:
            self._field(field)

    def functions_text(self) -> str:
        return "".join(f"{text}\n\n\n" for text in self.functions.values())

    def body(self, indent: int) -> str:
        return "\n".join(" " * indent + line for line in self.lines)

    def _field(self, field: Field) -> None:
        self.lines += [f"if {field.name!r} in d:", f"    v = d[{field.name!r}]"]
        body = self._value(field)
        if field.optional:
            self.lines.append("    if v is not None:")
            body = [f"    {line}" for line in body]
        self.lines += [f"    {line}" for line in body]

    def _value(self, field: Field) -> list[str]:
        if field.kind == "map":
            return self._map(field)
        if field.repeated:
            return ["if type(v) is not list:", "    raise Odd", *self._repeated(field)]
        if field.kind == "message":
            target, encode = self._linked(field)
            lines = [f"if type(v) is not {target}:", "    raise Odd", f"b = {encode}(v)"]
            put = f"r += {self._head(field, 'b')} + b"
            if field.group or field.optional:
                return [*lines, put]
            return [*lines, "if b or v._serialized_on_wire:", f"    {put}"]
        if field.kind == "wrapper":
            return self._wrapper(field)
        if field.kind in ("timestamp", "duration"):
            return [f"r += {any_varint(field.tag)!r} + {field.kind}_bytes(v)"]
        return self._scalar(field, field.presence)

    def _scalar(self, field: Field, presence: bool) -> list[str]:
        """A scalar with its tag, appended to `r`; a default value only with `presence`."""
        kind, tag = field.kind, any_varint(field.tag)
        if kind in ("string", "bytes"):
            convert = ["v = v.encode()"] if kind == "string" else []
            put = f"r += {self._head(field, 'v')} + v"
            return [*convert, *([put] if presence else ["if v:", f"    {put}"])]
        if kind == "bool":
            lines = ["if v is True:", f"    r += {tag + bytes([1])!r}"]
            lines += ["elif v is not False:", "    raise Odd"]
            return lines + (["else:", f"    r += {tag + bytes([0])!r}"] if presence else [])
        if kind in ("float", "double"):
            self.names[f"pack_{kind}"] = struct.Struct(FIXED_FORMAT[kind]).pack
            put = f"r += {tag!r} + pack_{kind}(v)"
            # Minus zero is not the default.
            return [put] if presence else ["if v or copysign(1.0, v) < 0:", f"    {put}"]
        if kind in FIXED_FORMAT:
            self.names[f"pack_{kind}"] = struct.Struct(FIXED_FORMAT[kind]).pack
            put = f"r += {tag!r} + pack_{kind}(v)"
            return [put] if presence else ["if v:", f"    {put}"]
        return self._integer(field, tag, presence)

    def _integer(self, field: Field, tag: bytes, presence: bool) -> list[str]:
        kind = field.kind
        self.names[kind] = integer_writer(kind)
        written = f"{kind}(v)"
        if kind not in ("sint32", "sint64"):
            written = f"(V[v] if 0 <= v < 16384 else {written})"
        put = f"r += {tag!r} + {written}"
        # Not "if v": a value of a wrong type has to be noticed by what comes next.
        return [put] if presence else ["if v != 0:", f"    {put}"]

    def _wrapper(self, field: Field) -> list[str]:
        inner = self._inner(field.wrapped, presence=False)
        return [
            "if v is not None:",
            f"    b = {inner}(v)",
            f"    r += {self._head(field, 'b')} + b",
        ]

    def _repeated(self, field: Field) -> list[str]:
        if field.packable:
            name = f"pack_{field.number}"
            self.names[name] = packed_writer(field)
            tag = any_varint(field.packed_tag)
            return ["if v:", f"    b = {name}(v)", f"    r += {tag!r} + varint(len(b)) + b"]
        if field.kind in ("timestamp", "duration"):
            tag = any_varint(field.tag)
            return [f"r += join([{tag!r} + {field.kind}_bytes(b) for b in v])"]
        if field.kind == "wrapper":
            inner = self._inner(field.wrapped, presence=False)
            convert = [f"    b = {inner}(b)"]
        elif field.kind == "string":
            convert = ["    b = b.encode()"]
        elif field.kind == "bytes":
            convert = ["    if type(b) is not bytes:", "        raise Odd"]
        else:
            assert field.target is not None
            name = f"encode_all_{field.number}"
            self.link_all(self.names, name, field.target)
            self._head(field, "b")
            return [f"r += {name}(v, H{field.tag}, {any_varint(field.tag)!r})"]
        return [
            "o = []",
            "for b in v:",
            *convert,
            f"    o += ({self._head(field, 'b')}, b)",
            "r += join(o)",
        ]

    def _map(self, field: Field) -> list[str]:
        assert field.key is not None and field.value is not None
        if field.is_text_map:
            self._head(field, "b")
            if field.tag > 127:
                return [f"r += text_pairs(v, H{field.tag})"]
            self.names[f"T{field.tag}"] = text_heads(field.tag)
            return [f"r += text_map(v, T{field.tag}, H{field.tag})"]
        key, value = self._inner(field.key), self._inner(field.value)
        return [
            "if type(v) is not dict:",
            "    raise Odd",
            "o = []",
            "for k, w in v.items():",
            f"    b = {key}(k) + {value}(w)",
            f"    o += ({self._head(field, 'b')}, b)",
            "r += join(o)",
        ]

    def _inner(self, field: Field, presence: bool = True) -> str:
        """The name of a function from a value to the field, tag included.

        The key and the value of a map are always written, that of a wrapper only with content.
        """
        name = f"{'tagged' if presence else 'inner'}_{field.kind}_{field.number}"
        if field.kind == "message":
            target, encode = self._linked(field)
            name = f"tagged_{target}_{field.number}"
            body = [
                f"if type(v) is not {target}:",
                "    raise Odd",
                f"b = {encode}(v)",
                f"return {self._head(field, 'b')} + b",
            ]
        elif field.kind == "wrapper":
            name += f"_{field.wraps}"
            inner = self._inner(field.wrapped, presence=False)
            body = [f"b = {inner}(v)", f"return {self._head(field, 'b')} + b"]
        elif field.kind in ("timestamp", "duration"):
            body = [f"return {any_varint(field.tag)!r} + {field.kind}_bytes(v)"]
        else:
            body = ['r = b""', *self._scalar(field, presence), "return r"]
        self.functions[name] = "\n    ".join([f"def {name}(v):", *body])
        return name

    def _linked(self, field: Field) -> tuple[str, str]:
        """The names of a message class and of its encoder."""
        cls = field.target
        assert cls is not None
        name = self.classes[cls]
        if name not in self.names:
            self.names[name] = cls
            self.link(self.names, f"encode_{name}", cls)
        return name, f"encode_{name}"

    def _head(self, field: Field, value: str) -> str:
        """The expression for the tag and length of `value`."""
        name = f"H{field.tag}"
        self.names[name] = heads(field.tag)
        return f"{name}[len({value})]"
