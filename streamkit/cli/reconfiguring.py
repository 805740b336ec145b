"""SIGHUP: what the configuration says now is taken over, as far as a running server can."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import typer

from streamkit.cli.input.limits import query_limits
from streamkit.cli.input.parsing import duration
from streamkit.cli.later import asyncio
from streamkit.cli.output.log import log_to_stderr
from streamkit.errors import StreamkitError
from streamkit.supervision import notify

if TYPE_CHECKING:
    from streamkit.server import Server

__all__ = ["reconfigured"]

log = logging.getLogger(__name__)

_RETENTION = frozenset({"retain", "max_bytes", "retention"})
_OF_EACH = frozenset({"log_format", "log_level", "grace"})
"""Options that every process of a server has for itself, ..."""
_QUERIES = frozenset({"query_timeout", "max_queries", "query_memory", "query_rows", "query_bytes"})
"""... and those that it has, too, and which an app may have set by itself: as long as none of them
changes, they stay as they are."""
_TAKEN = _RETENTION | _OF_EACH | _QUERIES
"""Options that a running server can take over."""

Params = dict[str, Any]


def reconfigure(server: Server, params: Params) -> None:
    """Put in force what each process has for itself."""
    log_to_stderr(params["log_format"], params["log_level"])
    server.grace = duration(params["grace"])
    if params.keys() >= _QUERIES and server.databases is not None:
        server.databases.restrict(query_limits(params))


@asynccontextmanager
async def reconfigured(
    context: typer.Context,
    server: Server,
    settings: Callable[[typer.Context], dict[str, Any]],
    tell: Callable[[Params], None] = lambda params: None,
) -> AsyncIterator[None]:
    """Read the configuration again at every SIGHUP, until the block is left.

    What was given on the command line stays. `settings` makes a server's settings of options, and
    puts those of the log in force; `tell` is called with the options of other processes of this
    server when some have changed. Not on a terminal: there the signal says that it is closed.
    """
    again = _Again(context, server, settings, tell)
    loop, taken = asyncio.get_running_loop(), False
    if not os.isatty(0):
        # Not in a thread, and not on every system.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
            loop.add_signal_handler(signal.SIGHUP, again.take_over)
            taken = True
    try:
        yield
    finally:
        if taken:
            loop.remove_signal_handler(signal.SIGHUP)


class _Again:
    def __init__(
        self,
        context: typer.Context,
        server: Server,
        settings: Callable[[typer.Context], dict[str, Any]],
        tell: Callable[[Params], None],
    ) -> None:
        self._tell = tell
        self._context = context
        self._server = server
        self._settings = settings
        self._params = dict(context.params)
        self._each = _OF_EACH

    def take_over(self) -> None:
        """Never raises: what cannot be read or meant is logged, and the former settings stay."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._take_over()
        except StreamkitError as error:
            log.warning("keeping the former settings: %s", error)
        except Exception as error:
            say = getattr(error, "format_message", None)  # a usage error's; the classes move
            if say is None:
                log.exception("fault in reading the settings again")
            else:
                log.warning("keeping the former settings: %s", say())
        finally:
            notify("READY=1", f"STATUS=serves on {self._server.address}")

    def _take_over(self) -> None:
        fresh = self._read()
        given = self._settings(fresh)
        changed = [
            param
            for param in self._context.command.params
            if fresh.params.get(param.name) != self._params.get(param.name)
        ]
        names = {str(param.name) for param in changed}
        if names & _RETENTION and self._server.journal is not None:
            self._server.journal.retain(given["journal_options"].retention)
        for name in names & _TAKEN:
            self._params[name] = fresh.params[name]
        if names & _QUERIES:
            self._each |= _QUERIES
        if names & self._each:
            changes = {name: self._params[name] for name in self._each}
            reconfigure(self._server, changes)
            self._tell(changes)
        log.info("read the settings again: %s", _list(changed, names & _TAKEN) or "nothing new")
        if names - _TAKEN:
            log.warning("only a restart changes %s", _list(changed, names - _TAKEN))

    def _read(self) -> typer.Context:
        """The options as they would be if the server was started now by the same command."""
        before = self._context
        path = before.params.get("config")
        arguments = ["--config", str(path)] if path else []
        fresh: Any = before.command.make_context(
            before.info_name, arguments, parent=before.parent, auto_envvar_prefix="STREAMKIT_SERVE"
        )
        for param in before.command.params:
            name = str(param.name)
            source = before.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                fresh.params[name] = before.params[name]
                fresh.set_parameter_source(name, source)
        return fresh  # type: ignore[no-any-return]  # as the library has it


def _list(params: list[Any], names: Any) -> str:
    return ", ".join(str(max(param.opts, key=len)) for param in params if param.name in names)
