"""What compiled decoders call. Everything here trades clarity for speed, on purpose.

Readers assume nothing about the bytes: whatever they do not expect raises, and the exact decoder
starts over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamkit.codec.plan import MessagePlan
from streamkit.codec.wire.field import Field
from streamkit.codec.wire.runs import tiny_run
from streamkit.codec.wire.scan import integer_reader, skip, tag_at
from streamkit.codec.wire.values import Odd, more

__all__ = [
    "Members",
    "dense",
    "longer",
    "more_reader",
    "more_size",
    "unknown",
    "wrapper_reader",
]


def more_reader(kind: str) -> Callable[[bytes, int, int], tuple[int, int]]:
    """Return `more` for an integer of this kind, which may have to be cut or have a sign."""
    if kind in ("uint64", "sint64", "bool", "enum"):
        return more
    convert = integer_reader("uint32" if kind == "sint32" else kind)

    def more_of_it(buf: bytes, value: int, at: int) -> tuple[int, int]:
        byte = buf[at]
        if byte < 128:
            return value + byte * 128 - 128, at + 1
        value, at = more(buf, value, at)
        return convert(value), at

    return more_of_it


class Members(dict[int, Any]):
    """The members of an enum by what stands for them on the wire."""

    def __init__(self, target: Any) -> None:
        super().__init__(target._value_map_)
        self.read = integer_reader("enum", target)

    def __missing__(self, value: int) -> Any:
        return self.read(value)


def more_size(buf: bytes, value: int, at: int) -> tuple[int, int]:
    """The same for the size of a value, which has five bytes at most."""
    byte = buf[at]
    if byte < 128:
        return value + byte * 128 - 128, at + 1
    value, after = more(buf, value, at)
    if after - at > 4 or value > 0x7FFFFFFF:
        raise Odd
    return value, after


def longer(buf: bytes, at: int) -> tuple[int, int]:
    """Return where a value of 128 bytes and more starts and ends; its size started before `at`."""
    size, at = more_size(buf, buf[at - 1], at)
    return at, at + size


def dense(buf: bytes, at: int) -> bool:
    """Whether many very small values follow, which should not be read one by one."""
    return tiny_run().match(buf, at) is not None


def wrapper_reader(field: Field, read: Callable[..., Any]) -> Callable[[bytes, int, int], Any]:
    """Return the function from a wrapper message's bytes to its value; `read` is the exact one."""
    if field.wraps == "string":

        def text(buf: bytes, at: int, end: int) -> Any:
            if at == end:
                return ""
            if buf[at] != 10 or buf[at + 1] != end - at - 2 or end - at > 129:
                raise Odd
            return buf[at + 2 : end].decode()

        return text
    return lambda buf, at, end: read(field, buf, at, end, 1)


def unknown(buf: bytes, at: int, end: int, depth: int, plan: MessagePlan) -> int:
    """Return the offset behind the unknown fields that start here; there is at least one."""
    start = at
    known = plan.by_tag
    left = 32  # so many are read here, then it is one of the cases for which there are runs
    while at < end:
        left -= 1
        if not left:
            raise Odd
        tag, after = tag_at(buf, at, end)
        if tag in known:
            break
        at = plan.runs.unknown(buf, skip(buf, tag, after, end, depth), end)
    if at == start:
        raise Odd
    return at
