"""What a client tells about itself while it works: connections lost and regained, losses, drops."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["ClientEvent", "Kind", "OnEvent", "tell"]

Kind = Literal["connected", "lost", "reconnecting", "resumed", "gap", "dropped"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """One thing that happened to a client.

    connected: a stream is open for the first time. lost: it broke, `error` says how.
    reconnecting: the next attempt comes after `delay` seconds. resumed: the stream is open again
    and goes on after the last delivered record, or a repeated call was answered. gap: retention
    removed records before they were read. dropped: a full buffer or a refusal cost records that
    were to be written.
    """

    kind: Kind
    detail: str
    delay: float | None = None
    error: Exception | None = None


OnEvent = Callable[[ClientEvent], object]


def tell(on_event: OnEvent | None, event: ClientEvent) -> None:
    """Hand an event to the callback. A callback that raises is logged and harms nothing else."""
    if on_event is None:
        return
    try:
        on_event(event)
    except Exception:  # it is the user's, and must not end a stream
        _log.exception("on_event raised for %s", event.kind)
