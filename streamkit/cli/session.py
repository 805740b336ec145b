"""What every command is given while it runs, and its one way to end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamkit.cli import exits
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.later import asyncio
from streamkit.cli.output.streams import Output, discard_stdout
from streamkit.errors import ConnectError, StreamkitError
from streamkit.terms import DEFAULT_ADDRESS

if TYPE_CHECKING:
    from ssl import SSLContext

    from streamkit.client import AsyncClient, ClientEvent
    from streamkit.generated.streamservice import Gap

__all__ = ["DEFAULT_SERVER", "Session", "run"]

DEFAULT_SERVER = DEFAULT_ADDRESS
TERMINATED = 128 + signal.SIGTERM
TELL_AFTER = 1.0
"""Seconds without an answer after which a person is told that we are connecting."""


@dataclass(kw_only=True)
class Session:
    """One run of one command."""

    server: str = ""
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    context: str = ""
    token_file: str = ""
    insecure: bool = False
    connect_timeout: str = "5s"
    color: str = "auto"
    no_color: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        self.server = self.server or os.environ.get("STREAMKIT_SERVER", "") or DEFAULT_SERVER
        if self.color not in ("auto", "always", "never"):
            raise UsageError(f"--color: {self.color!r} is not auto, always or never")
        if self.key and not self.cert:
            raise UsageError("--key belongs to --cert: it is the private key of a TLS certificate")
        self.output = Output(colour="never" if self.no_color else self.color)
        self.loss_told = False
        """Whether records were reported as lost or dropped to the person."""
        self.reader_gone = False
        self.terminated = TERMINATED
        """Exit code after SIGTERM; of a server, which is ended by nothing else, it is that of an
        end in good order, however far its start has come."""
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
        tls = self.tls_context()
        if tls is not None:
            options["ssl"] = tls
        return options

    def tls_context(self) -> SSLContext | None:
        """What the options of TLS ask for; None: no TLS."""
        if not (self.tls or self.ca or self.cert):
            return None
        from streamkit.transport.tls import client_tls

        return client_tls(self.ca or None, self.cert or None, self.key or None)

    @contextlib.asynccontextmanager
    async def client(self, *, check: bool = True) -> AsyncIterator[AsyncClient]:
        """A client of the server; with `check`, ConnectError at once where there is none.

        Once the server has answered, streams survive its absence by reconnecting.
        """
        from streamkit.client import AsyncClient

        async with AsyncClient(self.server, **self.options()) as client:
            if check:
                await self._reach(client)
            yield client

    async def _reach(self, client: AsyncClient) -> None:
        """Ask for a sign of life; a person who waits for it is told what for."""
        waiting = asyncio.get_running_loop().call_later(
            TELL_AFTER, self.note, f"connecting to {self.server} ..."
        )
        if not self.output.notes.is_tty:
            waiting.cancel()
        try:
            await client.ping()
        finally:
            waiting.cancel()

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


def run(given: dict[str, Any], body: Callable[[Session], Coroutine[Any, Any, int | None]]) -> int:
    """Run a command to its end and return its exit code; every way out of a command is here."""
    session: Session | None = None
    try:
        if "server" in given:
            from streamkit.cli.contexts import with_context

            given = with_context(given)
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
        return TERMINATED if session is None else session.terminated
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
    except Exception as error:  # the last stop: a user sees one line, not a traceback
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
    from streamkit.sanitise import sanitise

    sys.stderr.write(f"streamkit: {sanitise(text)}\n")
    return code
