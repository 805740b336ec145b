"""The journal's troubles, as others learn of them."""

from __future__ import annotations

from streamkit.database import Databases
from streamkit.errors import AbortedError
from streamkit.handlers.health import HealthHandler
from streamkit.journal import Journal

__all__ = ["watch_journal"]

_PACKAGE = "streamservice"
_PINNED_SECONDS = 1.0


def watch_journal(health: HealthHandler, journal: Journal, databases: Databases) -> None:
    """What goes wrong in the journal is seen in the health of who writes to it; and a query
    that keeps the store from giving space back ends, when it has had a second."""

    def say() -> None:
        for service in ("", f"{_PACKAGE}.ProducerService"):
            health.set_serving(not journal.faults, service)

    def release() -> None:
        reason = AbortedError(
            "the query ran while too much was written to the store",
            hint="read it faster, ask for less of it, or query a copy",
        )
        databases.end_running("", reason, after=_PINNED_SECONDS)

    journal.on_faults = say
    journal.on_pinned = release if hasattr(journal, "path") else None  # else no SQL
