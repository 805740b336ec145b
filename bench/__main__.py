"""`python -m bench [NAME ...]`: run the benchmarks, print one table, store the figures.

A benchmark is a module of this package with a function `run`, which returns rows of name, unit,
ours, peer, peer_figure and ratio (how many times better ours is), and perhaps a floor for the
ratio. The rows of each are stored as results/NAME.json. `floors` is a selection of the others'
rows, and is run by its name only.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import bench

RESULTS = Path(__file__).parent / "results"


def benchmarks() -> list[str]:
    """The names of all benchmarks."""
    names = sorted(module.name for module in pkgutil.iter_modules(bench.__path__))
    return [
        name
        for name in names
        if name != "__main__" and hasattr(importlib.import_module(f"bench.{name}"), "run")
    ]


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    floor = row.get("floor") or 0
    verdict = "" if not floor else "  ok" if row["ratio"] >= floor else f"  MISSED {floor:.3g}x"
    if floor and not verdict.strip().startswith("MISSED"):
        verdict = f"  ok (floor {floor:.3g}x)"
    return (
        f"{row['name']:48.48} {row['ours']:>14,.2f} {row['unit']:24.24} {row['ratio']:>9,.2f}x "
        f"{row['peer']:28.28} {row['peer_figure']:>14,.2f}{verdict}"
    )


def main() -> None:
    wanted = sys.argv[1:] or [name for name in benchmarks() if name != "floors"]
    unknown = sorted(set(wanted) - set(benchmarks()))
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are {', '.join(benchmarks())}")
    RESULTS.mkdir(exist_ok=True)
    table: list[str] = []
    missed = 0
    for name in wanted:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows = importlib.import_module(f"bench.{name}").run()
        (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
        table += [f"-- {name}", *map(line, rows)]
        missed += sum(row["ratio"] < (row.get("floor") or 0) for row in rows)
    print(
        f"{'':48} {'ours':>14} {'unit':24} {'ratio':>10} {'next to':28} {'its figure':>14}",
        *table,
        sep="\n",
    )
    if wanted == ["floors"]:
        print(f"{missed} floors missed" if missed else "all floors hold")


if __name__ == "__main__":
    main()
