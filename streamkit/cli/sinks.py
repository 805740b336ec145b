"""Where the rows of a query go, and what the person sees of it meanwhile.

Nothing is kept: a batch is written and forgotten, so memory stays flat however long the result.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from streamkit.cli.output.formats import ColumnLike, RowWriter, TextOptions, writer_for
from streamkit.cli.output.records import seconds_text, size_text
from streamkit.cli.output.streams import Output
from streamkit.cli.session import UsageError

if TYPE_CHECKING:
    from streamkit.generated.streamservice import QueryResult, Row

__all__ = ["Progress", "Sink", "open_sink", "progress_for"]

END_OF_ARROW_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


class Sink:
    """Takes the batches of one result. `count` rows and `bytes` were written so far."""

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self.started = False
        self.full = False
        """Whether a table on a terminal has all the rows that were to be shown."""
        self.target: IO[Any] | None = None
        """A file whose old content goes when the result begins."""

    def begin(self, columns: Sequence[ColumnLike]) -> None:
        self.started = True
        if self.target is not None and stat.S_ISREG(os.fstat(self.target.fileno()).st_mode):
            self.target.seek(0)
            self.target.truncate()

    def rows(self, rows: Sequence[Row]) -> None:
        raise NotImplementedError

    def arrow(self, result: QueryResult) -> None:
        raise NotImplementedError

    def end(self, total: int) -> None:
        """The result is complete."""

    def abandon(self) -> None:
        """The result will not be complete."""


class _TextSink(Sink):
    def __init__(self, output: Output, file: Any, format_name: str, options: TextOptions) -> None:
        super().__init__()
        self._output = output
        self._file = file
        self._format = format_name
        self._options = options
        self._writer: RowWriter | None = None
        if format_name == "table":
            # Now, and not when the first rows are there to be shown.
            import streamkit.cli.rendering.tables  # noqa: F401

    def begin(self, columns: Sequence[ColumnLike]) -> None:
        super().begin(columns)
        self._writer = self._make_writer(columns)
        self._write(self._writer.begin())

    def _make_writer(self, columns: Sequence[ColumnLike]) -> RowWriter:
        if self._format == "table":
            from streamkit.cli.rendering.tables import TableWriter

            tty = self._output.terminal.is_tty and self._file is None
            return TableWriter(columns, self._options, self._output.terminal.width if tty else 0)
        return writer_for(self._format, columns, self._options)

    def rows(self, rows: Sequence[Row]) -> None:
        assert self._writer is not None
        self._write(self._writer.rows([row.columns for row in rows]))
        self.count += len(rows)

    def end(self, total: int) -> None:
        if self._writer is not None:
            self._write(self._writer.end())

    def _write(self, text: str) -> None:
        if not text:
            return
        self.bytes += len(text)
        if self._file is not None:
            self._file.write(text)
        else:
            self._output.text(text)
            self._output.flush()


class _LimitedTable(_TextSink):
    """A table on a terminal: the first `limit` rows, then a word about the others."""

    def __init__(self, output: Output, options: TextOptions, limit: int) -> None:
        super().__init__(output, None, "table", options)
        self._limit = limit

    def rows(self, rows: Sequence[Row]) -> None:
        room = self._limit - self.count
        super().rows(rows[:room])
        self.full = len(rows) > room

    def end(self, total: int) -> None:
        super().end(total)
        if self.full:
            count = f"of {total:,} rows" if total else "rows, there are more"
            hint = "--limit 0 shows all, a pipe gets all"
            self._output.note(f"streamkit: the first {self._limit:,} {count}; {hint}")


class _ArrowSink(Sink):
    """The server's Arrow IPC stream, as it comes."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file

    def arrow(self, result: QueryResult) -> None:
        if not self.started:
            self.begin(())
        self._file.write(result.arrow_ipc)
        self.bytes += len(result.arrow_ipc)
        self.count = result.total_rows if result.is_last else self.count

    def end(self, total: int) -> None:
        self._file.write(END_OF_ARROW_STREAM)
        self._file.flush()
        self.count = total


class _ParquetSink(Sink):
    """Record batches into a Parquet file, one row group a batch."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise UsageError(
                "parquet needs pyarrow: pip install 'streamkit[arrow]'; -o arrow does not"
            ) from None
        self._arrow = pyarrow
        self._file = file
        self._schema: Any = None
        self._writer: Any = None

    def arrow(self, result: QueryResult) -> None:
        if not self.started:
            self.begin(())
        if not result.arrow_ipc:
            return
        self.bytes += len(result.arrow_ipc)
        reader = self._arrow.BufferReader(result.arrow_ipc)
        while reader.tell() < len(result.arrow_ipc):
            try:
                message = self._arrow.ipc.read_message(reader)
            except EOFError:
                return
            if message.type == "schema":
                self._schema = self._arrow.ipc.read_schema(message)
                self._writer = self._arrow.parquet.ParquetWriter(self._file, self._schema)
                continue
            batch = self._arrow.ipc.read_record_batch(message, self._schema)
            self._writer.write_batch(batch)
            self.count += batch.num_rows

    def end(self, total: int) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file.flush()

    def abandon(self) -> None:
        # Without its footer the file is unreadable, which is what an incomplete result should be.
        self._writer = None


@contextmanager
def open_sink(
    output: Output, format_name: str, path: str, options: TextOptions, limit: int
) -> Iterator[Sink]:
    """Open the sink of a format: a file at `path`, else standard output.

    A file that cannot be written is told before the query runs, and one that is there keeps its
    content until the first batch has come.
    """
    if path:
        there = os.path.exists(path)
        with _open_file(path, binary=format_name in ("arrow", "parquet")) as file:
            sink = Sink()
            try:
                sink = _file_sink(output, format_name, file, options)
                sink.target = file
                yield sink
            finally:
                if not there and not sink.started:
                    os.unlink(path)
    elif format_name in ("arrow", "parquet"):
        yield _file_sink(output, format_name, output.binary, options)
    elif format_name == "table" and output.terminal.is_tty and limit:
        yield _LimitedTable(output, options, limit)
    else:
        yield _TextSink(output, None, format_name, options)


def _open_file(path: str, *, binary: bool) -> IO[Any]:
    if binary:
        return open(path, "ab")
    return open(path, "a", encoding="utf-8", errors="backslashreplace", newline="")


def _file_sink(output: Output, format_name: str, file: Any, options: TextOptions) -> Sink:
    if format_name == "arrow":
        return _ArrowSink(file)
    if format_name == "parquet":
        return _ParquetSink(file)
    return _TextSink(output, file, format_name, options)


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


def progress_for(output: Output, sink: Sink, *, quiet: bool) -> Progress:
    """A line that lives on a terminal, if the data does not go to the same one."""
    if quiet or not output.notes.animation or isinstance(sink, _LimitedTable):
        return Progress(output, sink)
    if isinstance(sink, _TextSink) and sink._file is None and output.terminal.is_tty:
        return Progress(output, sink)
    from streamkit.cli.rendering.progress import LiveProgress

    return LiveProgress(output, sink)
