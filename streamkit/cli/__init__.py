"""The command `streamkit`: parse, call, exit code.

    app         the typer application; `commands/` has one module for each group of commands
    options     the options that several commands have, and how a command is made
    session     what every command is given, and how it ends: errors and signals -> exit code
    exits       exit codes, and the way from an error to one line and a code
    input/      text -> value, bytes -> lines -> levels, files that are rotated, a command that runs
    reporting   what the server is told of a running command; `spool` keeps it while it is away
    probe       `health` in a fraction of the time, for containers
    sinks       where the rows of a query go; printing: records, one after the other
    output/     what a terminal can show, standard output, a message -> an object or a line
    rendering/  the only importer of rich

Nothing is imported before it is needed, so that `streamkit --help` is quick.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (default: sys.argv) and exit with its code."""
    _stand_in_for_closed_streams()
    # While we are still being loaded Ctrl-C ends us as it ends any program: without a word. The
    # command has said so already, before it imported this; who calls `main` has not.
    loading = signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_DFL)
    if loading:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["health"]:
        from streamkit.cli.probe import probe

        told = probe(words[1:])
        if told is not None:
            raise SystemExit(told)
    from streamkit.cli.app import run
    from streamkit.cli.output.streams import discard_stdout

    code = run(arguments)
    if loading:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        discard_stdout()
    raise SystemExit(code)


def _stand_in_for_closed_streams() -> None:
    """Open what a cron wrapper or a service has closed, or its number would be the next file's."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(opened, True)
            setattr(sys, name, os.fdopen(opened, "w" if number else "r", closefd=False))
