"""A rich console that follows our decision on colour and animation, not its own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, RenderableType
from rich.text import Text

from streamkit.cli.output.streams import Output
from streamkit.cli.output.terminal import Terminal
from streamkit.sanitise import sanitise

__all__ = [
    "LEVEL_STYLES",
    "STATUS_STYLES",
    "console_for",
    "name_style",
    "plain",
    "print_table",
    "stop_politely",
]

LEVEL_STYLES = {"debug": "dim", "info": "green", "warn": "yellow", "error": "bold red"}
STATUS_STYLES = {
    "pending": "dim",
    "running": "cyan",
    "stalled": "yellow",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "yellow",
    "lost": "red",
}
_NAME_STYLES = ("cyan", "magenta", "blue", "bright_cyan", "bright_magenta", "bright_blue")


def console_for(stream: TextIO, terminal: Terminal) -> Console:
    """Return a console that writes to `stream` exactly as `terminal` allows."""
    return Console(
        file=stream,
        force_terminal=terminal.is_tty or terminal.colour,
        force_interactive=terminal.animation,
        # Not `no_color`, which still lets bold and dim through.
        color_system=None if not terminal.colour else "auto" if terminal.is_tty else "standard",
        width=None if terminal.is_tty else 80,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
    )


def plain(text: str, style: str = "") -> Text:
    """Foreign text as one line that is only text."""
    return Text(sanitise(text), style=style, end="")


def stop_politely(console: Console) -> Callable[[], None]:
    """While something is drawn, Ctrl-Z gives the cursor back before it stops us.

    Must be called on the running loop. Returns what ends that.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        console.show_cursor(True)
        loop.remove_signal_handler(signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here again: somebody has typed fg.
        loop.add_signal_handler(signal.SIGTSTP, stop)
        console.show_cursor(False)

    try:
        loop.add_signal_handler(signal.SIGTSTP, stop)
    except (NotImplementedError, RuntimeError, ValueError, AttributeError):
        return lambda: None

    def end() -> None:
        loop.remove_signal_handler(signal.SIGTSTP)

    return end


def name_style(name: str) -> str:
    """A colour that belongs to the name: the same in every run."""
    return _NAME_STYLES[hashlib.blake2s(name.encode("utf-8", "replace")).digest()[0] % 6]


def print_table(output: Output, table: RenderableType) -> None:
    """Print a table: as wide as the terminal, in a pipe as wide as it needs."""
    console = console_for(output.stream, output.terminal)
    if output.terminal.is_tty:
        console.print(table)
        return
    console.width = 1_000_000
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        output.text(line.rstrip() + "\n")
    output.flush()
