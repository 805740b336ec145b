"""The one place that decides whether to use colour and whether to animate.

They are separate questions. FORCE_COLOR asks for colour in a log file and must never switch on
bars that redraw themselves there; a CI system may offer a terminal that nobody looks at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

__all__ = ["Terminal", "look_at"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Terminal:
    """What one output stream can show."""

    is_tty: bool = False
    colour: bool = False
    animation: bool = False
    width: int = 80


def look_at(
    stream: IO[Any], environ: Mapping[str, str] | None = None, *, colour: str = "auto"
) -> Terminal:
    """Decide for `stream`; `colour` is auto, always or never and wins over the environment."""
    env = os.environ if environ is None else environ
    is_tty = _is_tty(stream)
    dumb = env.get("TERM", "").lower() in ("dumb", "unknown")
    if colour != "auto":
        with_colour = colour == "always"
    elif env.get("NO_COLOR"):
        with_colour = False
    elif env.get("FORCE_COLOR", "0") not in ("", "0", "false"):
        with_colour = True
    else:
        with_colour = is_tty and not dumb
    in_ci = env.get("CI", "").lower() not in ("", "0", "false")
    asked = env.get("TTY_INTERACTIVE", "")
    animation = is_tty and not dumb and (not in_ci or asked == "1") and asked != "0"
    width = shutil.get_terminal_size((80, 24)).columns if is_tty else 80
    return Terminal(is_tty=is_tty, colour=with_colour, animation=animation, width=width)


def _is_tty(stream: IO[Any]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
