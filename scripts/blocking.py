"""Write what is blocking in streamkit/client/blocking from the asynchronous client.

    python scripts/blocking.py [--check]

`client.py` is AsyncClient method by method, `results.py` is Query and JobHandle: signatures and
docstrings are theirs, and each body hands the call over to the client's own loop. What cannot be
made so is written by hand in `base.py` and `handles.py`, which the classes written here inherit
from. The output is checked in; `--check` compares and exits 1 on a difference.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "streamkit" / "client"
BLOCKING = CLIENT / "blocking"

HANDLES = {
    "Publisher": "SyncPublisher",
    "LogWriter": "SyncLogWriter",
    "JobHandle": "SyncJob",
    "Query": "SyncQuery",
    "Subscription": "SyncStream[SubscribeRequest, Update]",
    "LogStream": "SyncStream[LogRequest, LogEntry]",
    "JobWatch": "SyncStream[JobRequest, JobProgress]",
    "JobEvents": "SyncStream[WatchJobsRequest, JobProgress]",
}
"""What an asynchronous method hands out -> what its twin does."""

WORDS = {
    "an async context manager": "a context manager",
    "`async for": "`for",
}
"""Words of docstrings that are not true of the twin."""

ALIASES = (
    *("SubscribeRequest", "LogRequest", "LogEntry", "JobRequest", "JobProgress", "Update"),
    "WatchJobsRequest",
)

_used: set[str] = set()

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> int:
    outputs = {"client.py": _client(), "results.py": _results()}
    if unused := set(WORDS) - _used:
        raise SystemExit(f"no docstring says any more: {', '.join(sorted(unused))}")
    stale = [name for name, text in outputs.items() if not _same(name, text)]
    for name in stale:
        if "--check" not in sys.argv:
            (BLOCKING / name).write_text(outputs[name])
    print(f"streamkit/client/blocking: {len(stale)} file(s) changed")
    return int("--check" in sys.argv and bool(stale))


def _same(name: str, text: str) -> bool:
    path = BLOCKING / name
    return path.exists() and path.read_text() == text


def _client() -> str:
    link, aio = _tree(CLIENT / "link.py"), _tree(CLIENT / "aio.py")
    made = next(f for f in _functions(_class(link, "Link")) if f.name == "__init__")
    source = (CLIENT / "aio.py").read_text()
    methods = [
        _method(function, twin="client")
        for function in _functions(_class(aio, "AsyncClient"))
        if not function.name.startswith("_")
    ]
    return _tidy(
        '"""Client: AsyncClient for ordinary code. Written by scripts/blocking.py."""',
        [
            *_imports(link, aio),
            "from streamkit.client.aio import AsyncClient",
            "from streamkit.client.blocking.base import Blocking",
            "from streamkit.client.blocking.handles import "
            "SyncLogWriter, SyncPublisher, SyncStream",
            "from streamkit.client.blocking.results import SyncJob, SyncQuery",
            f"from streamkit.generated.streamservice import {', '.join(ALIASES)}",
        ],
        '__all__ = ["Client"]',
        f'''class Client(Blocking):
    """AsyncClient for code without an event loop: plain iterators, plain context managers.

    A private loop runs in a thread, so it works inside a running one (a notebook) too; a forked
    child gets its own at its first call. Callbacks (`on_event`, `on_loss`, `on_drop`) run in that
    thread. Any thread may use a client; one stream, query or job belongs to one at a time.
    """

    def __init__({ast.unparse(made.args)}) -> None:
        super().__init__(lambda: AsyncClient({_passed(made.args)}))
''',
        *_with_sections(source, methods),
    )


def _results() -> str:
    parts, imports = [], []
    for file, name, twin in (
        ("reading/query.py", "Query", "SyncQuery"),
        ("writing/job.py", "JobHandle", "SyncJob"),
    ):
        tree = _tree(CLIENT / file)
        found = _class(tree, name)
        by_hand = _by_hand(f"{twin}Base")
        imports += _imports(tree)
        parts.append(f"class {twin}({twin}Base):\n    {_docstring(found)}\n")
        parts += [_property(*attribute) for attribute in _attributes(found)]
        parts += [
            _method(function, twin="self._twin")
            for function in _functions(found)
            if not function.name.startswith("_")
            and function.name not in by_hand | {"on_reply", "note"}
        ]
    return _tidy(
        '"""What a Client hands out beside streams and writers. Written by scripts/blocking.py."""',
        [
            *imports,
            "from streamkit.client.blocking.handles import SyncJobBase, SyncQueryBase",
            "if TYPE_CHECKING:\n    import pandas\n    import polars\n    import pyarrow",
        ],
        '__all__ = ["SyncJob", "SyncQuery"]',
        *parts,
    )


def _method(function: Function, *, twin: str) -> str:
    """One method of the twin: the same signature and contract, run on the client's own loop."""
    call = f"{twin}.{function.name}({_passed(function.args)})"
    annotation = ast.unparse(function.returns) if function.returns is not None else "None"
    head = f"def {function.name}({ast.unparse(function.args)}) -> "
    contract = _docstring(function)
    ready = "portal, client = self._ready()\n        " if twin == "client" else ""
    portal = "portal" if twin == "client" else "self._portal"
    if any(
        isinstance(mark, ast.Name) and mark.id == "property" for mark in function.decorator_list
    ):
        body = f"return {twin}.{function.name}"
        return f"    @property\n    {head}{annotation}:\n        {contract}\n        {body}\n"
    if isinstance(function, ast.AsyncFunctionDef):
        body = f"{ready}return {portal}.run({call})"
        if annotation == "None":
            body = f"{ready}{portal}.run({call})"
    else:
        handle = HANDLES[annotation]
        body = f"{ready}return {handle.partition('[')[0]}({portal}, lambda: {call})"
        annotation = handle
    return f"    {head}{annotation}:\n        {contract}\n        {body}\n"


def _property(name: str, kind: str, contract: str) -> str:
    return (
        f"    @property\n    def {name}(self) -> {kind}:\n"
        f"        {contract}\n        return self._twin.{name}\n"
    )


def _attributes(found: ast.ClassDef) -> list[tuple[str, str, str]]:
    """The public attributes that `__init__` declares with a type: name, type, docstring."""
    made = next(f for f in _functions(found) if f.name == "__init__")
    attributes = []
    for statement, after in zip(made.body, [*made.body[1:], None], strict=True):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Attribute)
            and not statement.target.attr.startswith("_")
        ):
            told = after.value if isinstance(after, ast.Expr) else None
            text = told.value if isinstance(told, ast.Constant) else statement.target.attr
            kind = ast.unparse(statement.annotation)
            attributes.append((statement.target.attr, kind, f'"""{_reworded(str(text))}"""'))
    return attributes


def _by_hand(name: str) -> set[str]:
    found = _class(_tree(BLOCKING / "handles.py"), name)
    return {function.name for function in _functions(found)}


def _with_sections(source: str, methods: list[str]) -> list[str]:
    """The methods with the headings that stand between their originals."""
    heading, headings = "", {}
    for line in source.splitlines():
        text = line.strip()
        if text.startswith("# ----"):
            heading = text
        elif heading and text.startswith(("def ", "async def ")):
            headings[text.partition("def ")[2].partition("(")[0]] = heading
            heading = ""
    sections = []
    for method in methods:
        name = method.partition("def ")[2].partition("(")[0]
        sections.append(f"    {headings[name]}\n\n{method}" if name in headings else method)
    return sections


def _passed(arguments: ast.arguments) -> str:
    """A signature's arguments as a call passes them on."""
    passed = [argument.arg for argument in arguments.args if argument.arg != "self"]
    if arguments.vararg is not None:
        passed.append(f"*{arguments.vararg.arg}")
    passed += [f"{argument.arg}={argument.arg}" for argument in arguments.kwonlyargs]
    if arguments.kwarg is not None:
        passed.append(f"**{arguments.kwarg.arg}")
    return ", ".join(passed)


def _docstring(node: ast.ClassDef | Function) -> str:
    indent = "    " if isinstance(node, ast.ClassDef) else "        "
    lines = _reworded(ast.get_docstring(node) or node.name).splitlines()
    if len(lines) == 1:
        return f'"""{lines[0]}"""'
    shifted = [f"{indent}{line}" if line else "" for line in lines[1:]]
    return "\n".join([f'"""{lines[0]}', *shifted, f'{indent}"""'])


def _reworded(text: str) -> str:
    for words, others in WORDS.items():
        if words in text:
            _used.add(words)
            text = text.replace(words, others)
    return text


def _imports(*trees: ast.Module) -> list[str]:
    return [
        ast.unparse(node)
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom) and "__future__" not in ast.unparse(node)
    ]


def _tidy(title: str, imports: list[str], *parts: str) -> str:
    text = "\n".join([title, "", "from __future__ import annotations", "", *imports, "", *parts])
    ruff = [sys.executable, "-m", "ruff"]
    name = ["--stdin-filename", str(BLOCKING / "client.py"), "-"]
    for command in (
        [*ruff, "check", "--quiet", "--fix-only", "--select", "F401,F811,I,RUF022", *name],
        [*ruff, "format", "--quiet", *name],
    ):
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, cwd=ROOT, check=True
        )
        text = done.stdout
    return text


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)


def _functions(found: ast.ClassDef) -> list[Function]:
    return [n for n in found.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


if __name__ == "__main__":
    raise SystemExit(main())
