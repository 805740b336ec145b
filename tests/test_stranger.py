"""A stranger's path: `new`, its tests, `serve`, `call`, the page, an edit under a live reader.

The short form goes it with what is installed here, the long one from the built wheel in an empty
environment.
"""

from __future__ import annotations

import http.cookiejar
import itertools
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import wheels


@contextmanager
def running(
    *command: str | Path, cwd: Path, env: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        list(map(str, command)), cwd=cwd, env=wheels.clean(**env), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def said(process: subprocess.Popen[str], pattern: str) -> str:
    """The next line on standard error in which something is found; what was found."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if match := re.search(pattern, line):
            return match[1]
    raise AssertionError(f"{pattern} was not said: {''.join(lines)}")


def methods_on(page: str) -> set[str]:
    """What a browser that opens the printed address is given to show."""
    jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    browser = urllib.request.build_opener(jar)
    with browser.open(page, timeout=20) as shown:
        assert "<title>" in shown.read().decode()
        address = shown.url
    with browser.open(f"{address}methods.json", timeout=20) as listed:
        services = json.load(listed)
    found = services["services"] if isinstance(services, dict) else services
    return {service["name"] for service in found}


def walk(python: Path, folder: Path, **more: str) -> None:
    streamkit: list[str | Path] = [python, "-m", "streamkit"]
    made = wheels.run(*streamkit, "new", "shop", cwd=folder, env=more)
    assert "cd shop" in made.stderr
    shop = folder / "shop"
    tested = wheels.run(python, "-m", "pytest", "-q", cwd=shop, env=more)
    assert "3 passed" in tested.stdout

    serve = [*streamkit, "serve", "shop.service:app", "--port", "0", "--web", "--reload"]
    with running(*serve, cwd=shop, env=more) as server:
        address = said(server, r"serves on (\S+)")
        page = said(server, r"page: (\S+)")
        more |= {"STREAMKIT_SERVER": address}

        def order(item: str) -> dict[str, str]:
            words = ("orders.Orders/Place", json.dumps({"item": item}))
            done = wheels.run(*streamkit, "call", *words, cwd=folder, env=more)
            answer: dict[str, str] = json.loads(done.stdout)
            return answer

        assert order("tea")["item"] == "tea"
        assert "orders.Orders" in methods_on(page)
        with running(python, "-m", "shop.client", cwd=shop, env=more) as reader:
            assert reader.stdout is not None and reader.stderr is not None
            assert reader.stdout.readline() == "1 tea\n"
            service = shop / "shop" / "service.py"
            text = service.read_text()
            changed = text.replace("place_request.item)", "place_request.item.upper())")
            assert changed != text
            service.write_text(changed)
            said(server, "(service.py) has changed")
            for number in itertools.count():  # what is placed before is the old code's
                placed = order(f"milk {number}")
                if placed["item"] == f"MILK {number}":
                    break
                assert number < 50, "the code that was edited is not served"
            expected = f"{placed['number']} {placed['item']}\n"
            assert any(line == expected for line in reader.stdout), "the reader goes on"
            reader.terminate()
            _, errors = reader.communicate(timeout=20)
        assert errors == "", "an edit is no error at a reader"


@pytest.mark.skipif(sys.platform == "win32", reason="--reload hands a socket over")
def test_the_path_of_a_stranger_who_has_what_is_here(tmp_path: Path) -> None:
    walk(Path(sys.executable), tmp_path, PYTHONPATH=str(wheels.ROOT))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_the_path_of_a_stranger_from_the_wheel(tmp_path: Path) -> None:
    wheel = wheels.build(tmp_path)
    environment = wheels.Environment(tmp_path / "environment")
    environment.install(wheel, "pytest", "pytest-asyncio")
    (tmp_path / "empty").mkdir()
    walk(environment.python, tmp_path / "empty", PATH=environment.path)
