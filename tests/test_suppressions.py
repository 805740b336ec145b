"""Whatever silences a checker or swallows an error says why, beside it."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SILENCED = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|pyright:|ruff:)")
REASON = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|pyright:|ruff:)[^#]*#\s*\S")
BROAD = {"Exception", "BaseException", "CancelledError"}
"""What is caught by these names is more than what somebody thought of."""


PLAIN = {"TimeoutError", "FileNotFoundError", "ProcessLookupError"}
"""That a wait ends by its time, or that what is to go has gone, says itself."""


def sources() -> list[Path]:
    found = [ROOT / "cli.py"]
    for place in ("streamkit", "tests", "bench", "scripts", "examples"):
        found += sorted((ROOT / place).rglob("*.py"))
    generated = ROOT / "streamkit" / "generated"
    return [path for path in found if generated not in path.parents]


def comments(path: Path) -> dict[int, str]:
    with path.open("rb") as file:
        return {
            token.start[0]: token.string
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        }


def names(node: ast.expr | None) -> set[str]:
    if node is None:
        return {"BaseException"}
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return {ast.unparse(part).rpartition(".")[2] for part in parts}


def raises(handler: ast.ExceptHandler) -> bool:
    """Whether what was caught, or what is made of it, goes on to the caller on every way out."""
    return _raises(handler.body)


def _raises(body: list[ast.stmt]) -> bool:
    last = body[-1]
    if isinstance(last, ast.If) and last.orelse:
        return _raises(last.body) and _raises(last.orelse)
    if isinstance(last, ast.Try):
        return _raises(last.finalbody or last.body)
    return isinstance(last, ast.Raise)


def swallowing(path: Path) -> Iterator[tuple[int, int]]:
    """Where errors end that nobody named: the first line and the first one of what follows."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and names(node.type) & BROAD:
            if not raises(node):
                yield node.lineno, node.body[0].lineno
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                call: Any = item.context_expr
                named = isinstance(call, ast.Call) and ast.unparse(call.func).endswith("suppress")
                if named and not PLAIN.issuperset(map(ast.unparse, call.args)):
                    yield node.lineno, node.body[0].lineno


def test_what_silences_a_checker_says_why() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{line} {comment}"
        for path in sources()
        for line, comment in comments(path).items()
        if SILENCED.match(comment) and not REASON.match(comment)
    ]
    assert not bare, "\n".join(bare)


def test_what_swallows_errors_says_why() -> None:
    bare = []
    for path in sources():
        if ROOT / "streamkit" not in path.parents:
            continue  # a test or a benchmark that swallows an error is the reader's own
        said = comments(path)
        lines = path.read_text().splitlines()
        for first, body in swallowing(path):
            beside = range(first, body + 1)
            above = lines[first - 2].lstrip().startswith("#")
            if not above and not any(line in said for line in beside):
                bare.append(f"{path.relative_to(ROOT)}:{first} {lines[first - 1].strip()}")
    assert not bare, "\n".join(bare)


def test_the_walk_sees_what_it_looks_for(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "try:\n    pass\nexcept Exception:\n    pass\n"
        "try:\n    pass\nexcept BaseException:\n    raise\n"
        "with suppress(OSError):\n    pass\n"
        "x = 1  # noqa: F401\n"
    )
    assert sorted(swallowing(path)) == [(3, 4), (9, 10)]
    assert SILENCED.match(comments(path)[11])
    assert not REASON.match(comments(path)[11])
    assert REASON.match("# noqa: F401  # for its effect")
