"""The log of a serving process: standard error, one line a record, as text or as JSON."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

from streamkit.cli.later import json
from streamkit.sanitise import sanitise_lines

__all__ = ["LEVELS", "log_to_stderr"]

LEVELS = ("debug", "info", "warning", "error")


def log_to_stderr(form: str, level: str = "info") -> None:
    """Let everything that is logged from `level` on go to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Lines())
    ours = logging.getLogger("streamkit")
    ours.handlers = [handler]
    ours.setLevel(level.upper())


class _Lines(logging.Formatter):
    """As people read it. What others have said in it cannot move the cursor."""

    def format(self, record: logging.LogRecord) -> str:
        text = "\n".join(sanitise_lines(super().format(record)))
        return f"{record.levelname.lower()}: {text}"


class _Json(logging.Formatter):
    """As machines read it: an object a line, a traceback inside of it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
