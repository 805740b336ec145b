"""What calls and messages one at a time have to reach, in one run of some minutes.

    python -m bench floors

The rows of `calls`, `ingest` and `wire` that have a floor and are about the cost of one, each next
to the peer of its floor alone: ratios of one run. What the machine does meanwhile only takes, so
that the best of three rounds of each counts.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from bench import calls, ingest, wire
from bench.wire import Row

__all__ = ["run"]

ROUNDS = 3


def run() -> list[Row]:
    """Measure and return the rows that have a floor."""
    with tempfile.TemporaryDirectory() as folder:
        calls.prepare(Path(folder))
        wire.generate(Path(folder))
        os.environ["BENCH_SCHEMA"] = folder
        rows: list[Row] = []
        for task, name, floors in calls.TASKS:
            if floors or task == "one":
                names = floors or {"grpc.aio": 0.0}
                peers = {stack: calls.STACKS[stack] for stack in names}
                rows += calls.compared(task, name, floors, peers, ROUNDS)
                print(f"  {name} measured", file=sys.stderr, flush=True)
        rows += ingest.floors()
        print("  events one a request measured", file=sys.stderr, flush=True)
        rows += wire.memory(peer=False)
    return [row for row in rows if row["floor"]]
