"""This tree next to another one, in turns: what became slower.

    python -m bench.versus TREE [--rounds N] [PROBE ...]

TREE is a checkout of another commit with its environment in .venv (`git worktree add TREE COMMIT`,
then `make .venv/.ready` there). Each figure is the best of the rounds of each, and each round
has both, one after the other. The rows are kept as results/versus.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.__main__ import RESULTS, line
from bench.probes import PROBES

HERE = Path(__file__).resolve().parent.parent
ROUNDS = 5
FLOOR = 0.97


def figures(tree: Path, probe: str) -> dict[str, Any]:
    """What a probe finds in a tree."""
    done = subprocess.run(
        [tree / ".venv" / "bin" / "python", "-P", HERE / "bench" / "probes.py", probe],
        capture_output=True,
        text=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        timeout=600,
    )
    if done.returncode:
        raise SystemExit(f"{probe} in {tree} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def commit_of(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def compared(other: Path, probe: str, rounds: int) -> list[dict[str, Any]]:
    """The rows of one probe."""
    runs = [(figures(other, probe), figures(HERE, probe)) for _ in range(rounds)]
    rows = []
    for name, (_, unit, less) in runs[0][0].items():
        best = min if less else max  # what else the machine does only takes
        theirs, ours = (best(run[side][name][0] for run in runs) for side in (0, 1))
        rows.append(
            {
                "name": name,
                "unit": unit,
                "ours": round(ours, 3),
                "peer": commit_of(other),
                "peer_figure": round(theirs, 3),
                "ratio": round(theirs / ours if less else ours / theirs, 3),
                "floor": FLOOR,
            }
        )
    return rows


def main() -> None:
    words = sys.argv[1:]
    rounds = ROUNDS
    if "--rounds" in words:
        place = words.index("--rounds")
        rounds = int(words[place + 1])
        del words[place : place + 2]
    if not words:
        raise SystemExit(__doc__)
    other, *wanted = words
    path = RESULTS / "versus.json"
    kept = json.loads(path.read_text()) if path.exists() else []
    for probe in wanted or PROBES:
        rows = compared(Path(other).resolve(), probe, rounds)
        names = {row["name"] for row in rows}
        kept = [row for row in kept if row["name"] not in names] + rows
        path.write_text(json.dumps(kept, indent=1) + "\n")
        for row in rows:
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
