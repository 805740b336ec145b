"""What the readers of many short fields are worth: hostile and odd input with each and without it.

The exact decoder could read one field after the other; a megabyte of two-byte fields would hold up
the event loop for a second. Each row switches one way of reading many at once off, in turn with the
other, on the input that it is for; the best round of each counts.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from bench.codec import generate
from streamkit.codec import decode, install
from streamkit.codec.exact import decode as exact
from streamkit.codec.exact.short import ShortFields, _Unpaired
from streamkit.codec.wire import scan
from streamkit.codec.wire.runs import Runs

ROUNDS = 7
SIZE = 1 << 18

Switch = tuple[Any, str, Any]
"""Where a name is found, the name, and what stands there instead."""


def varint(value: int) -> bytes:
    return (
        value.to_bytes(1, "little")
        if value < 128
        else bytes([value & 127 | 128]) + varint(value >> 7)
    )


def sized(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def many(field: Callable[[int], bytes]) -> bytes:
    """Fields of number 0, 1, 2, ... until there are enough bytes."""
    parts: list[bytes] = []
    left = SIZE
    while left > 0:
        parts.append(field(len(parts)))
        left -= len(parts[-1])
    return b"".join(parts)


def packed(number: int, body: bytes) -> bytes:
    return sized(number, body * (SIZE // len(body)))


def unpaired(*_: Any) -> NoReturn:
    raise _Unpaired


NEVER = re.compile(b"(?!)")
ONE_BY_ONE: Switch = (exact, "_LONG", 1 << 40)
CASES: Sequence[tuple[str, bytes, str, Switch, float]] = (
    (
        "unknown fields",
        many(lambda n: b"\xc0\x3e" + varint(n)),
        "runs of unknown fields",
        (Runs, "unknown", lambda self, buf, at, end, groups=False: at),
        2,
    ),
    (
        "two numbers in turn",
        many(lambda n: b"\x18\x01\x20" + varint(n)),
        "runs of numbers",
        (Runs, "numbers", lambda self, buf, at, end: (at, {})),
        3,
    ),
    (
        "one sub-message again and again",
        many(lambda n: sized(17, b"\x08\x01")),
        "runs of one field",
        (Runs, "same", lambda self, field: (NEVER, NEVER)),
        3,
    ),
    (
        "members of a oneof in turn",
        many(lambda n: sized(22, b"") if n & 1 else b"\xb8\x01\x05"),
        "fields sorted",
        ONE_BY_ONE,
        1.2,
    ),
    (
        "wrappers",
        many(lambda n: sized(30, b"\x08" + varint(n))),
        "values of small messages together",
        (ShortFields, "_pairs", unpaired),
        1.5,
    ),
    (
        "packed numbers of two bytes",
        packed(24, b"\x96\x01"),
        "many varints as one integer",
        (scan, "_WORTH_COLUMNS", 1 << 40),
        1.5,
    ),
    (
        "equal entries of a map",
        many(lambda n: sized(28, b"\x08\x01")),
        "all of it",
        ONE_BY_ONE,
        3,
    ),
)


@contextmanager
def without(switch: Switch) -> Iterator[None]:
    place, name, replacement = switch
    kept = getattr(place, name)
    setattr(place, name, replacement)
    try:
        yield
    finally:
        setattr(place, name, kept)


def milliseconds(cls: Any, data: bytes) -> float:
    begun = time.process_time()
    decode(cls, data)
    return (time.process_time() - begun) * 1e3


def run() -> list[dict[str, Any]]:
    """Measure everything and return the rows of the table."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        target = Path(name)
        generate(target, "python_betterproto")
        (target / "bench").rename(target / "bench_every")
        sys.path.insert(0, name)
        from bench_every import Everything

        install(Everything)
        for case, data, trick, switch, floor in CASES:
            decode(Everything, data)
            on = off = float("inf")
            for _ in range(ROUNDS):
                on = min(on, milliseconds(Everything, data))
                with without(switch):
                    off = min(off, milliseconds(Everything, data))
            rows.append(
                {
                    "name": f"256 KiB of {case}",
                    "unit": "ms",
                    "ours": on,
                    "peer": f"without {trick}",
                    "peer_figure": off,
                    "ratio": off / on,
                    "floor": floor,
                }
            )
    return rows
