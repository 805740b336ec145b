"""The text of a class's decoder.

It passes over the fields in the order of their numbers, which is the order in which encoders write
them, so a usual message takes one pass with one comparison for each field of the class. It fills
the new message's `__dict__`. Reading past the end of a value is not checked step by step: an offset
that ran too far differs from the expected end in the end. Anything that these lines cannot settle
(a sub-message seen twice, a second member of a oneof, scattered unknown fields, corrupt bytes)
raises one of `UNREAD`, and the exact decoder starts over.

The names are short because the text is long: `buf` the bytes, `i` the offset and `end` the end of
the message; `t` the tag at `i`, of one byte or two; `e` the end of a value; `m` the message and `d`
its fields; `v` a number, `w` a piece of bytes, `x` a list or dict that is filled and `a` its
`append`, `k` a map's key and `f` the end of its entry; `g0` whether a oneof's member was seen; `s`
where this pass began and `p` how many there were; `depth` the levels of nesting that are left.

Of `message Position { string epoch = 1; uint64 sequence = 2; }` this is made:

    def scan(buf, i, end, depth):
        m = new(cls)
        if i == end:
            return m
        d = m.__dict__
        t = buf[i]
        p = 0
        while True:
            s = i
            if t == 10:
                i += 2
                e = i + buf[i - 1]
                if e - i > 127:
                    i, e = longer(buf, i)
                d['epoch'] = buf[i:e].decode()
                i = e
                t = buf[i] if i < end else 0
            if t == 16:
                v = buf[i + 1]
                i += 2
                if v > 127:
                    v, i = more_uint64(buf, v, i)
                d['sequence'] = v
                t = buf[i] if i < end else 0
            if i >= end:
                if i == end:
                    return m
                raise Odd
            if i == s:
                if "_unknown_fields" in d:
                    raise Odd
                i = unknown(buf, i, end, depth, plan)
                d["_unknown_fields"] = buf[s:i]
                t = buf[i] if i < end else 0
            p += 1
            if p > 16:
                raise Odd


    def decode(data, start=0, end=None):
        try:
            if type(data) is bytes:
                return scan(data, start, len(data) if end is None else end, 100)
        except UNREAD:
            pass
        return exact(cls, data, start, end)
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import betterproto

from streamkit.codec.compiled.compile import ClassNames
from streamkit.codec.compiled.maps import text_entries
from streamkit.codec.compiled.moments import RECENT, moment
from streamkit.codec.compiled.reading import (
    Members,
    dense,
    longer,
    more_reader,
    unknown,
    wrapper_reader,
)
from streamkit.codec.plan import MessagePlan
from streamkit.codec.wire.field import FIXED_FORMAT, Field
from streamkit.codec.wire.scan import DEPTH
from streamkit.codec.wire.values import UNREAD, Odd, duration, packed_reader

__all__ = ["decode_source"]

_TWO_BYTE_TAG = 1 << 14
_BLOCK = 12
"""Fields that are passed over together when none of them can come next."""
_AT_THE_END = ("if i >= end:", "    if i == end:", "        return m", "    raise Odd")
_PASSES = 16
"""Passes over a message whose fields are out of order, before the exact decoder takes over."""


def decode_source(
    plan: MessagePlan,
    exact: Callable[..., betterproto.Message],
    exact_nested: Callable[..., Any],
    link: Callable[[dict[str, Any], str, type], None],
) -> tuple[str, dict[str, Any]]:
    """Return the source of `scan` and `decode` and the names that it needs.

    `link(names, name, cls)` binds a name to the `scan` of another class, compiled when called.
    """
    emitter = _Emitter(plan, exact_nested, link)
    emitter.blocks([field for field in plan.fields if _tag(field) < _TWO_BYTE_TAG])
    body = "\n".join(_indented(_indented([*emitter.lines, *_AT_THE_END])))
    too_deep = f"    if depth < {emitter.levels}:\n        raise Odd\n" if emitter.levels else ""
    groups = "".join(f"    {emitter.groups[name]} = False\n" for name in emitter.groups)
    source = f"""\
def scan(buf, i, end, depth):
{too_deep}    m = new(cls)
    if i == end:
        return m
    d = m.__dict__
{groups}    t = buf[i]
    p = 0
    while True:
        s = i
{body}
        if i == s:
            if "_unknown_fields" in d:
                raise Odd
            i = unknown(buf, i, end, depth, plan)
            d["_unknown_fields"] = buf[s:i]
            t = buf[i] if i < end else 0
        p += 1
        if p > {_PASSES}:
            raise Odd


def decode(data, start=0, end=None):
    try:
        if type(data) is bytes:
            return scan(data, start, len(data) if end is None else end, {DEPTH})
    except UNREAD:
        pass
    return exact(cls, data, start, end)
"""
    # The very dictionary that was given to `link`: it is where the link is replaced later.
    emitter.names.update(cls=plan.cls, new=object.__new__, exact=exact, plan=plan, UNREAD=UNREAD)
    return source, emitter.names


class _Emitter:
    def __init__(
        self,
        plan: MessagePlan,
        exact_nested: Callable[..., Any],
        link: Callable[[dict[str, Any], str, type], None],
    ) -> None:
        self.exact_nested = exact_nested
        self.link = link
        self.lines: list[str] = []
        self.levels = 0
        self.groups: dict[str, str] = {}
        self.wide = False
        self.classes = ClassNames()
        self.names: dict[str, Any] = {
            "Odd": Odd,
            "duration": duration,
            "dense": dense,
            "longer": longer,
            "text_entries": text_entries,
            "moment": moment,
            "recent": RECENT,
            "unknown": unknown,
        }

    def blocks(self, fields: Sequence[Field]) -> None:
        """Read these fields. Of many, those that cannot come next are passed over in blocks."""
        if len(fields) < 2 * _BLOCK:
            for field in fields:
                self.field(field)
            return
        for first in range(0, len(fields), _BLOCK):
            block = fields[first : first + _BLOCK]
            if _tag(block[-1]) > 127:
                self._widen()
            lines, self.lines = self.lines, []
            for field in block:
                self.field(field)
            lines += [f"if t <= {_looked_for(_tag(block[-1]))}:", *_indented(_AT_THE_END)]
            self.lines = lines + _indented(self.lines)

    def field(self, field: Field) -> None:
        tag = _tag(field)
        if tag > 127:
            self._widen()
        self.lines.append(f"if t == {_looked_for(tag)}:")
        self.lines += _indented(self._group(field) + self._body(field, tag))

    def _widen(self) -> None:
        """From here on the tags take two bytes. The mark of the first one stays in `t`, so that no
        tag written longer than needed can be taken for another."""
        if not self.wide:
            self.wide = True
            self.lines += ["if t > 127:", "    t = buf[i] + buf[i + 1] * 128"]

    def _group(self, field: Field) -> list[str]:
        if not field.group:
            return []
        flag = self.groups.setdefault(field.group, f"g{len(self.groups)}")
        return [f"if {flag}:", "    raise Odd", f"{flag} = True"]

    def _body(self, field: Field, tag: int) -> list[str]:
        skip = 2 if tag > 127 else 1
        if field.kind == "map":
            if tag < 128 and field.is_text_map:
                read = f"i = text_entries(x, buf, i, end, {tag})"
                return [*self._list(field, "{}"), read, *self._next()]
            return self._many(field, tag, "{}", self._entry(field))
        if field.repeated:
            if field.packable:
                return [*self._list(field, "[]"), *self._packed(field), *self._next()]
            return self._many(field, tag, "[]", self._read(field, skip, "a(%s)", many=True))
        once = field.kind in ("message", "timestamp", "duration", "wrapper")
        lines = [f"if {field.name!r} in d:", "    raise Odd"] if once and not field.group else []
        return [*lines, *self._read(field, skip, f"d[{field.name!r}] = %s"), *self._next()]

    def _next(self) -> list[str]:
        """Look at the tag behind the value that ended at `i`."""
        if not self.wide:
            return ["t = buf[i] if i < end else 0"]
        return [
            "t = buf[i] if i < end else 0",
            "if t > 127:",
            "    t += buf[i + 1] * 128",
        ]

    def _list(self, field: Field, empty: str) -> list[str]:
        return [
            f"x = d.get({field.name!r})",
            "if x is None:",
            f"    x = d[{field.name!r}] = {empty}",
        ]

    def _many(self, field: Field, tag: int, empty: str, body: list[str]) -> list[str]:
        """A run of one repeated field."""
        method = ["a = x.append"] if empty == "[]" else []
        return [*self._list(field, empty), *method, *self._loop(tag, body)]

    def _loop(self, tag: int, body: list[str]) -> list[str]:
        return [f"while t == {_looked_for(tag)}:", *_indented(body + self._next())]

    def _packed(self, field: Field) -> list[str]:
        name = f"packed_{field.number}"
        self.names[name] = packed_reader(field)
        return [*self._length(2 if _tag(field) > 127 else 1), f"x += {name}(buf[i:e])", "i = e"]

    def _length(self, skip: int) -> list[str]:
        """`i` at the start of a length-delimited value and `e` at its end."""
        return [
            f"i += {skip + 1}",
            "e = i + buf[i - 1]",
            "if e - i > 127:",
            "    i, e = longer(buf, i)",
        ]

    def _varint(self, skip: int, into: str, more: str) -> list[str]:
        ahead = f"i + {skip}" if skip else "i"
        return [
            f"{into} = buf[{ahead}]",
            f"i += {skip + 1}",
            f"if {into} > 127:",
            f"    {into}, i = {more}(buf, {into}, i)",
        ]

    def _read(
        self, field: Field, skip: int, put: str, levels: int = 1, many: bool = False
    ) -> list[str]:
        """Read one value `skip` bytes from `i`, leave `i` behind it; `put` takes the value.

        With `many`, long runs of small values are left to the exact decoder, which reads them
        together.
        """
        kind = field.kind
        if many:
            lines = self._read(field, skip, put, levels)
            at = len(self._length(skip))
            stop = ["if e - i < 9 and end - e > 1000 and dense(buf, e):", "    raise Odd"]
            return [*lines[:at], *stop, *lines[at:]]
        if kind == "string":
            return [*self._length(skip), put % "buf[i:e].decode()", "i = e"]
        if kind == "bytes":
            return [*self._length(skip), put % "buf[i:e]", "i = e"]
        if kind == "message":
            scan = self._linked(field)
            self.levels = max(self.levels, levels)
            value = f"{scan}(buf, i, e, depth - {levels})"
            return [*self._length(skip), put % value, "i = e"]
        if kind == "timestamp":
            # Records that were stored or sent together often have one time.
            self.levels = max(self.levels, levels)
            value = "recent[w] if w in recent else moment(w)"
            return [*self._length(skip), "w = buf[i:e]", put % value, "i = e"]
        if kind == "duration":
            self.levels = max(self.levels, levels)
            return [*self._length(skip), put % "duration(buf, i, e)", "i = e"]
        if kind == "wrapper":
            self.levels = max(self.levels, levels)
            name = f"wrapped_{field.wraps}"
            self.names[name] = wrapper_reader(field, self.exact_nested)
            return [*self._length(skip), put % f"{name}(buf, i, e)", "i = e"]
        if kind in FIXED_FORMAT:
            name = f"unpack_{kind}"
            reader = struct.Struct(FIXED_FORMAT[kind])
            self.names[name] = reader.unpack_from
            value = f"{name}(buf, i + {skip})[0]"
            return [put % value, f"i += {skip + reader.size}"]
        more = f"more_{kind}"
        self.names[more] = more_reader(kind)
        return [*self._varint(skip, "v", more), put % self._integer(field)]

    def _integer(self, field: Field) -> str:
        """The field's value for the number in `v`."""
        kind = field.kind
        if kind == "enum":
            assert field.target is not None
            name = self.classes[field.target]
            if name not in self.names:
                self.names[name] = Members(field.target)
            return f"{name}[v]"
        if kind in ("sint32", "sint64"):
            return "v >> 1 ^ -(v & 1)"
        return "v > 0" if kind == "bool" else "v"

    def _entry(self, field: Field) -> list[str]:
        """One entry of a map: key and value, both there, in this order."""
        key, value = field.key, field.value
        assert key is not None and value is not None
        self.levels = max(self.levels, 1)
        names = self._read(key, 1, "k = %s")
        reads = self._read(value, 1, "x[k] = %s", levels=2)
        return [
            *self._length(2 if field.tag > 127 else 1),
            "f = e",
            f"if buf[i] != {key.tag}:",
            "    raise Odd",
            *names,
            f"if buf[i] != {value.tag}:",
            "    raise Odd",
            *reads,
            "if i != f:",
            "    raise Odd",
        ]

    def _linked(self, field: Field) -> str:
        cls = field.target
        assert cls is not None
        name = f"scan_{self.classes[cls]}"
        if name not in self.names:
            self.link(self.names, name, cls)
        return name


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _tag(field: Field) -> int:
    """The tag that encoders write."""
    return field.packed_tag if field.repeated else field.tag


def _looked_for(tag: int) -> int:
    """The value of `t` for a tag."""
    return tag if tag < 128 else tag + 128
