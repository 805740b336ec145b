"""The layer table, as a test: imports run downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "streamkit"

LAYERS = {
    "errors": 0,
    "config": 0,
    "terms": 0,
    "formats": 0,
    "framing": 0,
    "patterns": 0,
    "listening": 0,
    "supervision": 0,
    "process": 0,
    "sanitise": 0,
    "rights": 0,
    "places": 0,
    "room": 0,
    "offers": 0,
    "histogram": 0,
    "tracing": 0,
    "methods": 0,
    "background": 0,
    "intercom": 0,
    "generated": 0,
    "codec": 1,
    "transport": 2,
    "journal": 2,
    "database": 2,
    "access": 3,
    "handlers": 3,
    "client": 3,
    "interceptors": 3,
    "doors": 3,
    "scaffold": 3,
    "server": 4,
    "workers": 4,
    "testing": 4,
    "cli": 4,
    "dbapi": 4,
    "asgi": 4,
    "pytest_plugin": 4,
}
"""Part of streamkit -> its layer. A part imports lower layers and itself."""

ALLOWED_SIDEWAYS = {
    ("config", "errors"),
    ("formats", "sanitise"),
    ("background", "errors"),
    ("tracing", "errors"),
    ("listening", "errors"),
    ("intercom", "errors"),
    ("room", "errors"),
    ("methods", "errors"),
    ("places", "errors"),
    ("methods", "generated"),
    ("methods", "rights"),
    ("asgi", "server"),
    ("testing", "server"),
    ("pytest_plugin", "testing"),
    ("cli", "server"),
    ("cli", "workers"),
    ("workers", "server"),
}
"""Settings raise errors; the command line starts the server; nothing imports the command line."""

ONE_IMPORTER = {
    "typer": "streamkit/cli/",
    "rich": "streamkit/cli/",
    "pyarrow": None,
    "h2": "streamkit/transport/",
    "hyperframe": "streamkit/transport/",
    "hpack": "streamkit/transport/",
    "h11": "streamkit/doors/",
    "prometheus_client": "streamkit/interceptors/",
    "sqlite3": None,
}


def modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if "generated" not in p.parts]


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every absolute dotted name that a module imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    part = part_of(path)
    if part in ("__init__", "__main__"):
        return
    assert part in LAYERS, f"{part} has no place in the layer table"
    for name in imports(path):
        head, _, rest = name.partition(".")
        if head != "streamkit":
            continue
        other = rest.split(".")[0]
        if other not in LAYERS:
            # `from streamkit import x`: the public names sit on top of every layer.
            assert LAYERS[part] == 4, f"{path} imports {name}, which sits above it"
            continue
        downwards = LAYERS[other] < LAYERS[part] or other == part
        assert downwards or (part, other) in ALLOWED_SIDEWAYS, f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_foreign_library_has_its_place(path: Path) -> None:
    shown = str(path.relative_to(PACKAGE.parent))
    for name in imports(path):
        home = ONE_IMPORTER.get(name.partition(".")[0])
        assert home is None or shown.startswith(home), f"{shown} imports {name}"


def test_a_module_fits_in_the_head() -> None:
    """Those of tests and benchmarks as well."""
    root = PACKAGE.parent
    folders = (PACKAGE, root / "tests", root / "bench", root / "scripts", root / "examples")
    sizes = {
        str(path.relative_to(root)): len(path.read_text().splitlines())
        for folder in folders
        for path in folder.rglob("*.py")
        if not {"generated", "node_modules"} & set(path.parts)
    }
    assert len(sizes) > 400
    assert {path: size for path, size in sizes.items() if size > 500} == {}


def test_no_module_leads_back_to_itself() -> None:
    """Imports make no circle, those for types alone included."""
    paths = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts): p for p in modules()}
    leads = {
        name: {n for n in _closest(imports(path), paths) if n != name}
        for name, path in paths.items()
    }
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            circle = " -> ".join((*way[way.index(name) :], name))
            raise AssertionError(f"a circle of imports: {circle}")
        if name not in done:
            for other in leads[name]:
                follow(other, (*way, name))
            done.add(name)

    for name in leads:
        follow(name, ())


def _closest(names: set[str], paths: dict[str, Path]) -> set[str]:
    """The modules that these dotted names are in. A package's face is only what it imports."""
    found = set()
    for name in names:
        if name in paths:
            found.add(name)
        elif name.rpartition(".")[0] in paths:
            found.add(name.rpartition(".")[0])
    return found
