"""tables, schema, status."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits, options
from streamkit.cli.options import command
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.generated.streamservice import ServerStatus, WorkerStatus

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "tables")(_tables)
    command(app, "schema")(_schema)
    command(app, "status")(_status)


async def _tables(
    session: Session,
    database: options.Database = "",
    output: options.JsonOutput = "pretty",
) -> int:
    """List the tables that can be queried."""
    from streamkit.cli.rendering.tables import show_table

    async with session.client() as client:
        tables = await client.tables(database)
    rows = [{"name": t.name, "kind": t.kind} for t in tables]
    show_table(session.output, output, ("name", "kind"), rows)
    return exits.OK


async def _schema(
    session: Session,
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    database: options.Database = "",
    output: options.JsonOutput = "pretty",
) -> int:
    """Show the columns of a table."""
    from streamkit.cli.rendering.tables import show_table

    async with session.client() as client:
        schema = await client.describe(table, database)
    rows = [
        {"column": c.name, "type": c.type, "nullable": "yes" if c.nullable else "no"}
        for c in schema.columns
    ]
    show_table(session.output, output, ("column", "type", "nullable"), rows)
    return exits.OK


async def _status(
    session: Session,
    output: options.JsonOutput = "pretty",
) -> int:
    """Show what the server is, what it holds and who is connected."""
    options.one_of("-o", output, options.JSON_FORMATS)
    async with session.client() as client:
        started = time.monotonic()
        status = await client.status()
        answered = (time.monotonic() - started) * 1000
    if output != "pretty":
        from streamkit.sanitise import json_text

        session.output.line(json_text(_status_object(session.server, status, answered)))
        return exits.OK
    from streamkit.cli.output.records import seconds_text, size_text

    lines = [
        ("server", session.server + (" (draining)" if status.draining else "")),
        ("version", status.version),
        ("answered in", f"{answered:.1f} ms"),
        ("up for", seconds_text(status.uptime.total_seconds())),
        ("store", f"{status.store}, {size_text(status.store_bytes)}"),
        ("durability", status.durability),
        ("epoch", status.epoch),
        ("connections", str(status.connections)),
        ("databases", ", ".join(status.databases) or "none besides the store"),
    ]
    for stream in status.streams:
        count = stream.newest - stream.oldest + 1 if stream.newest else 0
        watched = f"{stream.subscribers} subscribers"
        lines.append(
            (stream.name, f"{count:,} records, {stream.oldest}..{stream.newest}, {watched}")
        )
    lines += [(f"worker {worker.number}", _worker_text(worker)) for worker in status.workers]
    lines += [("FAULT", fault) for fault in status.faults]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        session.output.line(f"{name:<{width}}  {value}")
    return exits.OK


def _worker_text(worker: WorkerStatus) -> str:
    from streamkit.cli.output.records import seconds_text

    if not worker.pid:
        return f"being started, restarts {worker.restarts}"
    uptime = seconds_text(worker.uptime.total_seconds())
    text = f"process {worker.pid}, up for {uptime}, {worker.connections} connections"
    text += f", {worker.calls} calls, {worker.restarts} restarts"
    return f"{text}, went on from the file {worker.jumps} times" if worker.jumps else text


def _status_object(server: str, status: ServerStatus, answered: float) -> dict[str, Any]:
    return {
        "server": server,
        "version": status.version,
        "answered_ms": round(answered, 2),
        "uptime_seconds": status.uptime.total_seconds(),
        "store": status.store,
        "store_bytes": status.store_bytes,
        "durability": status.durability,
        "epoch": status.epoch,
        "connections": status.connections,
        "databases": list(status.databases),
        "draining": status.draining,
        "faults": list(status.faults),
        "workers": [
            {
                "number": worker.number,
                "pid": worker.pid,
                "uptime_seconds": worker.uptime.total_seconds(),
                "connections": worker.connections,
                "calls": worker.calls,
                "restarts": worker.restarts,
                "jumps": worker.jumps,
            }
            for worker in status.workers
        ],
        "streams": [
            {
                "name": stream.name,
                "oldest": stream.oldest,
                "newest": stream.newest,
                "subscribers": stream.subscribers,
            }
            for stream in status.streams
        ],
    }
