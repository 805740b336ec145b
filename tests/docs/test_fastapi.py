"""The applications of docs/fastapi.md, called as a web server calls them."""

from __future__ import annotations

import json
import runpy
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from streamkit import AsyncClient
from streamkit.testing import serve
from tests.docs.pages import DOCS, blocks

PAGE = {block.file: block.text for block in blocks(DOCS / "fastapi.md") if block.file}


def application(name: str, folder: Path) -> Any:
    pytest.importorskip("fastapi")
    path = folder / name
    path.write_text(PAGE[name])
    return runpy.run_path(str(path))["app"]


async def call(app: Any, method: str, path: str, query: str = "") -> tuple[int, Any]:
    """One request, by ASGI itself."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": [],
        "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": "",
        "app": app, "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(part.get("body", b"") for part in sent[1:]))


async def test_the_application_publishes_and_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application("webapp.py", tmp_path)
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve())
        monkeypatch.setenv("STREAMKIT_SERVER", address)
        await stack.enter_async_context(app.router.lifespan_context(app))
        assert await call(app, "POST", "/orders/eu", "item=tea") == (200, {"sequence": 1})
        expected = [{"topic": "orders.eu", "message": '{"item":"tea"}'}]
        assert await call(app, "GET", "/orders") == (200, expected)


async def test_a_server_that_is_away_is_a_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = application("webapp.py", tmp_path)
    monkeypatch.setenv("STREAMKIT_SERVER", f"unix:{tmp_path}/nobody")
    async with app.router.lifespan_context(app):
        status, said = await call(app, "POST", "/orders/eu", "item=tea")
    assert status == 503 and "cannot connect" in said["detail"]


async def test_both_in_one_process(tmp_path: Path) -> None:
    app = application("together.py", tmp_path)
    async with app.router.lifespan_context(app), AsyncClient(app.state.address) as other:
        assert await app.state.streamkit.publish("orders.eu", "1") == 1
        assert (await other.status()).version
