"""The public names: exact, typed the same way as at run time, and free until they are used."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import streamkit


def test_every_public_name_is_there() -> None:
    for name in streamkit.__all__:
        assert getattr(streamkit, name) is not None
    assert set(streamkit.__all__) <= set(dir(streamkit))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        streamkit.nothing  # noqa: B018  # the access is the point


def test_type_checkers_see_the_same_names() -> None:
    """What TYPE_CHECKING imports, what __getattr__ finds and __all__ must not drift apart."""
    tree = ast.parse(Path(streamkit.__file__).read_text())
    seen = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert {name for _, name in seen} | {"__version__"} == set(streamkit.__all__)
    assert {(home, name) for name, home in streamkit._HOME_OF.items()} == seen


def test_importing_streamkit_imports_nothing_heavy() -> None:
    probe = (
        "import sys, time; t = time.process_time(); import streamkit; "
        "print(time.process_time() - t, *(m for m in sys.modules "
        "if m.split('.')[0] in ('grpclib', 'betterproto', 'h2', 'rich', 'asyncio', 'sqlite3')))"
    )
    out = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    ).stdout.split()
    print(f"import streamkit: {float(out[0]) * 1000:.1f} ms")
    assert out[1:] == []
    assert float(out[0]) < 0.15


def test_a_client_needs_no_journal() -> None:
    probe = (
        "import sys, streamkit.client, streamkit.client.blocking.client; "
        "print([m for m in sys.modules if m.startswith('streamkit.journal') or m == 'sqlite3'])"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("package", ["client", "transport", "codec", "journal", "handlers"])
def test_what_a_package_lists_is_what_it_has(package: str) -> None:
    module = importlib.import_module(f"streamkit.{package}")
    assert sorted(set(module.__all__)) == sorted(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name), name


def test_every_module_of_the_client_lists_its_names() -> None:
    package = importlib.import_module("streamkit.client")
    for info in pkgutil.walk_packages(package.__path__, "streamkit.client."):
        if info.ispkg:
            continue
        module = importlib.import_module(info.name)
        for name in module.__all__:
            assert hasattr(module, name), f"{info.name}.{name}"


HANDED_OUT = {
    *("ClientCall", "Context", "JobHandle", "LogWriter", "Publisher", "Query", "RecordStream"),
    "Rules",
}
"""Made by streamkit and not by its users, as are all that are called Sync...: how is its affair."""

NOT_FOR_USERS = {
    *("Rules.by_tokens", "Rules.grants_of"),
    *("Carrier.submit", "Channel.new_call", "Channel.request", "JobHandle.on_reply"),
    *("Server.health", "Server.mounted", "Server.sessions"),
    *("GrpcServer", "Carrier"),
}
"""What stubs and streamkit itself call, and parts that are there for benchmarks and tests."""

TWO_OF_A_NAME = {"Pruned"}
"""A message of the journal's own word: a client gets what the server got."""


def _signatures() -> Iterator[tuple[str, Any]]:
    for name in streamkit.__all__:
        thing = getattr(streamkit, name)
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing) and not thing.__module__.startswith("streamkit.generated"):
            made_here = name in HANDED_OUT or name.startswith("Sync")
            for member, value in inspect.getmembers(thing):
                function = value.fget if isinstance(value, property) else value
                public = not member.startswith("_") or (member == "__init__" and not made_here)
                ours = str(getattr(function, "__module__", "")).startswith("streamkit")
                if public and ours and inspect.isfunction(function):
                    yield f"{name}.{member}", function


def _classes(hint: Any) -> Iterator[type]:
    for inner in typing.get_args(hint):
        for part in inner if isinstance(inner, list) else [inner]:
            yield from _classes(part)
    kind = typing.get_origin(hint) or hint
    if inspect.isclass(kind) and kind.__module__.startswith("streamkit"):
        yield kind


@pytest.mark.parametrize(
    ("where", "function"), [pytest.param(*one, id=one[0]) for one in _signatures()]
)
def test_what_a_public_signature_mentions_is_public(where: str, function: Any) -> None:
    if {where, where.partition(".")[0]} & NOT_FOR_USERS:
        return
    known = {name: getattr(streamkit, name) for name in streamkit.__all__}
    names = {**known, **function.__globals__}
    names |= {
        name: types.SimpleNamespace(DataFrame=Any, Table=Any, RecordBatch=Any, Schema=Any)
        for name in ("pandas", "polars", "pyarrow")
    }
    for hint in typing.get_type_hints(function, names).values():
        for kind in _classes(hint):
            if kind.__name__ in TWO_OF_A_NAME:
                continue
            assert known.get(kind.__name__) is kind, f"{where} mentions {kind}: give it to __init__"
