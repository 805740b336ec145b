"""demo."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from streamkit.cli import exits
from streamkit.cli.later import asyncio
from streamkit.cli.options import command
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.cli.demo_world import World
    from streamkit.cli.rendering.demo import DemoView
    from streamkit.client import AsyncClient

__all__ = ["register"]

QUERY = "SELECT * FROM categories"
QUERY_EVERY = 1.0


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "demo", local=True)(_demo)


async def _demo(
    session: Session,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of panes.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server up after the view, until Ctrl-C.")
    ] = False,
    web: Annotated[
        bool, typer.Option("--web", help="The page of a browser instead of panes.")
    ] = False,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="N", min=0, help="End by itself after N seconds.")
    ] = 0,
) -> int:
    """See all four streams live: a server, producers on it and a view, gone when you leave.

    Nothing but this machine is used, and nothing is left behind.
    """
    from streamkit.cli.demo_world import open_world

    async with open_world(web=web) as world:
        stop = _on_interrupt()
        if web:
            session.output.note(f"open {world.page}")
            session.output.note("Ctrl-C ends it")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds or None):
                    await stop.wait()
            return exits.OK
        if keep:
            session.output.note(f"export STREAMKIT_SERVER={world.address}")
        await _show(session, world, plain, stop, seconds)
        _tell(session, world, keep)
        if keep:
            await _on_interrupt().wait()
    return exits.OK


def _on_interrupt() -> asyncio.Event:
    """Return an event that the next Ctrl-C sets: here it is the way out, not a failure."""
    event = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels us instead
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, event.set)
    return event


async def _show(
    session: Session, world: World, plain: bool, stop: asyncio.Event, seconds: float
) -> None:
    from streamkit.client import AsyncClient

    view = _view(session, world, plain)
    try:
        async with AsyncClient(world.address, on_event=lambda event: None) as client:
            watchers = [
                asyncio.create_task(watch(client, world, view))
                for watch in (_logs, _updates, _jobs, _queries)
            ]
            end = asyncio.create_task(stop.wait())
            if seconds:
                asyncio.get_running_loop().call_later(seconds, stop.set)
            try:
                done, _ = await asyncio.wait([*watchers, end], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (*watchers, end):
                    task.cancel()
                await asyncio.gather(*watchers, end, return_exceptions=True)
            for task in done:
                task.result()  # a watcher ends only by an error
    finally:
        view.close()


def _view(session: Session, world: World, plain: bool) -> DemoView:
    from streamkit.cli.rendering.demo import LinesDemo, PanesDemo

    lines = plain or not session.output.terminal.animation
    view: DemoView
    if lines:
        view = LinesDemo(session.output)
    else:
        view = PanesDemo(
            session.output, f"Ctrl-C ends; try the commands in another terminal: {world.address}"
        )
    for pane, text in _commands(world).items():
        view.title(pane, text)
    return view


def _commands(world: World) -> dict[str, str]:
    from streamkit.cli.demo_world import DATABASE, JOBS

    ids = " ".join(world.jobs.get(kind, f"{kind}-1") for kind in JOBS)
    return {
        "logs": world.command("logs -f"),
        "updates": world.command('subscribe ">"'),
        "jobs": world.command(f"watch-job {ids}"),
        "query": world.command(f'query -d {DATABASE} "{QUERY}"'),
    }


async def _logs(client: AsyncClient, world: World, view: DemoView) -> None:
    async with client.logs(follow=True, lines=20) as entries:
        async for entry in entries:
            view.log(entry)


async def _updates(client: AsyncClient, world: World, view: DemoView) -> None:
    async with client.subscribe(">", start="all") as updates:
        async for update in updates:
            view.update(update)


async def _jobs(client: AsyncClient, world: World, view: DemoView) -> None:
    """Watch every job that appears; each watch ends with its job."""
    changed = asyncio.Event()
    world.on_jobs = changed.set
    watched: dict[str, asyncio.Task[None]] = {}
    try:
        while True:
            changed.clear()
            view.title("jobs", _commands(world)["jobs"])
            for job_id in world.jobs.values():
                if job_id not in watched:
                    watched[job_id] = asyncio.create_task(_watch(client, job_id, view))
            await changed.wait()
    finally:
        for task in watched.values():
            task.cancel()
        await asyncio.gather(*watched.values(), return_exceptions=True)


async def _watch(client: AsyncClient, job_id: str, view: DemoView) -> None:
    async with client.watch_job(job_id, wait=5) as states:
        async for job in states:
            view.job(job)


async def _queries(client: AsyncClient, world: World, view: DemoView) -> None:
    from streamkit.cli.demo_world import DATABASE

    while True:
        async with client.query(QUERY, database=DATABASE) as query:
            rows = [row async for row in query.texts()]
            view.table(query.columns, rows)
        await asyncio.sleep(QUERY_EVERY)


def _tell(session: Session, world: World, keep: bool) -> None:
    note = session.output.note
    if keep:
        note(f"The server stays up on {world.address} until Ctrl-C. In another terminal:")
        for text in _to_type_it():
            note(f"  {text}")
        note(f"  export STREAMKIT_SERVER={world.address}")
        for text in _commands(world).values():
            note(f"  {text}")
        return
    note("That was a server with real producers; it is gone and left nothing behind.")
    note("Try it with your own:")
    for text in _to_type_it():
        note(f"  {text}")
    note("  streamkit serve")
    for text in (
        "run -- make test",
        "logs -f",
        'subscribe ">"',
        'query "SELECT level, count(*) FROM logs GROUP BY level"',
    ):
        note(f"  streamkit {text}")


def _to_type_it() -> list[str]:
    """The line after which a shell knows `streamkit`; none where it does."""
    activate = os.path.join(os.path.dirname(sys.executable), "activate")
    if shutil.which("streamkit") or not os.path.exists(activate):
        return []
    relative = os.path.relpath(activate)
    path = activate if relative.startswith(os.pardir) else relative
    return [path if os.name == "nt" else f". {path}"]
