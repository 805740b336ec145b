"""top, kick, health: what runs on a server, an end to it, and whether it serves at all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits, options
from streamkit.cli.exits import value_of
from streamkit.cli.input.parsing import duration
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.rendering.printing import JsonArray
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.generated.streamservice import CallInfo

__all__ = ["register"]

_NAMES = ("id", "identity", "peer", "method", "resource", "age", "sent/s", "lag", "position")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "top")(_top)
    command(app, "kick")(_kick)
    command(app, "health")(_health)


async def _top(
    session: Session,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="Between two looks.")
    ] = "1s",
    once: Annotated[bool, typer.Option("--once", help="Look once, then end.")] = False,
    output: options.JsonOutput = "pretty",
) -> int:
    """Show the calls that run on the server. For administrators.

    -o json is one array of one look, so it looks once.
    """
    options.one_of("-o", output, options.JSON_FORMATS)
    pause = value_of("--every", duration, every)
    once = once or output == "json" or (output == "pretty" and not session.output.terminal.is_tty)
    session.watch_reader()
    async with session.client() as client:
        rates = _Rates()
        if once:
            calls = await client.calls()
            await asyncio.sleep(min(pause, 1.0))  # a rate needs two looks
            rates.look(calls)
            _write(session, output, rates.look(await client.calls()))
            return exits.OK
        if output == "jsonl":
            while True:
                _write(session, output, rates.look(await client.calls()))
                await asyncio.sleep(pause)
        from streamkit.cli.rendering.calls import live_calls

        with live_calls(session.output) as show:
            while True:
                show(_NAMES, [_shown(row) for row in rates.look(await client.calls())])
                await asyncio.sleep(pause)


async def _kick(
    session: Session,
    call: Annotated[int, typer.Argument(metavar="ID", help="As `streamkit top` shows it.")],
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Told to the client.")
    ] = "",
) -> int:
    """End a call, whose client is told not to come back. For administrators."""
    async with session.client() as client:
        ended = await client.kick(call, reason)
    who = ended.identity or ended.peer
    session.note(f"ended call {ended.id}: {ended.method} of {who}")
    return exits.OK


async def _health(
    session: Session,
    service: Annotated[
        str, typer.Argument(metavar="[SERVICE]", help="Of one service instead of the server.")
    ] = "",
) -> int:
    """Ask whether the server serves: 0 yes, 1 no, 3 not reached. Needs no token."""
    from streamkit.errors import DeadlineError, NotFoundError
    from streamkit.generated.grpc.health.v1 import (
        HealthCheckRequest,
        HealthCheckResponse,
        HealthCheckResponseServingStatus,
    )
    from streamkit.transport import Channel

    patience = value_of("--connect-timeout", duration, session.connect_timeout)
    channel = Channel(session.server, ssl=session.tls_context(), connect_timeout=patience)
    async with channel:
        call = channel.stream(
            "/grpc.health.v1.Health/Check",
            HealthCheckRequest,
            HealthCheckResponse,
            request=HealthCheckRequest(service),
            timeout=patience,
        )
        try:
            async with call:
                reply = await call.reply()
        except NotFoundError as error:
            session.note(str(error))
            return exits.FAILED
        except DeadlineError:
            session.note(f"{session.server} does not answer")
            return exits.CONNECT
    status = HealthCheckResponseServingStatus(reply.status)
    session.output.line(str(status.name).lower().replace("_", " "))
    return exits.OK if status is HealthCheckResponseServingStatus.SERVING else exits.FAILED


class _Rates:
    """What each call has sent since the look before."""

    def __init__(self) -> None:
        self._before: dict[int, int] = {}
        self._when = 0.0

    def look(self, calls: Sequence[CallInfo]) -> list[dict[str, Any]]:
        now = time.monotonic()
        passed = now - self._when
        rows = []
        for call in calls:
            sent = call.sent - self._before.get(call.id, call.sent)
            rows.append(_row(call) | {"sent_per_second": round(sent / passed, 1)})
        self._before, self._when = {call.id: call.sent for call in calls}, now
        return rows


def _row(call: CallInfo) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": call.id,
        "identity": call.identity,
        "peer": call.peer,
        "carrier": call.carrier,
        "method": call.method,
        "resource": call.resource,
        "age_seconds": round(call.age.total_seconds(), 3),
        "received": call.received,
        "sent": call.sent,
        "bytes_received": call.bytes_received,
        "bytes_sent": call.bytes_sent,
        "lag": call.lag,
        "user_agent": call.user_agent,
    }
    if call.position.epoch:
        row["position"] = f"{call.position.epoch}:{call.position.sequence}"
    return row


def _shown(row: dict[str, Any]) -> list[str]:
    from streamkit.cli.output.records import seconds_text

    return [
        str(row["id"]),
        row["identity"] or "-",
        row["peer"],
        row["method"].rpartition("/")[2],
        row["resource"],
        seconds_text(row["age_seconds"]),
        f"{row['sent_per_second']:g}",
        str(row["lag"] or ""),
        row.get("position", "").rpartition(":")[2],
    ]


def _write(session: Session, output: str, rows: list[dict[str, Any]]) -> None:
    if output == "json":
        array = JsonArray(session)
        for row in rows:
            array.add(row)
        array.close()
        return
    if output == "jsonl":
        from streamkit.sanitise import json_text

        for row in rows:
            session.output.line(json_text(row))
        return
    table = [list(_NAMES), *(_shown(row) for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(_NAMES))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        session.output.line("  ".join(cells).rstrip())
