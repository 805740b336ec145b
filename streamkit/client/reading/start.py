"""Where a stream starts, in the words of a user and on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from streamkit.errors import InvalidArgumentError
from streamkit.generated import streamservice as wire
from streamkit.terms import Position

__all__ = ["Last", "Position", "StartAt", "after", "last", "since", "start_from"]


@dataclass(frozen=True, slots=True)
class Last:
    """The last `count` matching records, then what follows."""

    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or self.count < 0:
            raise InvalidArgumentError(f"last: must not be negative, not {self.count}")


StartAt = Literal["new", "all"] | Last | Position | datetime | timedelta
"""new: only what comes. all: everything kept. A time, or how long ago. After a position."""


def last(count: int) -> Last:
    """Start with the last `count` matching records."""
    return Last(count)


def since(when: datetime | timedelta) -> datetime:
    """Start with what was recorded at or after a time, or so long ago."""
    if isinstance(when, timedelta):
        return datetime.now(UTC) - when
    if when.tzinfo is None:
        raise InvalidArgumentError("since: a time needs a time zone, e.g. datetime.now(UTC)")
    return when


def after(position: Position) -> Position:
    """Start after a position: a stream's own `.position`, kept from an earlier run."""
    return position


def start_from(start: StartAt | None) -> wire.StartFrom | None:
    """The wire form; None stays None, the stream's own default. Raises InvalidArgumentError."""
    match start:
        case None:
            return None
        case "new":
            return wire.StartFrom(new=True)
        case "all":
            return wire.StartFrom(all=True)
        case Last(count):
            return wire.StartFrom(last=count)
        case Position(epoch, sequence):
            return wire.StartFrom(after=wire.Position(epoch=epoch, sequence=sequence))
        case datetime() | timedelta():
            return wire.StartFrom(since=since(start))
    raise InvalidArgumentError(f"start: not a place in a stream: {start!r}")
