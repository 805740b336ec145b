"""What many short fields of one kind hold: their values by passes in C, or which one is wrong."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from itertools import accumulate, compress, repeat
from typing import Any, Final

import betterproto

from streamkit.codec.wire.field import VARINT_KINDS, Field
from streamkit.codec.wire.runs import flat_run, short
from streamkit.codec.wire.scan import Malformed, fixed_size, varint

__all__ = [
    "BadElement",
    "check_packed",
    "copies_of",
    "cut_between_fields",
    "empty_of",
    "ends_itself",
    "has_mutable",
    "payloads_of",
    "split",
    "texts_of",
]


class BadElement(Malformed):
    """One of many values is malformed."""

    def __init__(self, index: int, reason: str, path: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.path += path
        self.index = index


def ends_itself(token: bytes) -> bool:
    """Whether a group ends with its own number; other fields pass."""
    if token[0] & 7 != 3:
        return True
    if token[0] < 128:
        return token[-1] == token[0] + 1
    return token[-2] == token[0] + 1 and token[-1] == token[1]


def split(token: re.Pattern[bytes], buf: bytes, at: int, stop: int) -> list[bytes]:
    first: bytes = token.match(buf, at)[0]  # type: ignore[index]  # it matches: `at` is at one
    count, rest = divmod(stop - at, len(first))
    if not rest and buf.startswith(first * count, at):
        return [first] * count
    return token.findall(buf, at, stop)


def payloads_of(field: Field, tokens: list[bytes]) -> list[bytes]:
    size = field.tag_size + 1
    if tokens[0] is tokens[-1] and tokens.count(tokens[0]) == len(tokens):
        return [tokens[0][size:]] * len(tokens)
    return [token[size:] for token in tokens]


_HIGH: Final = bytes(range(128, 256))


def check_packed(field: Field, bodies: list[bytes]) -> None:
    """Packed values may not be cut where one piece ends."""
    if field.kind in VARINT_KINDS:
        wrong = [body[-1:] > b"\x7f" for body in bodies]
        reason, size_of = (
            "the data ends inside a varint",
            lambda body: len(body.translate(None, _HIGH)),
        )
    else:
        width = fixed_size(field.kind)
        wrong = [len(body) % width > 0 for body in bodies]
        reason, size_of = "the data is truncated", lambda body: len(body) // width
    if any(wrong):
        raise BadElement(sum(map(size_of, bodies[: wrong.index(True)])), reason)


def empty_of(field: Field) -> bytes:
    """The field with its default value."""
    wire = field.tag & 7
    return varint(field.tag) + bytes({1: 8, 5: 4}.get(wire, 1))


def texts_of(payloads: list[bytes]) -> list[str]:
    try:
        # Bytes that end inside of a character cannot be continued by the 0 between them.
        found = b"\0".join(payloads).decode().split("\0")
        return found if len(found) == len(payloads) else [raw.decode() for raw in payloads]
    except UnicodeDecodeError:
        index = next(index for index, raw in enumerate(payloads) if not _is_text(raw))
        raise BadElement(index, "a string is not valid UTF-8") from None


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def cut_between_fields(whole: bytes, pieces: list[bytes]) -> bool:
    """Whether each piece is a whole number of fields; False if that is not seen quickly."""
    found = flat_run().match(whole)
    if found is None or found.end() != len(whole):
        return False
    ends = set(accumulate(map(len, short().findall(whole))))
    ends.add(0)
    return ends.issuperset(accumulate(map(len, pieces)))


def has_mutable(values: dict[str, Any]) -> bool:
    return any(isinstance(one, (list, dict, betterproto.Message)) for one in values.values())


def copies_of(cls: Any, states: dict[bytes, dict[str, Any]], payloads: list[bytes]) -> list[Any]:
    """Make a message for each payload; every step is one pass in C."""
    messages = list(map(object.__new__, repeat(cls, len(payloads))))
    for name in {name: None for state in states.values() for name in state}:
        value_of = {raw: state[name] for raw, state in states.items() if name in state}
        chosen: Iterable[Any] = messages
        raws: Iterable[bytes] = payloads
        if len(value_of) < len(states):
            has = list(map(value_of.__contains__, payloads))
            chosen, raws = compress(messages, has), compress(payloads, has)
        put: Callable[..., Any] = object.__setattr__
        deque(map(put, chosen, repeat(name), map(value_of.__getitem__, raws)), maxlen=0)
    return messages
