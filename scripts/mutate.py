"""`make mutate`: small mistakes put into the code one at a time, and whether a test notices.

    python scripts/mutate.py map [PYTEST ARGS ...]   # which test runs which line, from 3.12 on
    python scripts/mutate.py run --count 300 [--seed N] [--only PART] [--seconds S]
    python scripts/mutate.py again [TESTS ...]       # what was not noticed, with tests added since
    python scripts/mutate.py show                    # what was not noticed, and why

Cosmic Ray makes the mistakes. A place is drawn at random from all places of the six parts, then one
of the mistakes that can be made there. The tests that run the line are run, the quickest first, in
a copy of the project. A test that fails is run without the mistake, too: only if it passes then was
the mistake noticed. What was found is kept in `.mutate/`: a long run can go on in pieces.

Made are only mistakes that a person makes (`LIKELY`), and only where they change what the program
does (`no_rules`, `hints`). What no test can notice has its reason in `scripts/mutants.toml`.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.lines import PARTS, ROOT

PLACE = ROOT / ".mutate"
MAP = PLACE / "map.json"
FOUND = PLACE / "found.jsonl"
SPARED = ("client/blocking/client.py", "client/blocking/handles.py", "client/blocking/results.py")
"""Written by scripts/blocking.py: a mistake there is a difference, which a test looks for."""
REASONS = ROOT / "scripts/mutants.toml"
"""Of mistakes that change nothing that a test could see: why."""
LONGEST = 15.0
"""Seconds of tests for one mistake, as they were measured without one."""
FLAKES = 4
"""Runs for one mistake, each without what failed before and fails without the mistake, too."""
LIKELY = {
    "ReplaceBinaryOperator": {
        "Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "FloorDiv_Mod", "Mod_FloorDiv",
        "LShift_RShift", "RShift_LShift", "BitOr_BitAnd", "BitAnd_BitOr",
    },
    "ReplaceComparisonOperator": {
        "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is",
        "Lt_LtE", "Lt_Gt", "Lt_GtE", "LtE_Lt", "LtE_Gt", "LtE_GtE",
        "Gt_GtE", "Gt_Lt", "Gt_LtE", "GtE_Gt", "GtE_Lt", "GtE_LtE",
    },
    "ReplaceUnaryOperator": {"Delete_Not", "Delete_USub"},
}  # fmt: skip
"""What a person types in place of something else; all other kinds of operators are used whole."""
FOR_TOOLS = ("dataclass", "cache", "overload", "override", "final", "runtime_checkable")
"""Decorators that say how a class is made, a result kept or a type checked."""
SHARED = (
    "pytest",
    "asyncio",
    "sqlite3",
    "ssl",
    "grpc",
    "google.protobuf.json_format",
    "betterproto",
)
"""What nearly all tests import and no mistake can change: imported once, before the fork."""


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


# ---- which test runs which line ----


def make_map(arguments: list[str]) -> int:
    """Run tests and add what they run to the map."""
    PLACE.mkdir(exist_ok=True)
    fresh = PLACE / f"map-{os.getpid()}.json"
    environment = {
        **os.environ,
        "STREAMKIT_MUTATE_MAP": str(fresh),
    }
    command = [sys.executable, "-m", "pytest", "-p", "scripts.lines", "-q", *arguments]
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
    module or a class, which are mostly sizes and times (each bound has a test of its own), how a
    class is made or a result kept, what is written to a log, and how an object shows itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield _span(node)
        for decorator in getattr(node, "decorator_list", ()):
            if any(name in ast.unparse(decorator) for name in FOR_TOOLS):
                yield _span(decorator)
        if isinstance(node, ast.FunctionDef) and node.name == "__repr__":
            yield _span(node)
        if isinstance(node, ast.Call) and "log." in ast.unparse(node.func):
            yield _span(node)
        if isinstance(node, ast.Module | ast.ClassDef):
            for inside in node.body:
                if isinstance(inside, ast.Assign | ast.AnnAssign):
                    yield _span(inside)


def _span(node: ast.stmt | ast.expr) -> tuple[int, int]:
    return node.lineno, node.end_lineno or node.lineno


def hints(tree: ast.AST) -> Iterator[ast.expr]:
    """Annotations, which are not executed, and numbers that stand as defaults of parameters."""
    for node in ast.walk(tree):
        found = [getattr(node, name, None) for name in ("annotation", "returns")]
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("cast", "TypeVar"):
            found += node.args[:1]
        if isinstance(node, ast.arguments):
            defaults = [*node.defaults, *node.kw_defaults]
            found += [one for one in defaults if isinstance(one, ast.Constant | ast.UnaryOp)]
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "zip":
            found += [word.value for word in node.keywords]  # `strict`, a check of ourselves
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
        kind, _, which = name.removeprefix("core/").partition("_")
        if kind.startswith("Variable") or which not in LIKELY.get(kind, {which}):
            continue  # a variable's name has to be told
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


def changed(mistake: Mistake) -> str | None:
    """The file with the mistake; None if it says the same as before."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    before = (ROOT / mistake.path).read_text()
    # `*` of a signature is taken for a product, and a dotted exception is not understood.
    with suppress(SyntaxError, AttributeError):
        after = mutate_code(before, get_operator(mistake.operator)(), mistake.occurrence)
        if after is not None:
            made, was = ast.parse(after), ast.parse(before)
            if ast.dump(made) != ast.dump(was) and _slashes(made) == _slashes(was):
                return str(after)
    return None


def _slashes(tree: ast.AST) -> int:
    """Parameters before the `/` of their signature; a `*` that became one is no mistake."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.arguments))
    return sum(len(node.posonlyargs) for node in found)


def drawn(
    seed: int, count: int, unwanted: Callable[[Mistake], bool]
) -> Iterator[tuple[Mistake, str]]:
    """Mistakes in random order, each at another place, and the files with them; those that are
    known, and `unwanted`, only count."""
    found = [path for part in PARTS for path in (ROOT / "streamkit" / part).rglob("*.py")]
    paths = sorted(path for path in found if not str(path).endswith(SPARED))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in [Path(__file__), *paths]))
    kept = PLACE / f"places-{seed}-{digest.hexdigest()[:16]}.json"
    if kept.exists():  # it takes a minute
        order = [Mistake(*one) for one in json.loads(kept.read_text())]
    else:
        places = [place for path in paths for place in mistakes_of(path)]
        chance = random.Random(seed)
        chance.shuffle(places)
        order = [chance.choice(place) for place in places]
        kept.write_text(json.dumps(order))
    for mistake in order:
        if not count:
            return
        if unwanted(mistake):
            count -= 1
        elif (after := changed(mistake)) is not None:
            count -= 1
            yield mistake, after


# ---- whether they are noticed ----


class Copy:
    """A copy of the project in which mistakes are made."""

    def __init__(self, number: int) -> None:
        self.root = PLACE / f"copy-{number}"
        self._edits = 0
        self._first_failure = self.root / "failed"
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("streamkit", "tests", "schema", "scripts", "docs", "examples", "deploy"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pyc*"))
        for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "cli.py"):
            shutil.copy(ROOT / name, self.root / name)

    def notices(self, mistake: Mistake, after: str, tests: list[str]) -> tuple[str, str]:
        """What came of it (noticed, not noticed, not run), and the difference."""
        path = self.root / mistake.path
        before = path.read_text()
        was, is_ = before.splitlines(), after.splitlines()
        numbers = [n for n, (old, new) in enumerate(zip(was, is_, strict=False)) if old != new]
        told = "\n".join(f"- {was[n].strip()}\n+ {is_[n].strip()}" for n in numbers[:2])
        if not tests:
            return "not run", told
        tests = [*tests]
        for _ in range(FLAKES):
            self._write(path, after)
            try:
                if self._passes(tests):
                    return "not noticed", told
            finally:
                self._write(path, before)
            failed = self._failed(tests)
            if self._passes(failed or tests):
                return "noticed", told
            if not failed:
                break  # out of time, as without the mistake
            tests = [test for test in tests if test not in failed]
        return "not clear", told

    def _failed(self, tests: list[str]) -> list[str]:
        """The test that failed in the last run, if one did before the time ran out: of a module
        that could not be imported its first."""
        name = self._first_failure.read_text() if self._first_failure.exists() else ""
        if any(name.startswith(f"{test}::") for test in tests):
            return [name]
        return [test for test in tests if name and f"{test}::".startswith(f"{name}::")][:1]

    def _write(self, path: Path, text: str) -> None:
        """Each time with another time: compiled files are kept by the second."""
        path.write_text(text)
        self._edits += 1
        moment = int(time.time()) - 1_000_000 + self._edits
        os.utime(path, (moment, moment))

    def _passes(self, tests: list[str]) -> bool:
        """Whether all tests pass, in a child of this process, which has imported most."""
        self._first_failure.unlink(missing_ok=True)
        process = os.fork()
        if not process:
            try:
                os._exit(self._run(tests))
            finally:
                os._exit(70)
        end = time.monotonic() + 3 * LONGEST
        try:
            while time.monotonic() < end:
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    process = 0
                    return status == 0
                time.sleep(0.02)
            return False  # a loop without end is noticed, if it has an end without the mistake
        finally:
            with suppress(ProcessLookupError):  # all of it has ended
                os.killpg(process or ended, signal.SIGKILL)
            if process:
                os.waitpid(process, 0)

    def _run(self, tests: list[str]) -> int:
        os.setsid()
        os.chdir(self.root)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.environ["PYTHONPATH"] = sys.path[0] = str(self.root)
        import pytest

        options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=60", "--tb=no"]
        return int(pytest.main([*options, *tests], [FirstFailure(self._first_failure)]))


class FirstFailure:
    """A plug-in of pytest that writes down which test, or which module, failed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._path.write_text(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport


def nearest(mistake: Mistake, known: dict[str, Any]) -> list[str]:
    """The tests that run the line, the quickest first, and of equal ones the nearest."""
    lines = known["lines"].get(mistake.path, {})
    numbers = set(lines.get(str(mistake.line), ()))
    if not numbers:
        # The first line of what runs may be another one; a module's own lines run at its import.
        first, last = mistake.function or (0, sys.maxsize)
        numbers = {n for line, tests in lines.items() if first < int(line) <= last for n in tests}
    if not numbers:
        # It runs when a module is imported, or in processes that tests start.
        numbers = {n for tests in lines.values() for n in tests}
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


def share_imports() -> None:
    for name in SHARED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def found_before() -> dict[str, dict[str, Any]]:
    """The last result of each mistake, by its name."""
    FOUND.touch()
    results = map(json.loads, FOUND.read_text().splitlines())
    return {result["name"]: result for result in results}


def keep(mistake: str, outcome: str, told: str, tests: int) -> None:
    result = {"name": mistake, "outcome": outcome, "told": told, "tests": tests}
    with FOUND.open("a") as file:
        file.write(json.dumps(result) + "\n")
    print(outcome, mistake, told.replace("\n", "  "), sep="  ", flush=True)


def run(count: int, seed: int, only: str, seconds: float, tests: list[str] | None) -> int:
    """Make the first mistakes of the seed, those that were not made before; or, with `tests`, those
    that were not noticed, with these tests or the nearest."""
    known = json.loads(MAP.read_text())
    done = found_before()
    share_imports()
    copy = Copy(os.getpid())
    end = time.monotonic() + seconds

    def unwanted(mistake: Mistake) -> bool:
        before = done.get(mistake.name, {"outcome": ""})["outcome"]
        return before != "" and (tests is None or not before.startswith("not "))

    try:
        for mistake, after in drawn(seed, count, unwanted):
            if only not in mistake.path or (tests is not None and mistake.name not in done):
                continue
            if time.monotonic() > end:
                break
            chosen = tests or nearest(mistake, known)
            keep(mistake.name, *copy.notices(mistake, after, chosen), len(chosen))
    finally:
        shutil.rmtree(copy.root)
    return 0


def show() -> int:
    """Print what was not noticed, the reasons that are known, and the share of what was."""
    reasons = {
        (one["path"], one["was"], one["is"]): one["why"]
        for one in tomllib.loads(REASONS.read_text())["mutant"]
    }
    counts: dict[str, int] = {}
    for result in found_before().values():
        outcome = result["outcome"]
        if outcome.startswith("not "):
            path = result["name"].partition(":")[0]
            lines = [line[2:] for line in result["told"].splitlines()]
            why = reasons.get((path, *lines[:2])) if len(lines) >= 2 else None
            outcome = "explained" if why else outcome
            print(f"{outcome}: {result['name']} ({result['tests']} tests)")
            print(result["told"] + (f"\n  {why}" if why else ""))
        counts[outcome] = counts.get(outcome, 0) + 1
    made = sum(counts.values())
    print(counts, f"noticed {100 * counts.get('noticed', 0) / max(made, 1):.1f} % of {made}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["map", "run", "again", "show"])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=1e9)
    options, rest = parser.parse_known_args()
    if options.what == "map":
        return make_map(rest)
    if options.what == "show":
        return show()
    tests = rest if options.what == "again" else None
    return run(options.count, options.seed, options.only, options.seconds, tests)


if __name__ == "__main__":
    sys.exit(main())
