"""Query: the rows of one statement, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from streamkit.client.attempts import Attempts, Reconnect
from streamkit.client.reading.iteration import Iteration
from streamkit.client.reading.pulse import Pulse
from streamkit.client.reading.values import RowValues
from streamkit.client.retry import MAX_ATTEMPTS
from streamkit.codec import apart, decode
from streamkit.errors import (
    ConnectError,
    InternalError,
    InvalidArgumentError,
    StreamkitError,
    UnimplementedError,
)
from streamkit.generated.streamservice import (
    Column,
    Parameter,
    PayloadFormat,
    QueryRequest,
    QueryResult,
)
from streamkit.transport.grpc.deadline import checked_seconds, duration

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from streamkit.transport import Channel, ClientCall

__all__ = ["Parameters", "Query", "make_request"]

Parameters = Sequence[object] | Mapping[str, object]
"""Positional or named values: None, bool, int, float, str, bytes, datetime, Decimal."""

PATH = "/streamservice.StreamService/StreamQueryResults"

ARROW = PayloadFormat(PayloadFormat.ARROW)

_ARROW_IPC = 11
"""The number of that field."""

ARROW_MESSAGE = 16 * 1024 * 1024
"""The largest message asked for with Arrow payloads, where size is speed."""


_LONGEST_SILENCE = 2.0
"""Seconds after which a query that is at work is to say so: proxies give it five or more."""

_LAST_WORDS = 5.0
"""Seconds that the status may take once all the rows are here."""


class Query:
    """The result of one statement. Get it from `client.query()`; an async context manager.

    Read it once, by rows (`async for row in query`), by batches or as a whole. It is never run
    again after its first batch has arrived: a broken connection then raises ConnectError.
    """

    def __init__(
        self,
        channel: Channel,
        request: QueryRequest,
        reconnect: Reconnect,
        *,
        metadata: dict[str, str] | None = None,
        timeout: float | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self._pulse = pulse
        self._channel = channel
        self._request = request
        self._attempts = Attempts(reconnect, "query", channel.closing, most=MAX_ATTEMPTS)
        self._metadata = metadata
        self._timeout = timeout
        self._stack = AsyncExitStack()
        self._call: ClientCall[QueryRequest, QueryResult] | None = None
        self._first: QueryResult | None = None
        """The batch that `start` waited for, until it is handed out; the call keeps all others."""
        self._heard = 0.0
        """When the call last gave a sign of life, while its first batch is waited for."""
        self._columns: list[Column] = []
        self._started = False
        self.schema: pyarrow.Schema | None = None
        """Of an Arrow result, once it has begun to be read."""
        self.total_rows: int = 0
        """As soon as the server knows it; 0 until then, exact at the end."""
        self.total_batches: int = 0
        """As `total_rows`."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Run the statement and wait for its first batch. Raises QueryError for a wrong one."""
        if self._started:
            return
        self._started = True
        try:
            await self._attempts.run(self._open)
        except BaseException:
            await self.close()  # `async with` does not leave a block that it has not entered
            raise

    async def close(self) -> None:
        """Cancel what still runs, on the server too. May be called twice."""
        self._call = None
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    @property
    def columns(self) -> list[Column]:
        """Names and types in order. Empty if the query was made with `columns=False`."""
        if not self._started:
            raise InvalidArgumentError("columns are known once the query has started")
        return self._columns

    def batches(self) -> Iteration[QueryResult]:
        """The messages as the server made them."""
        return Iteration(self._batches)

    async def _batches(self) -> AsyncGenerator[QueryResult, None]:
        async with aclosing(self._results()) as results:
            async for result in results:
                if type(result.arrow_ipc) is not bytes:
                    result.arrow_ipc = bytes(result.arrow_ipc)
                yield result

    async def _results(self) -> AsyncGenerator[QueryResult, None]:
        """As `batches`, with Arrow payloads as views of where they were received."""
        await self.start()
        try:
            batch, self._first = self._first, None
            while self._call is not None:
                if batch is None:
                    batch = await self._receive(self._call)
                self._note(batch)
                yield batch
                if batch.is_last:
                    await self._finish()
                    return
                batch = None
        except StreamkitError as error:
            await self.close()
            if error.ending in ("", "status"):
                raise
            raise ConnectError(f"the result broke off: {error}", hint="run it again") from error

    def rows(self) -> Iteration[dict[str, Any]]:
        """One dict per row of Python values, as the columns' types say; NULL is None.

        See streamkit.client.reading.values for which type gives what. A query that was made with
        `columns=False` has only `texts`.
        """
        return Iteration(self._rows)

    async def _rows(self) -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(self.texts()) as rows:
            await self.start()
            values = self._values("rows")
            async for row in rows:
                yield values.named(row)

    def tuples(self) -> Iteration[tuple[Any, ...]]:
        """As `rows`, in the order of the columns and without their names."""
        return Iteration(self._tuples)

    async def _tuples(self) -> AsyncGenerator[tuple[Any, ...], None]:
        async with aclosing(self.texts()) as rows:
            await self.start()
            values = self._values("tuples")
            async for row in rows:
                yield values.of(row)

    def texts(self) -> Iteration[dict[str, str]]:
        """One dict per row of the text that the server sends; NULL is an absent key."""
        return Iteration(self._texts)

    async def _texts(self) -> AsyncGenerator[dict[str, str], None]:
        if self._request.format == ARROW:
            raise InvalidArgumentError("rows: this query was made with format='arrow'")
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                for row in batch.rows:
                    yield row.columns

    def _values(self, what: str) -> RowValues:
        if not self._request.columns:
            raise InvalidArgumentError(
                f"{what}: this query was made with columns=False", hint="read its `texts`"
            )
        return RowValues(self._columns)

    def __aiter__(self) -> Iteration[dict[str, Any]]:
        return self.rows()

    async def to_arrow(self) -> pyarrow.Table:
        """The whole result as an Arrow table. Needs pyarrow, and a query not started as rows."""
        pyarrow = self._as_arrow("to_arrow")
        try:
            async with aclosing(self.record_batches()) as batches:
                found = [batch async for batch in batches]
        finally:
            await self.close()
        return pyarrow.Table.from_batches(found, self.schema)

    def record_batches(self) -> Iteration[pyarrow.RecordBatch]:
        """The result as Arrow record batches, as they come; `schema` is set before the first.

        They use the memory that they were received in. Needs what `to_arrow` does.
        """
        return Iteration(self._record_batches)

    async def _record_batches(self) -> AsyncGenerator[pyarrow.RecordBatch, None]:
        pyarrow = self._as_arrow("record_batches")
        async with aclosing(self._results()) as results:
            async for result in results:
                if not result.arrow_ipc:
                    continue
                payload = pyarrow.py_buffer(result.arrow_ipc)
                if self.schema is None:
                    self.schema = pyarrow.ipc.read_schema(payload)
                else:
                    yield pyarrow.ipc.read_record_batch(payload, self.schema)
        if self.schema is None:
            raise InternalError("the server sent no Arrow schema")

    def _as_arrow(self, what: str) -> Any:
        """Ask for Arrow, if nothing else was asked for already; return pyarrow."""
        if not self._started:
            _ask_for_arrow(self._request)
        elif self._request.format != ARROW:
            raise InvalidArgumentError(f"{what}: make the query with format='arrow'")
        try:
            import pyarrow
        except ImportError:
            raise UnimplementedError(
                f"{what} needs pyarrow", hint="pip install 'streamkit-grpc[arrow]'"
            ) from None
        return pyarrow

    async def to_pandas(self) -> pandas.DataFrame:
        """The whole result as a pandas frame. Needs pandas beside pyarrow."""
        try:
            import pandas  # noqa: F401  # missed before the result is fetched, not after
        except ImportError:
            raise UnimplementedError("to_pandas needs pandas", hint="pip install pandas") from None
        return (await self.to_arrow()).to_pandas()

    async def to_polars(self) -> polars.DataFrame:
        """The whole result as a polars frame. Needs polars beside pyarrow."""
        try:
            import polars
        except ImportError:
            raise UnimplementedError("to_polars needs polars", hint="pip install polars") from None
        return polars.DataFrame(await self.to_arrow())

    async def _open(self) -> None:
        """One attempt, up to the first batch."""
        try:
            await self._first_batch()
        except StreamkitError as error:
            self._attempts.trailers = getattr(self._call, "trailing_metadata", None)
            if self._pulse is not None:
                self._pulse.cut(error.ending, asyncio.get_running_loop().time() - self._heard)
            await self.close()
            raise
        self._attempts.opened()

    async def _first_batch(self) -> None:
        if self._pulse is not None:
            interval = min(self._pulse.interval, _LONGEST_SILENCE)
            self._request.heartbeat = timedelta(seconds=interval)
        call = await self._stack.enter_async_context(
            self._channel.stream(
                PATH,
                QueryRequest,
                QueryResult,
                request=self._request,
                timeout=self._timeout,
                metadata=self._metadata,
                decoder=_in_place if self._request.format == ARROW else None,
            )
        )
        self._call = call
        self._first = await self._receive(call)
        self._columns = self._first.columns
        self._note(self._first)

    async def _receive(self, call: ClientCall[QueryRequest, QueryResult]) -> QueryResult:
        """Wait for the next batch. Signs of life are none."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        async for result in call:
            if _says_something(result):
                return result
            self._heard = loop.time()
        raise InternalError("the result ended without its last batch")

    def _note(self, batch: QueryResult) -> None:
        self.total_rows = batch.total_rows or self.total_rows
        self.total_batches = batch.total_batches or self.total_batches

    async def _finish(self) -> None:
        """After the last batch comes the status: an error there is an error of the query.

        A break is none: all the rows are here.
        """
        try:
            async with asyncio.timeout(_LAST_WORDS):
                while self._call is not None and await self._call.receive():
                    pass
        except TimeoutError:
            pass
        except StreamkitError as error:
            if error.ending in ("", "status"):
                raise
        finally:
            await self.close()


def _says_something(result: QueryResult) -> bool:
    """Whether it is more than a sign of life."""
    return bool(result.batch_number or result.rows or result.arrow_ipc or result.is_last)


def _in_place(data: bytes) -> QueryResult:
    """Decode a message of an Arrow result: its payload stays where it is."""
    rest, payload = apart(data, _ARROW_IPC)
    result = decode(QueryResult, rest)
    result.arrow_ipc = payload  # type: ignore[assignment]  # `batches` makes it bytes
    return result


def _ask_for_arrow(request: QueryRequest) -> None:
    request.format = ARROW
    request.max_message_bytes = ARROW_MESSAGE


def make_request(
    sql: str,
    parameters: Parameters,
    *,
    database: str,
    batch: int,
    columns: bool,
    timeout: float | None,
    format: Literal["rows", "arrow"],
) -> QueryRequest:
    """The request of a query. Raises InvalidArgumentError for what the wire cannot carry."""
    if batch < 0:
        raise InvalidArgumentError(f"batch must not be negative, not {batch}")
    if format not in ("rows", "arrow"):
        raise InvalidArgumentError(f'format must be "rows" or "arrow", not {format!r}')
    request = QueryRequest(query=sql, batch_size=batch, database=database, columns=columns)
    if format == "arrow":
        _ask_for_arrow(request)
    timeout = checked_seconds(timeout)
    if timeout is not None:
        request.timeout = duration(timeout, "timeout")
    if isinstance(parameters, Mapping):
        request.parameters = [_parameter(value, str(name)) for name, value in parameters.items()]
    elif isinstance(parameters, str | bytes):
        raise InvalidArgumentError("parameters: give a list of values, not one text")
    else:
        request.parameters = [_parameter(value, "") for value in parameters]
    return request


def _parameter(value: object, name: str) -> Parameter:
    match value:
        case None:
            return Parameter(name=name, null=True)
        case bool():
            return Parameter(name=name, boolean=value)
        case int() if -(1 << 63) <= value < 1 << 63:
            return Parameter(name=name, integer=value)
        case int() | Decimal():
            return Parameter(name=name, decimal=str(value))
        case float():
            return Parameter(name=name, real=value)
        case str():
            return Parameter(name=name, text=value)
        case bytes() | bytearray() | memoryview():
            return Parameter(name=name, blob=bytes(value))
        case datetime():
            if value.tzinfo is None:
                raise InvalidArgumentError(f"parameters: {name or value!r}: a time needs a zone")
            return Parameter(name=name, timestamp=value)
    kind: Any = type(value).__name__
    raise InvalidArgumentError(f"parameters: {name or value!r}: {kind} is not supported")
