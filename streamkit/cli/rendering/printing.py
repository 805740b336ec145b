"""Records on standard output in the format that was asked for, and the times between which."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import moment
from streamkit.cli.options import RECORD_FORMATS, one_of
from streamkit.cli.output.records import TIME_STYLES
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from rich.text import Text as Text

    from streamkit.client import AsyncClient
    from streamkit.client.reading.start import StartAt

__all__ = ["JsonArray", "Printer", "Span", "start_of"]

R = TypeVar("R")


class JsonArray:
    """Objects as one array, which is closed whatever ends it."""

    def __init__(self, session: Session) -> None:
        self._output = session.output
        self._begun = False

    def add(self, record: dict[str, Any]) -> None:
        from streamkit.sanitise import json_text

        self._output.text((",\n " if self._begun else "[") + json_text(record))
        self._output.flush()
        self._begun = True

    def close(self) -> None:
        with suppress(OSError):  # nobody reads any more
            self._output.line("]" if self._begun else "[]")


class Printer(Generic[R]):
    """Shows records one after the other; `close` it in the end."""

    def __init__(
        self,
        session: Session,
        output: str,
        time: str,
        *,
        raw: Callable[[R], str],
        shown: Callable[[R], dict[str, Any]],
        text: Callable[[R], Text],
    ) -> None:
        one_of("--time", time, TIME_STYLES)
        chosen = one_of("-o", output, RECORD_FORMATS, "pretty")
        self._array: JsonArray | None = None
        if chosen == "pretty":
            from streamkit.cli.rendering.records import RecordPrinter

            printer = RecordPrinter(session.output)
            self.show: Callable[[R], object] = lambda record: printer.print(text(record))
        elif chosen == "raw":
            self.show = lambda record: session.output.line(raw(record))
        elif chosen == "json":
            array = self._array = JsonArray(session)
            self.show = lambda record: array.add(shown(record))
        else:
            from streamkit.sanitise import json_text

            self.show = lambda record: session.output.line(json_text(shown(record)))

    def close(self) -> None:
        if self._array is not None:
            self._array.close()


class Span:
    """When to stop: after so many records, or with what is later than a time."""

    def __init__(self, count: int, until: str) -> None:
        self._left = count or None
        self.until = value_of("--until", moment, until) if until else None

    @property
    def over(self) -> bool:
        """Whether nothing that is still to be recorded belongs to it."""
        return self.until is not None and self.until <= datetime.now(UTC)

    @property
    def seconds(self) -> float | None:
        """How long new records may belong to it; None: for ever."""
        if self.until is None or self.over:
            return None
        return (self.until - datetime.now(UTC)).total_seconds()

    @property
    def full(self) -> bool:
        """Whether all that was to be shown was shown."""
        return self._left is not None and self._left <= 0

    def holds(self, when: datetime) -> bool:
        """Whether a record of that time belongs to it."""
        return self.until is None or when <= self.until

    def count(self) -> None:
        """One record was shown."""
        if self._left is not None:
            self._left -= 1


async def start_of(
    client: AsyncClient, *, everything: bool, last: int | None, since: str, from_seq: int
) -> StartAt | None:
    """Where a stream starts, from options of which one may be given; None if none was."""
    from streamkit import client as api
    from streamkit.terms import Position

    if sum((everything, last is not None, bool(since), bool(from_seq))) > 1:
        raise UsageError("give one of --all, --last, --since and --from-seq")
    if everything:
        return "all"
    if last is not None:
        return api.last(last)
    if since:
        return api.since(value_of("--since", moment, since))
    if from_seq:
        return api.after(Position((await client.status()).epoch, from_seq - 1))
    return None
