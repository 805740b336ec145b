"""Whole results as files: the rows of a query, the lines of a log. Memory stays flat."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from grpclib.encoding.base import CodecBase

from streamkit.codec import encode, from_json, to_json
from streamkit.doors.connect import error_json, http_status
from streamkit.doors.exchange import WebExchange, metadata_of
from streamkit.doors.http.requests import WebRequest, answer
from streamkit.doors.sse import log_request
from streamkit.doors.transcode import messages_in
from streamkit.errors import InvalidArgumentError, Status
from streamkit.formats import RowWriter, TextOptions, writer_for
from streamkit.generated.streamservice import (
    LogEntry,
    Parameter,
    PayloadFormat,
    QueryRequest,
    QueryResult,
)
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.server.outcome import Outcome

__all__ = ["download_of"]

_QUERY = "/streamservice.StreamService/StreamQueryResults"
_LOGS = "/streamservice.StreamService/TailLogs"
_ROWS = 1000
_MOST_PARAMETERS = 1_000


class _Writer(Protocol):
    """Turns replies into the bytes of a file."""

    def take(self, frames: bytes) -> bytes: ...
    def end(self) -> bytes: ...


def download_of(request: WebRequest, codec: CodecBase) -> WebExchange | None:
    """Return the call whose replies become a file; None where nothing is to be had.

    InvalidArgumentError for a request that makes no sense.
    """
    if request.call.method != "GET":
        return None
    if request.path == "/download/logs":
        message = encode(log_request(request))
        return _Download(request, _LOGS, message, codec, _Logs(), "application/x-ndjson")
    if request.path != "/download/query":
        return None
    form = request.value("format", "csv")
    if form not in ("csv", "jsonl", "parquet"):
        raise InvalidArgumentError(f"format: {form[:20]!r} is not csv, jsonl or parquet")
    parquet = form == "parquet"
    if parquet and find_spec("pyarrow") is None:
        raise InvalidArgumentError(
            "the server has no pyarrow, which parquet needs",
            hint="pip install 'streamkit-grpc[arrow]'",
        )
    asked = QueryRequest(
        query=request.value("sql"),
        database=request.value("database"),
        parameters=_parameters(request.value("parameters", "[]")),
        batch_size=0 if parquet else _ROWS,
        columns=True,
        format=PayloadFormat(parquet),  # 0 rows, 1 Arrow
    )
    writer: _Writer = _Parquet() if parquet else _Rows(form)
    kind = {
        "csv": "text/csv; charset=utf-8; header=present",
        "jsonl": "application/x-ndjson",
        "parquet": "application/vnd.apache.parquet",
    }[form]
    return _Download(request, _QUERY, encode(asked), codec, writer, kind)


def _parameters(text: str) -> list[Parameter]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, list) or len(given) > _MOST_PARAMETERS:
        raise InvalidArgumentError("parameters: not a list of parameters in JSON")
    return [from_json(Parameter, json.dumps(one)) for one in given]


class _Download(WebExchange):
    """A call whose replies are a file. One that fails half way breaks off, so that it shows."""

    carrier = "download"

    def __init__(
        self,
        request: WebRequest,
        method: str,
        message: bytes,
        codec: CodecBase,
        writer: _Writer,
        kind: str,
    ) -> None:
        metadata = metadata_of(request.call.headers)
        super().__init__(request.call, method, (message,), codec, metadata=metadata)
        self._writer = writer
        self._kind = kind
        self._begun = False

    def put_headers(self, metadata: Headers, compression: str) -> None:
        self.headers_sent = True  # the response begins with its first bytes: it may be an error

    def put_parts(self, parts: Sequence[bytes | memoryview]) -> bool:
        return self._put(self._writer.take(b"".join(parts)))

    def put_status(self, outcome: Outcome) -> None:
        self.headers_sent = True
        if outcome.status is Status.OK:
            self._put(self._writer.end())
            self._begin()
            self.call.end()
        elif self._begun:
            self.call.reset()
        else:
            text = json.dumps(error_json(outcome)) + "\n"
            answer(self.call, http_status(outcome.status), text, kind="application/json")

    def drop_pending(self) -> None:
        """What was written stays: the file is whole or it breaks off."""

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            headers = [
                ("content-type", self._kind),
                ("content-disposition", "attachment"),
                ("cache-control", "no-store"),
                ("x-content-type-options", "nosniff"),
            ]
            self.call.start(200, headers)

    def _put(self, data: bytes) -> bool:
        if not data:
            return False
        self._begin()
        return self.call.write((data,))


class _Logs:
    """JSON lines of log entries."""

    def take(self, frames: bytes) -> bytes:
        return "".join([f"{to_json(one)}\n" for one in messages_in(LogEntry, frames)]).encode()

    def end(self) -> bytes:
        return b""


class _Rows:
    """Text of rows, in a format that the command line has too."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._writer: RowWriter | None = None

    def take(self, frames: bytes) -> bytes:
        parts = []
        for result in messages_in(QueryResult, frames):
            if self._writer is None:
                self._writer = writer_for(self._form, result.columns, TextOptions())
                parts.append(self._writer.begin())
            parts.append(self._writer.rows([row.columns for row in result.rows]))
        return "".join(parts).encode()

    def end(self) -> bytes:
        return b"" if self._writer is None else self._writer.end().encode()


class _Parquet:
    """One row group for each batch of Arrow."""

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._file: Any = None
        self._schema: Any = None
        self._heads = b""

    def take(self, frames: bytes) -> bytes:
        ipc: Any = import_module("pyarrow.ipc")
        parquet: Any = import_module("pyarrow.parquet")
        for result in messages_in(QueryResult, frames):
            if not result.arrow_ipc:
                continue
            if self._schema is None:
                # The first message is the schema, and may have the first batch behind it.
                reader = ipc.open_stream(result.arrow_ipc)
                self._schema = reader.schema
                self._file = parquet.ParquetWriter(self._sink, self._schema)
                self._heads = self._schema.serialize().to_pybytes()
            else:
                reader = ipc.open_stream(self._heads + result.arrow_ipc)
            for batch in reader:
                self._file.write_batch(batch)
        return self._taken()

    def end(self) -> bytes:
        if self._file is not None:
            self._file.close()
        return self._taken()

    def _taken(self) -> bytes:
        data = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return data
