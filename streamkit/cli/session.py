"""What every command has: the options of the connection, the output, and one way to end.

`command` registers a coroutine function as a typer command. The function takes a `Session` first;
its other parameters are its own options. The options of the connection are added here, so that
they are accepted by every command, anywhere on its line.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from streamkit.cli import exits
from streamkit.cli.output.streams import Output, discard_stdout
from streamkit.errors import ConnectError, StreamkitError
from streamkit.terms import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from streamkit.client import AsyncClient, ClientEvent
    from streamkit.generated.streamservice import Gap

__all__ = ["DEFAULT_SERVER", "Session", "UsageError", "command", "value_of"]

DEFAULT_SERVER = DEFAULT_ADDRESS
TERMINATED = 128 + signal.SIGTERM
PANEL = "Connection"

T = TypeVar("T")
Body = Callable[..., Coroutine[Any, Any, int | None]]

_CONNECTION: dict[str, tuple[object, Any]] = {
    "server": (
        Annotated[
            str,
            typer.Option(
                "-s",
                "--server",
                metavar="HOST:PORT",
                help="Server, also unix:PATH. Else $STREAMKIT_SERVER, else localhost:50051.",
                rich_help_panel=PANEL,
                show_default=False,
            ),
        ],
        "",
    ),
    "tls": (
        Annotated[bool, typer.Option("--tls", help="Connect with TLS.", rich_help_panel=PANEL)],
        False,
    ),
    "ca": (
        Annotated[
            str,
            typer.Option(
                "--ca", metavar="FILE", help="Trust this authority (PEM).", rich_help_panel=PANEL
            ),
        ],
        "",
    ),
    "cert": (
        Annotated[
            str,
            typer.Option(
                "--cert", metavar="FILE", help="Client certificate (PEM).", rich_help_panel=PANEL
            ),
        ],
        "",
    ),
    "key": (
        Annotated[
            str,
            typer.Option("--key", metavar="FILE", help="Its private key.", rich_help_panel=PANEL),
        ],
        "",
    ),
    "token_file": (
        Annotated[
            str,
            typer.Option(
                "--token-file",
                metavar="FILE",
                help="Show the token in this file. Else that of $STREAMKIT_TOKEN, if there is one.",
                rich_help_panel=PANEL,
            ),
        ],
        "",
    ),
    "insecure": (
        Annotated[
            bool,
            typer.Option(
                "--insecure",
                help="Show a token to another machine without TLS, for all on the way to read.",
                rich_help_panel=PANEL,
            ),
        ],
        False,
    ),
    "connect_timeout": (
        Annotated[
            str,
            typer.Option(
                "--connect-timeout",
                metavar="TIME",
                help="Give up a connection attempt after so long.",
                rich_help_panel=PANEL,
            ),
        ],
        "5s",
    ),
}
_GENERAL: dict[str, tuple[object, Any]] = {
    "color": (
        Annotated[
            str,
            typer.Option(
                "--color", metavar="auto|always|never", help="Colour.", rich_help_panel="General"
            ),
        ],
        "auto",
    ),
    "debug": (
        Annotated[
            bool,
            typer.Option("--debug", help="Show tracebacks.", rich_help_panel="General"),
        ],
        False,
    ),
}


class UsageError(Exception):
    """The command line says something that cannot be meant; ends with exit code 2."""


def value_of(name: str, convert: Callable[[str], T], text: str) -> T:
    """Convert the text of an option; a refusal names the option."""
    try:
        return convert(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


@dataclass(kw_only=True)
class Session:
    """One run of one command."""

    server: str = ""
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    token_file: str = ""
    insecure: bool = False
    connect_timeout: str = "5s"
    color: str = "auto"
    debug: bool = False

    def __post_init__(self) -> None:
        self.server = self.server or os.environ.get("STREAMKIT_SERVER", "") or DEFAULT_SERVER
        if self.color not in ("auto", "always", "never"):
            raise UsageError(f"--color: {self.color!r} is not auto, always or never")
        if self.key and not self.cert:
            raise UsageError("--key belongs to --cert: it is the private key of a TLS certificate")
        self.output = Output(colour=self.color)
        self.loss_told = False
        """Whether records were reported as lost or dropped to the person."""
        self.reader_gone = False
        self.on_event: Callable[[ClientEvent], None] | None = None
        """Told of what happens to the connection, instead of the person."""
        self._away_since: float | None = None
        self._reason = ""

    def note(self, text: str) -> None:
        """One line to the person, on standard error."""
        self.output.note(f"streamkit: {text}")

    def watch_reader(self) -> None:
        """End the command quietly when the reader of its output goes, also while nothing comes."""
        task = asyncio.current_task()
        assert task is not None

        def gone() -> None:
            self.reader_gone = True
            task.cancel()

        self.output.on_reader_gone(gone)

    def options(self) -> dict[str, Any]:
        """Return the keywords of a client for this server."""
        from streamkit.cli.input.parsing import duration

        options: dict[str, Any] = {
            "on_event": self._on_event,
            "connect_timeout": value_of("--connect-timeout", duration, self.connect_timeout),
        }
        if self.token_file:
            from streamkit.client import token_file

            options["token"] = token_file(self.token_file)
        options["insecure"] = self.insecure
        if self.tls or self.ca or self.cert:
            from streamkit.transport.tls import client_tls

            options["ssl"] = client_tls(self.ca or None, self.cert or None, self.key or None)
        return options

    @contextlib.asynccontextmanager
    async def client(self, *, check: bool = True) -> AsyncIterator[AsyncClient]:
        """A client of the server; with `check`, ConnectError at once where there is none.

        Once the server has answered, streams survive its absence by reconnecting.
        """
        from streamkit.client import AsyncClient

        async with AsyncClient(self.server, **self.options()) as client:
            if check:
                await client.ping()
            yield client

    def on_loss(self, gap: Gap) -> None:
        """For the streams: a loss is told as an event, and the stream goes on."""
        self.loss_told = self.loss_told or gap.last >= gap.first

    def _on_event(self, event: ClientEvent) -> None:
        if self.on_event is not None:
            self.on_event(event)
            return
        match event.kind:
            case "lost" | "reconnecting":
                # One line when the server goes and one when it is back, however many attempts and
                # streams there are.
                if event.error is not None:
                    self._reason = exits.reason(event.error)
                if event.delay is not None and self._away_since is None:
                    self._away_since = time.monotonic()
                    self.note(
                        f"connection lost ({self._reason}); reconnecting in {event.delay:.1f}s"
                    )
            case "connected" | "resumed":
                if self._away_since is not None:
                    self.note(f"connected again after {time.monotonic() - self._away_since:.1f}s")
                    self._away_since = None
            case "gap" | "dropped":
                self.loss_told = True
                self.note(event.detail)


def command(app: typer.Typer, name: str, *, local: bool = False, **settings: Any) -> Any:
    """Decorate a coroutine function `(session, ...) -> exit code | None` as the command `name`.

    `local` commands are servers: they make no connection of their own, do not have its options,
    and run on the fastest event loop that is installed.
    """

    def register(body: Body) -> Body:
        signature = inspect.signature(body, eval_str=True)
        own = list(signature.parameters.values())[1:]
        common = _GENERAL if local else _CONNECTION | _GENERAL
        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            for key, (kind, default) in common.items()
        ]

        @functools.wraps(body)
        def invoke(**values: Any) -> int:
            given = {key: values.pop(key) for key in common}
            return run(given, lambda session: body(session, **values))

        invoke.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
            + added,
            return_annotation=int,
        )
        invoke.__annotations__ = {}
        app.command(name, **settings)(invoke)
        return body

    return register


def run(given: dict[str, Any], body: Callable[[Session], Coroutine[Any, Any, int | None]]) -> int:
    """Run a command to its end and return its exit code; every way out of a command is here."""
    session: Session | None = None
    try:
        session = Session(**given)
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            # From here on Ctrl-C cancels what runs, so that it is closed.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with asyncio.Runner(loop_factory=_loop_factory(local="server" not in given)) as runner:
            return runner.run(_until_ended(session, body(session))) or exits.OK
    except BrokenPipeError:
        discard_stdout()  # the reader has what it wanted: `| head` is no failure
        return exits.OK
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except _TerminatedError:
        return TERMINATED
    except UsageError as error:
        return _say(str(error), exits.USAGE)
    except (StreamkitError, OSError) as error:  # TimeoutError is an OSError
        if given["debug"]:
            traceback.print_exc()
        server = session.server if session is not None and "server" in given else ""
        text = "the time allowed is over" if type(error) is TimeoutError else ""
        # Without a server to connect to, as in `serve`, nothing failed to be reached.
        code = exits.exit_code(error) if server or not isinstance(error, ConnectError) else 1
        return _say(text or exits.one_line(error, server=server), code)
    except Exception as error:
        if given["debug"]:
            traceback.print_exc()
        text = f"internal error: {type(error).__name__}: {error}; --debug shows the traceback"
        return _say(text, exits.FAILED)


def _loop_factory(*, local: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not local:
        return None
    from streamkit.transport import loop_factory

    return loop_factory()


class _TerminatedError(Exception):
    """SIGTERM came."""


async def _until_ended(session: Session, work: Coroutine[Any, Any, int | None]) -> int | None:
    """Await `work`; SIGTERM cancels it, so that everything it opened is closed."""
    task = asyncio.current_task()
    assert task is not None
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    # Not on Windows, and not outside the main thread.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await work
    except asyncio.CancelledError:
        if terminated:
            raise _TerminatedError from None
        if session.reader_gone:
            raise BrokenPipeError from None
        raise


def _say(text: str, code: int) -> int:
    from streamkit.cli.output.sanitise import sanitise

    sys.stderr.write(f"streamkit: {sanitise(text)}\n")
    return code
