"""The command `streamkit`: parse, call, exit code.

    app         the typer application; `commands/` has one module for each group of commands
    session     what every command is given, and how it ends: errors and signals -> exit code
    parsing     durations, sizes, levels, times, parameters: text -> value, pure
    sanitise    the one way for foreign text to a terminal
    terminal    the one decision on colour and animation
    output      standard output: sanitised on a terminal, flushed by record in a pipe
    records     a message -> a JSON object or a plain line, pure
    rendering/  the only importer of rich

Nothing is imported before it is needed, so that `streamkit --help` is quick.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (default: sys.argv) and exit with its code."""
    from streamkit.cli.app import run

    raise SystemExit(run(arguments))
