"""`make mutate`: small mistakes put into the code one at a time, and whether a test notices.

    python scripts/mutate.py map [PYTEST ARGS ...]   # which test runs which line, from 3.12 on
    python scripts/mutate.py run --count 300 [--seed N] [--only PART] [--seconds S]
    python scripts/mutate.py show                    # what was not noticed

Cosmic Ray makes the mistakes. A place is drawn at random from all places of the six parts, then one
of the mistakes that can be made there. The tests that run the line are run, the quickest first, in
a copy of the project. What was found is kept in `.mutate/`: a long run can go on in pieces.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".mutate"
MAP = PLACE / "map.json"
FOUND = PLACE / "found.jsonl"
PARTS = ("journal", "transport", "codec", "client", "database", "handlers")
SPARED = ("client/blocking/client.py", "client/blocking/handles.py", "client/blocking/results.py")
"""Written by scripts/blocking.py: a mistake there is a difference, which a test looks for."""
LONGEST = 15.0
"""Seconds of tests for one mistake, as they were measured without one."""


class Mistake(NamedTuple):
    """One that can be made: the n-th place of an operator in a file."""

    path: str
    operator: str
    occurrence: int
    line: int
    function: tuple[int, int] | None

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line} {self.operator.removeprefix('core/')} {self.occurrence}"


# ---- as a plug-in of pytest: which test runs which line ----


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


def make_map(arguments: list[str]) -> int:
    """Run tests and add what they run to the map."""
    PLACE.mkdir(exist_ok=True)
    fresh = PLACE / f"map-{os.getpid()}.json"
    environment = {
        **os.environ,
        "STREAMKIT_MUTATE_MAP": str(fresh),
    }
    command = [sys.executable, "-m", "pytest", "-p", "scripts.mutate", "-q", *arguments]
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    known = json.loads(MAP.read_text()) if MAP.exists() else {"tests": [], "lines": {}}
    added = json.loads(fresh.read_text())
    fresh.unlink()
    first = len(known["tests"])
    known["tests"] += added["tests"]
    for path, lines in added["lines"].items():
        found = known["lines"].setdefault(path, {})
        for line, tests in lines.items():
            found.setdefault(line, []).extend(first + number for number in tests)
    MAP.write_text(json.dumps(known))
    return code


# ---- the mistakes ----


def no_rules(tree: ast.Module) -> Iterator[tuple[int, int]]:
    """The lines of what no test has to hold: what is for type checkers only, the constants of a
    module, which are mostly sizes and times, and how a class is made or a result kept."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield node.lineno, node.end_lineno or node.lineno
        for decorator in getattr(node, "decorator_list", ()):
            if "dataclass" in ast.unparse(decorator) or "cache" in ast.unparse(decorator):
                yield decorator.lineno, decorator.end_lineno or decorator.lineno
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            yield node.lineno, node.end_lineno or node.lineno


def hints(tree: ast.AST) -> Iterator[ast.expr]:
    """Annotations, which are not executed."""
    for node in ast.walk(tree):
        found = [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("cast", "TypeVar"):
            found += node.args[:1]
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0])[:1].isupper():
            # An alias of types; a constant of numbers has no such operator.
            found += [
                value for value in [node.value] if isinstance(value, ast.BinOp | ast.Subscript)
            ]
        yield from (one for one in found if isinstance(one, ast.expr))


def mistakes_of(path: Path) -> Iterator[list[Mistake]]:
    """The mistakes of one file, those that can be made at the same place together."""
    from cosmic_ray.ast import get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    text = path.read_text()
    tree = ast.parse(text)
    lines = [*no_rules(tree)]
    functions = [
        (node.lineno, node.end_lineno or 0)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    types = [
        ((one.lineno, one.col_offset), (one.end_lineno or 0, one.end_col_offset or 0))
        for one in hints(tree)
    ]
    parsed = get_ast(text)
    nodes = [*_nodes(parsed)]
    places: dict[tuple[Any, Any], list[Mistake]] = {}
    for name in operator_names():
        if name.startswith("core/Variable"):
            continue  # needs to be told which variable
        operator = get_operator(name)()
        count = 0
        for node in nodes:
            for start, end in operator.mutation_positions(node):
                count += 1
                if any(first <= start[0] <= last for first, last in lines):
                    continue
                if any(first <= start and end <= last for first, last in types):
                    continue
                inside = [span for span in functions if span[0] < start[0] <= span[1]]
                file = str(path.relative_to(ROOT))
                made = Mistake(file, name, count - 1, start[0], max(inside, default=None))
                places.setdefault((start, end), []).append(made)
    yield from places.values()


def _nodes(node: Any) -> Iterator[Any]:
    """In the order in which Cosmic Ray counts them."""
    yield node
    for child in getattr(node, "children", ()):
        yield from _nodes(child)


def drawn(seed: int, only: str) -> Iterator[Mistake]:
    """Mistakes in random order, each at another place."""
    places = []
    for part in PARTS:
        for path in sorted((ROOT / "streamkit" / part).rglob("*.py")):
            if only in str(path) and not str(path).endswith(SPARED):
                places += [*mistakes_of(path)]
    chance = random.Random(seed)
    chance.shuffle(places)
    yield from (chance.choice(place) for place in places)


# ---- whether they are noticed ----


class Copy:
    """A copy of the project in which mistakes are made."""

    def __init__(self, number: int) -> None:
        self.root = PLACE / f"copy-{number}"
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("streamkit", "tests", "schema", "scripts", "docs", "examples", "deploy"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pyc*"))
        for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "cli.py"):
            shutil.copy(ROOT / name, self.root / name)

    def notices(self, mistake: Mistake, tests: list[str], seconds: float) -> tuple[str, str]:
        """What came of it (noticed, not noticed, no mistake), and the difference."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        path = self.root / mistake.path
        before = path.read_text()
        after = mutate_code(before, get_operator(mistake.operator)(), mistake.occurrence)
        try:
            same = after is None or ast.dump(ast.parse(after)) == ast.dump(ast.parse(before))
        except SyntaxError:  # `*` of a signature taken for a product, and the like
            same = True
        if after is None or same:
            return "no mistake", ""
        was, is_ = before.splitlines(), after.splitlines()
        changed = [n for n, (old, new) in enumerate(zip(was, is_, strict=False)) if old != new]
        told = "\n".join(f"- {was[n].strip()}\n+ {is_[n].strip()}" for n in changed[:2])
        try:
            path.write_text(after)
            return ("not noticed" if self._passes(tests, seconds) else "noticed"), told
        finally:
            path.write_text(before)

    def _passes(self, tests: list[str], seconds: float) -> bool:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [*command, "--timeout=60", *tests],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False  # a loop without end is noticed
        finally:
            with suppress(ProcessLookupError):  # all of it has ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def nearest(mistake: Mistake, known: dict[str, Any]) -> list[str]:
    """The tests that run the line, the quickest first, and of equal ones the nearest."""
    lines = known["lines"].get(mistake.path, {})
    numbers = set(lines.get(str(mistake.line), ()))
    if not numbers:
        # The first line of what runs may be another one; a module's own lines run at its import.
        first, last = mistake.function or (0, sys.maxsize)
        numbers = {n for line, tests in lines.items() if first < int(line) <= last for n in tests}
    part = mistake.path.split("/")[1:]
    tests = [known["tests"][number] for number in numbers]

    def order(test: tuple[str, float]) -> tuple[int, float]:
        place = zip(part, test[0].split("/")[1:], strict=False)
        return -len([*takewhile(lambda pair: pair[0] == pair[1], place)]), test[1]

    chosen: list[str] = []
    spent = 0.0
    for name, seconds in sorted(tests, key=order):
        if spent + seconds <= LONGEST and len(chosen) < 100:
            chosen.append(name)
            spent += seconds
    return chosen


def run(count: int, seed: int, only: str, seconds: float) -> int:
    """Make mistakes until there are so many results, or the time is over."""
    known = json.loads(MAP.read_text())
    FOUND.touch()
    results = [json.loads(line) for line in FOUND.read_text().splitlines()]
    done = {result["name"] for result in results}
    counted = sum(result["outcome"] != "no mistake" for result in results)
    copy = Copy(os.getpid())
    end = time.monotonic() + seconds
    try:
        for mistake in drawn(seed, only):
            if counted >= count or time.monotonic() > end:
                break
            if mistake.name in done:
                continue
            tests = nearest(mistake, known)
            outcome, told = "not run", ""
            if tests:
                outcome, told = copy.notices(mistake, tests, 3 * LONGEST)
            counted += outcome != "no mistake"
            result = {"name": mistake.name, "outcome": outcome, "told": told, "tests": len(tests)}
            with FOUND.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(outcome, mistake.name, told.replace("\n", "  "), sep="  ", flush=True)
    finally:
        shutil.rmtree(copy.root)
    return 0


def show() -> int:
    """Print what was not noticed and the share of what was."""
    results = [json.loads(line) for line in FOUND.read_text().splitlines()]
    counts: dict[str, int] = {}
    for result in results:
        counts[result["outcome"]] = counts.get(result["outcome"], 0) + 1
        if result["outcome"] in ("not noticed", "not run"):
            print(f"{result['outcome']}: {result['name']} ({result['tests']} tests)")
            print(result["told"])
    made = sum(count for outcome, count in counts.items() if outcome != "no mistake")
    print(counts, f"noticed {100 * counts.get('noticed', 0) / max(made, 1):.1f} % of {made}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["map", "run", "show"])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=1e9)
    options, rest = parser.parse_known_args()
    if options.what == "map":
        return make_map(rest)
    if options.what == "show":
        return show()
    return run(options.count, options.seed, options.only, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
