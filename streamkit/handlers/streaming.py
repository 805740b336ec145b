"""What the three journal streams share: a read of the journal becomes records on the wire.

A plain client gets its records and nothing else. Control records (heartbeats, gaps) exist only for
clients that asked for them in StreamOptions.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from streamkit.codec import frame
from streamkit.errors import ConnectError
from streamkit.generated.streamservice import (
    Control,
    Gap,
    Heartbeat,
    StreamOptions,
    StreamServiceBase,
)
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.handlers.validation import QUICKEST_HEARTBEAT, seconds
from streamkit.journal import framed
from streamkit.journal.base import Delivery, Journal, Record, Selector, Start
from streamkit.terms import EPOCH_HEADER, POSITION_HEADER
from streamkit.transport import Framed, context

__all__ = ["JournalHandler", "batches_of", "control_of", "records_of"]


class JournalHandler(StreamServiceBase):
    """Holds the journal that its streams are read from."""

    def __init__(self, *, journal: Journal) -> None:
        self._journal = journal


async def batches_of(
    journal: Journal, selector: Selector, start: Start, *, follow: bool, options: StreamOptions
) -> AsyncGenerator[Delivery[Record]]:
    """The journal's batches for this call; the first comes at once and may be empty.

    The position that the stream starts from has then been sent as initial metadata. A
    position older than what is kept ends the call with OUT_OF_RANGE and what there is.
    """
    heartbeat = seconds(options.heartbeat, "options.heartbeat")
    batches = journal.read(
        selector,
        start,
        follow=follow,
        heartbeat=max(heartbeat, QUICKEST_HEARTBEAT) if heartbeat else None,
        latest=options.latest,
        tell_loss=options.gaps,
    )
    call = context()
    call.finite = not follow
    started = False
    async with aclosing(batches):
        async for batch in batches:
            if not started:
                started = True
                epoch, sequence = batch.position
                call.set_initial_metadata({EPOCH_HEADER: epoch, POSITION_HEADER: str(sequence)})
                await call.send_initial_metadata()
            yield batch
            call.place = (selector.stream.value, *batch.position)
    if follow:
        # A live stream has no end of its own; OK would say that there is no more.
        raise ConnectError("the journal was closed", hint="resume in a moment")


async def records_of(
    journal: Journal,
    selector: Selector,
    start: Start,
    *,
    follow: bool,
    options: StreamOptions,
    record: Callable[..., Record],
) -> AsyncGenerator[Framed]:
    """The call's records, framed; `record` makes the message that carries a control."""
    first = True
    batches = batches_of(journal, selector, start, follow=follow, options=options)
    async with aclosing(batches):
        async for batch in batches:
            control = control_of(batch, quiet=first)
            first = False
            if control is not None:
                yield Framed(frame(record(control=control)), 1)
            if batch.items:
                yield framed(batch, selector.stream)


def control_of(batch: Delivery[Record], *, quiet: bool = False) -> Control | None:
    """The control record that goes before the batch's entries; `quiet` gives no heartbeat."""
    if batch.loss is not None:
        return Control(gap=Gap(batch.loss.first, batch.loss.last, reason="removed by retention"))
    if batch.items or quiet:
        return None
    return Control(heartbeat=Heartbeat(WirePosition(*batch.position)))
