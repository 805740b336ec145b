"""A plug-in of pytest for scripts/mutate.py: which test runs which line. From Python 3.12 on."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("journal", "transport", "codec", "client", "database", "handlers")


class Recorder:
    """Notes the lines of the six parts that each test runs, at the cost of once a line and test."""

    def __init__(self) -> None:
        self.lines: dict[str, dict[int, list[int]]] = {}
        self.tests: list[tuple[str, float]] = []
        self._seen: set[tuple[str, int]] = set()
        self._watched = tuple(f"{ROOT}/streamkit/{part}/" for part in PARTS)
        self._watch = sys.monitoring  # type: ignore[attr-defined,unused-ignore]  # from 3.12 on
        self._tool = self._watch.COVERAGE_ID
        self._watch.use_tool_id(self._tool, "mutate")
        self._watch.register_callback(self._tool, self._watch.events.LINE, self._line)
        self._watch.set_events(self._tool, self._watch.events.LINE)

    def _line(self, code: Any, line: int) -> Any:
        if code.co_filename.startswith(self._watched):
            self._seen.add((code.co_filename, line))
        return self._watch.DISABLE

    def begin(self) -> None:
        self._seen = set()
        self._watch.restart_events()

    def end(self, test: str, seconds: float) -> None:
        number = len(self.tests)
        self.tests.append((test, seconds))
        for path, line in self._seen:
            found = self.lines.setdefault(os.path.relpath(path, ROOT), {})
            found.setdefault(line, []).append(number)


def pytest_configure(config: Any) -> None:
    if "STREAMKIT_MUTATE_MAP" in os.environ:
        config.stash["mutate"] = Recorder()


def pytest_runtest_protocol(item: Any) -> None:
    if recorder := item.config.stash.get("mutate", None):
        recorder.begin()
        item.stash["mutate"] = time.monotonic()


def pytest_runtest_teardown(item: Any, nextitem: Any) -> None:
    if recorder := item.config.stash.get("mutate", None):
        recorder.end(item.nodeid, time.monotonic() - item.stash["mutate"])


def pytest_sessionfinish(session: Any) -> None:
    if recorder := session.config.stash.get("mutate", None):
        Path(os.environ["STREAMKIT_MUTATE_MAP"]).write_text(
            json.dumps({"tests": recorder.tests, "lines": recorder.lines})
        )
