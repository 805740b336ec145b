"""Standard output and standard error of a command.

On a terminal every text is sanitised here, whoever wrote it. In a pipe data leaves as it is, is
never wrapped, and is flushed after every record, so that the next program sees it at once.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import BinaryIO, TextIO

from streamkit.cli.later import asyncio
from streamkit.cli.output.terminal import Terminal, look_at
from streamkit.sanitise import sanitise, sanitise_lines

__all__ = ["Output", "discard_stdout"]


class Output:
    """Where a command writes: `line` and `raw` are data, `note` is for the person.

    Raises BrokenPipeError when the reader of the data is gone; a note that cannot be written is
    nobody's loss and is dropped.
    """

    def __init__(
        self, out: TextIO | None = None, err: TextIO | None = None, *, colour: str = "auto"
    ) -> None:
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err
        self.terminal: Terminal = look_at(self._out, colour=colour)
        self.notes: Terminal = look_at(self._err, colour=colour)
        self.note_sink: Callable[[str], None] | None = None
        """Takes the notes while a live view owns the terminal."""

    def line(self, text: str) -> None:
        """Write one record, which may have several lines, and let the reader have it."""
        self.text(text + "\n")
        self.flush()

    def text(self, text: str) -> None:
        """Write data without flushing: for many records that came at once."""
        if self.terminal.is_tty:
            text = "\n".join(sanitise(line.removesuffix("\r")) for line in text.split("\n"))
        try:
            self._out.write(text)
        except UnicodeEncodeError:  # a terminal or a pipe that is not UTF-8, or a lone surrogate
            encoding = self._out.encoding or "utf-8"
            self._out.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def flush(self) -> None:
        """Hand over what was written."""
        self._out.flush()

    @property
    def stream(self) -> TextIO:
        """The stream itself, for a renderer that does its own sanitising."""
        return self._out

    @property
    def note_stream(self) -> TextIO:
        """Standard error, for a renderer."""
        return self._err

    @property
    def binary(self) -> BinaryIO:
        """The stream for data that is not text."""
        return self._out.buffer

    def note(self, text: str) -> None:
        """Tell the person something, on standard error, sanitised, one line a line."""
        shown = "\n".join(sanitise_lines(text))
        if self.note_sink is not None:
            self.note_sink(shown)
            return
        try:
            self._err.write(shown + "\n")
            self._err.flush()
        except (BrokenPipeError, UnicodeEncodeError, ValueError):
            return

    def on_reader_gone(self, callback: Callable[[], None]) -> None:
        """Call back when the other end of a pipe closes, even while nothing is written.

        Must be called on the running loop. Does nothing where the system cannot tell.
        """
        try:
            number = self._out.fileno()
            if not stat.S_ISFIFO(os.fstat(number).st_mode):
                return
            loop = asyncio.get_running_loop()

            def closed() -> None:
                loop.remove_reader(number)
                callback()

            # The write end of a pipe is never readable; only its error wakes this up.
            loop.add_reader(number, closed)
        except (OSError, ValueError, NotImplementedError):
            return


def discard_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's last flush cannot fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
