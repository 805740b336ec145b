"""What the person sees of a query while its rows go elsewhere."""

from __future__ import annotations

import time

from streamkit.cli.output.records import seconds_text, size_text
from streamkit.cli.output.sink import Sink
from streamkit.cli.output.streams import Output

__all__ = ["Progress"]


class Progress:
    """Rows, bytes and rate on standard error: nothing while it runs, a line at the end."""

    def __init__(self, output: Output, sink: Sink) -> None:
        self._output = output
        self._sink = sink
        self._started = time.monotonic()

    def update(self, total: int) -> None:
        """A batch was written; `total` rows are expected, 0 if that is not known."""

    def close(self) -> None:
        """Take away what is drawn."""

    def summary(self) -> None:
        elapsed = time.monotonic() - self._started
        count = self._sink.count
        rate = f", {count / elapsed:,.0f} rows/s" if elapsed > 1 else ""
        shown = f"{count:,} row{'s' if count != 1 else ''}"
        self._output.note(
            f"streamkit: {shown}, {size_text(self._sink.bytes)} in {seconds_text(elapsed)}{rate}"
        )
