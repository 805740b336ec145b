"""The places where the rows of a query may go.

Nothing is kept: a batch is written and forgotten, so memory stays flat however long the result.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from streamkit.cli.exits import UsageError
from streamkit.cli.output.progress import Progress
from streamkit.cli.output.sink import Sink
from streamkit.cli.output.streams import Output
from streamkit.formats import ColumnLike, RowWriter, TextOptions, writer_for

if TYPE_CHECKING:
    from streamkit.generated.streamservice import QueryResult, Row

__all__ = ["open_sink", "progress_for"]

END_OF_ARROW_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


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
            import streamkit.cli.rendering.tables  # noqa: F401  # for later

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
        self.complete = True

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
        self.complete = True
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
                "parquet needs pyarrow: pip install 'streamkit-grpc[arrow]'; -o arrow does not"
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
                self._refuse(self._schema)
                self._writer = self._arrow.parquet.ParquetWriter(self._file, self._schema)
                continue
            batch = self._arrow.ipc.read_record_batch(message, self._schema)
            self._writer.write_batch(batch)
            self.count += batch.num_rows

    def _refuse(self, schema: Any) -> None:
        """Name what Parquet cannot hold before a byte of it is written."""
        for field in schema:
            try:
                one = self._arrow.schema([field])
                with self._arrow.parquet.ParquetWriter(io.BytesIO(), one) as writer:
                    writer.write_table(one.empty_table())
            except (self._arrow.ArrowException, NotImplementedError) as error:
                raise UsageError(
                    f"column {field.name!r} is of type {field.type}, which parquet does not hold: "
                    "CAST it to text, or use another format"
                ) from error

    def end(self, total: int) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file.flush()
        self.complete = True

    def abandon(self) -> None:
        # Without its footer the file is unreadable, which is what an incomplete result should be.
        self._writer = None


@contextlib.contextmanager
def open_sink(
    output: Output, format_name: str, path: str, options: TextOptions, limit: int
) -> Iterator[Sink]:
    """Open the sink of a format: a file at `path`, else standard output.

    A file that cannot be written is told before the query runs. The result is written beside it
    and takes its place when it is complete; a file that was there keeps its content until then.
    """
    if path:
        binary = format_name in ("arrow", "parquet")
        if os.path.exists(path) and not os.path.isfile(path):
            with _open_file(path, binary=binary) as file:  # a pipe, a device
                yield _file_sink(output, format_name, file, options)
            return
        with _Replacement(path) as written:
            with _open_file(written.beside, binary=binary) as file:
                sink = _file_sink(output, format_name, file, options)
                yield sink
            if sink.complete:
                written.replace()
    elif format_name in ("arrow", "parquet"):
        yield _file_sink(output, format_name, output.binary, options)
    elif format_name == "table" and output.terminal.is_tty and limit:
        yield _LimitedTable(output, options, limit)
    else:
        yield _TextSink(output, None, format_name, options)


class _Replacement:
    """A new file beside the one of that name, removed unless it took its place."""

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path)
        folder, name = os.path.split(self._path)
        if os.path.exists(self._path):
            with open(self._path, "ab"):  # may we?
                mode = stat.S_IMODE(os.stat(self._path).st_mode)
        else:
            umask = os.umask(0)
            os.umask(umask)
            mode = 0o666 & ~umask
        try:
            file, self.beside = tempfile.mkstemp(prefix=f".{name[:40]}.", dir=folder or ".")
        except OSError as error:
            error.filename = path
            raise
        with contextlib.suppress(OSError):  # a file system may know no modes
            os.fchmod(file, mode)
        os.close(file)

    def __enter__(self) -> _Replacement:
        return self

    def replace(self) -> None:
        os.replace(self.beside, self._path)

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(FileNotFoundError):  # it has its own name by now
            os.unlink(self.beside)


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


def progress_for(output: Output, sink: Sink, *, quiet: bool) -> Progress:
    """A line that lives on a terminal, if the data does not go to the same one."""
    if quiet or not output.notes.animation or isinstance(sink, _LimitedTable):
        return Progress(output, sink)
    if isinstance(sink, _TextSink) and sink._file is None and output.terminal.is_tty:
        return Progress(output, sink)
    from streamkit.cli.rendering.progress import LiveProgress

    return LiveProgress(output, sink)
