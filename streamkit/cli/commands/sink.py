"""sink."""

from __future__ import annotations

import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError
from streamkit.cli.input.stores import WITH_PASSWORD, from_environment
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.client import AsyncClient
    from streamkit.client.sink.flow import Open
    from streamkit.client.sink.tables import Stage

__all__ = ["register"]

_STREAMS = ("updates", "logs", "jobs")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "sink")(_sink)


async def _sink(
    session: Session,
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="postgresql://..., or '$VARIABLE' whose value that is; a password stands there, "
            "in PGPASSWORD or ~/.pgpass.",
        ),
    ],
    streams: Annotated[
        str, typer.Option("--streams", metavar="LIST", help="Of updates,logs,jobs.")
    ] = "updates,logs,jobs",
    topics: Annotated[
        list[str] | None,
        typer.Option("--topic", metavar="TOPIC", help="Updates of these topics only."),
    ] = None,
    services: Annotated[
        list[str] | None,
        typer.Option("--service", metavar="SERVICE", help="Log lines of these services only."),
    ] = None,
    schema: Annotated[
        str, typer.Option("--schema", metavar="NAME", help="Where the tables are, or are made.")
    ] = "streamkit",
    new_life: Annotated[
        bool,
        typer.Option("--new-life", help="Go on with a journal that is another one than before."),
    ] = False,
) -> int:
    """Bring updates, log lines and job events into tables of PostgreSQL, each once, until Ctrl-C.

    It goes on where it stopped, however it ended.
    """
    wanted = [name.strip() for name in streams.split(",") if name.strip()]
    if not wanted or set(wanted) - set(_STREAMS):
        raise UsageError(f"--streams: {streams!r} is not a list of {', '.join(_STREAMS)}")
    from streamkit.client.sink.flow import flow
    from streamkit.client.sink.tables import Tables
    from streamkit.journal.address import without_password
    from streamkit.process import first, signals

    where = _checked(url)
    tables = Tables(where, without_password(where), schema, session.note)
    asked = asyncio.Event()
    async with session.client() as client, contextlib.AsyncExitStack() as resources:
        resources.push_async_callback(tables.close)
        await tables.open()
        flows: list[Coroutine[Any, Any, None]] = []
        for stage, open_stream in _stages(client, wanted, topics or [">"], services or []):
            flows.append(flow(tables, stage, open_stream, new_life=new_life))
        session.note(f"{', '.join(wanted)} of {session.server} go to {without_password(where)}")
        with signals(asked.set):
            await first(asked.wait(), *flows)
    return exits.OK if asked.is_set() else exits.FAILED


def _stages(
    client: AsyncClient, wanted: list[str], topics: list[str], services: list[str]
) -> list[tuple[Stage, Open]]:
    from streamkit.client.sink.tables import Stage

    def updates(start: Any, on_loss: Any) -> Any:
        return client.subscribe(*topics, start=start, on_loss=on_loss)

    def logs(start: Any, on_loss: Any) -> Any:
        return client.logs(*(services or [""]), follow=True, start=start, on_loss=on_loss)

    def jobs(start: Any, on_loss: Any) -> Any:
        return client.job_events(start=start, on_loss=on_loss)

    every: dict[str, tuple[Stage, Open]] = {
        "updates": (Stage("updates", "topics " + " ".join(sorted(topics))), updates),
        "logs": (Stage("logs", "services " + " ".join(sorted(services) or ["*"])), logs),
        "jobs": (Stage("job_events", "jobs *"), jobs),
    }
    return [every[name] for name in _STREAMS if name in wanted]


def _checked(url: str) -> str:
    if url.startswith("$"):
        url = from_environment("sink", url)
    elif WITH_PASSWORD.search(url):
        raise UsageError(
            "the password can be read in the list of processes: give the URL as '$VARIABLE' whose"
            " value that is, or the password in PGPASSWORD or ~/.pgpass"
        )
    if not url.startswith(("postgresql://", "postgres://")):
        raise UsageError("a sink is postgresql://USER@HOST/DATABASE")
    return url
