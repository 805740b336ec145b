"""Every command, file and program of the pages is run, and the pages are all there."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from scripts import reference
from tests.docs.pages import DOCS, ROOT, blocks, play

README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
ELSEWHERE = {
    "operating.md": "tests/docs/test_operating.py",
    "calls.md": "tests/test_docs_calls.py",
    "tutorial.md": "tests/cli/test_docs.py",
    "proxies.md": "tests/docs/test_proxies.py",
    "fastapi.md": "tests/docs/test_fastapi.py",
    "growing.md": "tests/docs/test_growing.py",
}
"""Pages that a test of their own works through."""

LONG = ("README.md", "recipes.md", "production.md")
"""Many commands, so many processes: in `make soak`. That each command and flag of them exists is
tested always."""

RUN = ("sh", "console", "python")
BUILD = """
printf 'all:\\n\\ttrue\\n' > Makefile
cat > build.sh <<'END'
for part in 1 2 3 4; do echo "compiling part $part/4"; done
echo "ERROR: part 4 does not link"; exit 1
END
python -c "
import sqlite3; c = sqlite3.connect('shop.db')
c.execute('CREATE TABLE orders (id INTEGER, item TEXT)')
c.execute('INSERT INTO orders VALUES (1001, \\"tea\\")'); c.commit()"
python -c "import duckdb; duckdb.connect('events.duckdb').close()"
"""


def runnable() -> list[Any]:
    found: list[Any] = []
    for page in PAGES:
        ours = [b for b in blocks(page) if b.kind in RUN and not b.skipped]
        if ours and page.name not in ELSEWHERE:
            marks = [pytest.mark.soak] if page.name in LONG else []
            found.append(pytest.param(page, marks=marks, id=page.name))
    return found


@pytest.mark.parametrize("page", runnable())
def test_a_page_works_from_top_to_bottom(page: Path, tmp_path: Path) -> None:
    needs = "\n".join(block.text for block in blocks(page) if block.kind == "sh")
    for program in ("openssl", "curl"):
        if re.search(rf"^{program}\b", needs, re.MULTILINE) and not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    said = play(page, tmp_path, prepare=BUILD if page.name in ("README.md", "recipes.md") else "")
    print(said)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_toml_is_toml(page: Path) -> None:
    for block in blocks(page):
        if block.kind == "toml":
            assert tomllib.loads(block.text)


def test_what_is_not_run_is_little_and_says_why() -> None:
    skipped = {
        (page.name, block.skipped) for page in PAGES for block in blocks(page) if block.skipped
    }
    assert len(skipped) <= 10, skipped
    for name, why in skipped:
        for path in re.findall(r"tests/[\w/]+(?:\.py)?", why):
            assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), (name, path)


def test_pages_with_a_test_of_their_own_have_one() -> None:
    for name, path in ELSEWHERE.items():
        assert (DOCS / name).exists() and name in (ROOT / path).read_text(), name


def test_the_reference_is_what_the_program_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check"]) == 0, capsys.readouterr().out


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_every_page_is_in_the_sites_index_and_on_the_first_page() -> None:
    listed = set(re.findall(r'"([\w/.-]+\.md)"', (ROOT / "zensical.toml").read_text()))
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert listed == there
    first = (DOCS / "index.md").read_text()
    assert [name for name in there - {"index.md"} if f"({name})" not in first] == []


def test_each_promise_has_its_test() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "promises.md").read_text())
    assert len(named) > 15
    for path, name in named:
        assert re.search(rf"def {name}\(", (ROOT / path).read_text()), (path, name)
