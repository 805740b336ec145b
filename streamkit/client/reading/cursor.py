"""The place that a stream has reached: what to ask for next, what of an answer is new."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

import betterproto

from streamkit.errors import PreconditionError, StreamGapError
from streamkit.generated.streamservice import (
    Gap,
    Heartbeat,
    JobProgress,
    JobRequest,
    LogEntry,
    StartFrom,
    Update,
)
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.terms import EPOCH_HEADER, POSITION_HEADER, TERMINAL, Position

__all__ = ["Cursor", "JobCursor", "JournalCursor", "KeyCursor", "OnLoss"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Made = TypeVar("Made", covariant=True)
Record = TypeVar("Record", Update, LogEntry, JobProgress)

OnLoss = Callable[[Gap], object]


class Cursor(Protocol[Made, Reply]):
    """What a resuming call needs to know of its stream. Pure; owned by one call."""

    def request(self) -> Made:
        """The request of the next attempt: everything after what was taken so far."""

    def opened(self, metadata: Mapping[str, object]) -> None:
        """The server answered an attempt with this initial metadata."""

    def take(self, messages: list[Reply]) -> list[Reply]:
        """Move on over what arrived; return what is new to the user, in order."""

    def complete(self) -> bool:
        """Whether the stream, having ended well, is really at its end."""

    def finished(self) -> bool:
        """Whether nothing more can come, however the stream ends."""


class KeyCursor(Generic[Request, Reply]):
    """A cursor for anybody's stream, made of two functions.

    `position_of` gives a message's place: any values that grow along the stream and can be
    compared; None for a message without one, which is handed on and not counted. `request_from`
    makes the request for what follows a place, or for the beginning (None).

    In a tuple, a first part that is text, bytes or a UUID names a life of the server: a place of
    a new life follows every place of an old one. Several messages may share a place; a stream
    that broke among them is asked for from the place before.

    What the server sends is handed on as it comes, except that an attempt begins with what was
    taken before the break, if the server repeats that.
    """

    def __init__(
        self,
        request_from: Callable[[Any], Request],
        position_of: Callable[[Reply], Any],
        *,
        position: Any = None,
        endless: bool = False,
    ) -> None:
        self._request_from = request_from
        self._position_of = position_of
        self._endless = endless
        self.position = position
        self._taken = 1
        """How many messages with the present place were handed on."""
        self._before: Any = None
        """The last place before the present one."""
        self._shared = False
        """Whether messages were seen that share a place."""
        self._past: deque[Any] = deque(maxlen=16)
        """The lives before the present one."""
        self.on_life: Callable[[Any], object] | None = None
        """Told the place of the first message of a new life."""
        self._repeated: int | None = None
        """While an attempt may begin with what is known: how many of the present place are."""

    def request(self) -> Request:
        self._repeated = None if self.position is None else self._taken
        careful = self._shared and self._before is not None
        return self._request_from(self._before if careful else self.position)

    def opened(self, metadata: Mapping[str, object]) -> None:
        """Nothing to learn from it."""

    def take(self, messages: list[Reply]) -> list[Reply]:
        fresh: list[Reply] = []
        keep, position_of = fresh.append, self._position_of
        for message in messages:
            place = position_of(message)
            if place is not None:
                if self._repeated is not None and self._is_repeated(place):
                    continue
                if type(place) is int and place != self.position:
                    # The usual case, which costs a call less.
                    self._before, self.position, self._taken = self.position, place, 1
                else:
                    self._move_to(place)
            keep(message)
        return fresh

    def complete(self) -> bool:
        return not self._endless

    def finished(self) -> bool:
        return False

    def _move_to(self, place: Any) -> None:
        if place == self.position:
            self._taken += 1
            self._shared = True
            return
        life = _life(self.position)
        if life is not None and life != _life(place):
            self._past.append(life)
            self._before = None  # of no use to the new life
            if self.on_life is not None:
                self.on_life(place)
        else:
            self._before = self.position
        self.position, self._taken = place, 1

    def _is_repeated(self, place: Any) -> bool:
        """Whether a message at the beginning of an attempt was taken before it."""
        life = _life(place)
        if life != _life(self.position):
            known = life in self._past
        elif place == self.position:
            known = bool(self._repeated)
            self._repeated = max(0, (self._repeated or 0) - 1)
        else:
            known = place < self.position
        if not known:
            self._repeated = None
        return known


def _life(place: Any) -> Any:
    """What names the server's life in a place, if anything does."""
    if isinstance(place, tuple) and len(place) > 1 and isinstance(place[0], str | bytes | UUID):
        return place[0]
    return None


class JournalCursor(Generic[Request, Record]):
    """The cursor of streamkit's own streams: sequences, heartbeats, gaps, epochs.

    `build` makes the request for a start; a stream that is `endless` has no end of its own, so one
    that ends well is broken. With `adopt` the place where the server starts is a position to
    resume from, even before the first record; without it (a job's stored state is older than that
    place) only what arrived counts. Without `on_loss` a loss raises StreamGapError.
    """

    def __init__(
        self,
        build: Callable[[StartFrom | None], Request],
        start: StartFrom | None,
        *,
        endless: bool,
        on_loss: OnLoss | None = None,
        adopt: bool = True,
    ) -> None:
        self._build = build
        self._start = start
        self._endless = endless
        self._on_loss = on_loss
        self._adopt = adopt
        self.epoch = ""
        self.sequence: int | None = None
        """The last one taken; None before the server said where the stream starts."""

    @property
    def position(self) -> Position | None:
        return None if self.sequence is None else Position(self.epoch, self.sequence)

    def request(self) -> Request:
        if self.sequence is None:
            return self._build(self._start)
        place = WirePosition(epoch=self.epoch, sequence=self.sequence)
        return self._build(StartFrom(after=place))

    def opened(self, metadata: Mapping[str, object]) -> None:
        epoch, position = metadata.get(EPOCH_HEADER), metadata.get(POSITION_HEADER)
        if epoch is None or position is None:
            return
        started = int(str(position))
        if self.epoch and str(epoch) != self.epoch:
            raise PreconditionError(
                f"the server goes on in another life ({epoch}), not in {self.epoch}",
                hint="start without a position",
            )
        if self.sequence is None:
            self.epoch = str(epoch)
            if self._adopt:
                self.sequence = started
        elif started > self.sequence:
            # The server went on further than asked for: without a gap record this is the only
            # trace of a loss.
            self._lose(Gap(self.sequence + 1, started, "the server resumed further on"))
            self.sequence = started

    def take(self, messages: list[Record]) -> list[Record]:
        fresh: list[Record] = []
        keep = fresh.append
        reached = -1 if self.sequence is None else self.sequence
        for message in messages:
            sequence = message.sequence
            if sequence > reached:
                reached = sequence
                keep(message)
            elif sequence == 0:
                self.sequence = reached if reached >= 0 else None
                if self._control(message):
                    keep(message)
                reached = -1 if self.sequence is None else self.sequence
        if reached >= 0:
            self.sequence = reached
        return fresh

    def complete(self) -> bool:
        return not self._endless

    def finished(self) -> bool:
        return False

    def _control(self, message: Record) -> bool:
        """Act on a record without a sequence; True if it is one for the user after all."""
        kind, value = betterproto.which_one_of(message.control, "kind")
        if isinstance(value, Heartbeat):
            place = value.position
            if self.sequence is None or place.sequence > self.sequence:
                self.epoch, self.sequence = place.epoch or self.epoch, place.sequence
        elif isinstance(value, Gap):
            self.sequence = max(self.sequence or 0, value.last)
            self._lose(value)
        return not kind

    def _lose(self, gap: Gap) -> None:
        if self._on_loss is None:
            raise StreamGapError(
                f"records {gap.first} to {gap.last} are gone: {gap.reason}",
                oldest=gap.last + 1,
                hint="pass on_loss to be told of a loss and go on",
            )
        self._on_loss(gap)


class JobCursor(JournalCursor[JobRequest, JobProgress]):
    """The cursor of one job's progress, which is over with the first terminal status."""

    def __init__(
        self,
        build: Callable[[StartFrom | None], JobRequest],
        start: StartFrom | None,
        on_loss: OnLoss | None = None,
    ) -> None:
        super().__init__(build, start, endless=True, on_loss=on_loss, adopt=False)
        self.status = ""

    def take(self, messages: list[JobProgress]) -> list[JobProgress]:
        fresh = super().take(messages)
        if fresh:
            self.status = fresh[-1].status
        return fresh

    def complete(self) -> bool:
        return self.finished()

    def finished(self) -> bool:
        return self.status in TERMINAL
