"""Streams of a server into the tables of a sink, each from where it stopped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from streamkit.client.sink.tables import Batch, Loss, Stage, Tables, row_of
from streamkit.errors import InternalError, PreconditionError
from streamkit.generated.streamservice import Gap
from streamkit.terms import Position

__all__ = ["Open", "flow"]

Open = Callable[[Any, Callable[[Gap], object]], Any]
"""Opens a stream at a start, with somebody to tell of what was lost."""

_MOST = 8192
"""Records of one transaction."""


async def flow(tables: Tables, stage: Stage, open_stream: Open, *, new_life: bool) -> None:
    """Store what a stream brings, until it is cancelled or ends.

    With `new_life` a journal that is another one than before is taken from its beginning, and what
    may be missing of the old one told as a gap; without, that is a PreconditionError.
    """
    lost: list[Loss] = []
    place = await tables.begin(stage)
    async with _opened(open_stream, place, lost, new_life=new_life) as stream:
        while records := await stream.receive():
            after = stream.position
            if after is None:
                raise InternalError(f"the server does not tell the position of {stage.table}")
            epoch = after.epoch
            rows = [row_of(record, epoch) for record in records]
            for start in range(0, len(rows), _MOST):
                part = rows[start : start + _MOST]
                end = Position(epoch, part[-1][1])
                told = [loss._replace(epoch=loss.epoch or epoch) for loss in lost]
                await tables.store(stage, Batch(part, place, end, told))
                place = end
                lost.clear()


@asynccontextmanager
async def _opened(
    open_stream: Open, place: Position | None, lost: list[Loss], *, new_life: bool
) -> AsyncIterator[Any]:
    def lose(gap: Gap) -> None:
        lost.append(Loss("", gap.first, gap.last, gap.reason))

    stream = open_stream(place or "all", lose)
    try:
        await stream.__aenter__()
    except PreconditionError as error:
        if place is None:
            raise
        if not new_life:
            raise PreconditionError(
                error.message, hint="if that is right, --new-life takes it from its beginning"
            ) from None
        reason = "what came after this is not known: the journal is another one since"
        lost.append(Loss(place.epoch, place.sequence + 1, None, reason))
        stream = open_stream("all", lose)
        await stream.__aenter__()
    try:
        yield stream
    finally:
        await stream.close()
