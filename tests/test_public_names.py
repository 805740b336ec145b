"""The public names: exact, typed the same way as at run time, and free until they are used."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

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
        if isinstance(node, ast.ImportFrom)
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
