"""StreamQueryResults: a request becomes a plan, the plan's messages go out as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import betterproto

from streamkit.codec import frame
from streamkit.config import QueryLimits
from streamkit.database import (
    DEFAULT_ARROW_ROWS,
    DEFAULT_BATCH_ROWS,
    Databases,
    Parameters,
    QueryPlan,
)
from streamkit.errors import InvalidArgumentError, LimitError
from streamkit.generated.streamservice import (
    Parameter,
    PayloadFormat,
    QueryRequest,
    QueryResult,
    StreamServiceBase,
)
from streamkit.handlers.validation import QUICKEST_HEARTBEAT, seconds
from streamkit.rights import STORE, Action
from streamkit.terms import NEVER_AGAIN
from streamkit.transport import Context, Framed, context

__all__ = ["QueriesHandler", "check_visible", "parameters_of", "plan_of"]


_SIGN_OF_LIFE = frame(QueryResult())


class QueriesHandler(StreamServiceBase):
    """Runs one read-only statement for each call and streams its result in batches."""

    def __init__(self, *, databases: Databases, limits: QueryLimits | None = None) -> None:
        self._databases = databases
        self._limits = limits

    async def stream_query_results(  # type: ignore[override]  # ready frames instead of messages
        self, query_request: QueryRequest
    ) -> AsyncIterator[Framed]:
        """Every batch of the result, each as soon as it is full; the last one says so.

        A draining server lets it come to its end within the grace: a query cannot be resumed.
        """
        context().finite = True
        plan = plan_of(query_request, self._limits or self._databases.limits)
        check_visible(self._databases, query_request.database)
        pulse = _Pulse(context(), seconds(query_request.heartbeat, "heartbeat"))
        try:
            owner = _owner(context())
            async with self._databases.run(query_request.database, plan, owner) as messages:
                try:
                    async for framed in messages:
                        pulse.quiet = False
                        yield framed
                except LimitError:  # not that of its turn: what it asks for is too much
                    context().set_trailing_metadata(NEVER_AGAIN)
                    raise
        finally:
            pulse.stop()


def _owner(call: Context) -> str:
    """Whose share of the turns a query takes: of an identity, or of a connection from elsewhere."""
    if call.identity is not None:
        return call.identity.name
    return call.peer if call.peer.startswith("ip") else ""


class _Pulse:
    """Says that a query is alive while it waits for its turn or its rows: a proxy in between ends
    what is silent for long. One timer, which looks whether anything was sent since the last time.
    """

    __slots__ = ("_call", "_seconds", "_timer", "quiet")

    def __init__(self, call: Context, seconds: float) -> None:
        self.quiet = True
        """Whether nothing was sent since the timer looked last."""
        self._call = call
        self._seconds = max(seconds, QUICKEST_HEARTBEAT)
        self._timer: asyncio.TimerHandle | None = None
        if seconds:
            self._wait()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._beat)

    def _beat(self) -> None:
        if self.quiet:
            self._call.put_aside(_SIGN_OF_LIFE)
        self.quiet = True
        self._wait()


def check_visible(databases: Databases, name: str) -> None:
    """Raise NotFoundError for a database that is not there, or not for this caller.

    Only those that the caller may query are named. That there is a store is no secret: AuthError.
    """
    call = context()
    if not name:
        call.require(Action.QUERY, STORE)
    databases.source(name, lambda known: call.allows(Action.QUERY, known or STORE))


def plan_of(request: QueryRequest, limits: QueryLimits) -> QueryPlan:
    """Check the request and apply the limits. Raises InvalidArgumentError naming the field."""
    if not request.query.strip():
        raise InvalidArgumentError("query: is empty")
    if request.batch_size < 0:
        raise InvalidArgumentError(f"batch_size: must not be negative, is {request.batch_size}")
    if request.max_message_bytes < 0:
        raise InvalidArgumentError(
            f"max_message_bytes: must not be negative, is {request.max_message_bytes}"
        )
    arrow = _is_arrow(request.format)
    asked = min(request.max_message_bytes, limits.max_message_asked)
    return QueryPlan(
        sql=request.query,
        parameters=parameters_of(request.parameters, limits),
        batch_rows=request.batch_size or (DEFAULT_ARROW_ROWS if arrow else DEFAULT_BATCH_ROWS),
        max_message=asked or limits.max_message,
        columns=request.columns,
        arrow=arrow,
        seconds=_seconds(request.timeout, limits),
    )


def parameters_of(parameters: Sequence[Parameter], limits: QueryLimits) -> Parameters:
    """All named or all positional, as Python values. Raises InvalidArgumentError."""
    if len(parameters) > limits.max_parameters:
        raise InvalidArgumentError(
            f"parameters: {len(parameters)} are more than {limits.max_parameters},"
            " the server's limit"
        )
    values = [_value(parameter, index, limits) for index, parameter in enumerate(parameters)]
    names = [parameter.name for parameter in parameters]
    if not any(names):
        return values
    if not all(names):
        raise InvalidArgumentError("parameters: give every one a name, or none of them")
    if len(set(names)) < len(names):
        raise InvalidArgumentError("parameters: a name is given twice")
    return dict(zip(names, values, strict=True))


def _value(parameter: Parameter, index: int, limits: QueryLimits) -> Any:
    kind, value = betterproto.which_one_of(parameter, "value")
    if not kind:
        raise InvalidArgumentError(f"parameters[{index}]: has no value")
    if kind == "null":
        return None
    if kind == "decimal":
        return _decimal(str(value), f"parameters[{index}].decimal", limits.max_digits)
    return value


def _decimal(text: str, field: str, most: int) -> Decimal:
    """A number whose positional form, which every database gets, is known to be short."""
    try:
        value = Decimal(text) if len(text) <= 2 * most else None
    except InvalidOperation:
        raise InvalidArgumentError(f"{field}: {text[:100]!r} is no decimal number") from None
    if value is None or (value.is_finite() and _positions(value) > most):
        raise InvalidArgumentError(f"{field}: has more than {most} digits, the server's limit")
    return value


def _positions(value: Decimal) -> int:
    """Digits before and after the point, counted without writing them."""
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    before, after = len(digits) + exponent, -exponent
    return max(before, 1) + max(after, 0)


def _is_arrow(number: int) -> bool:
    if number not in (PayloadFormat.ROWS, PayloadFormat.ARROW):
        raise InvalidArgumentError(f"format: {int(number)} is not known")
    return number == PayloadFormat.ARROW


def _seconds(timeout: timedelta | None, limits: QueryLimits) -> float:
    """An unset timeout reads as zero."""
    seconds = timeout.total_seconds() if timeout is not None else 0.0
    if seconds < 0:
        raise InvalidArgumentError("timeout: must not be negative")
    return min(seconds, limits.max_seconds) if seconds else limits.max_seconds
