"""What pages of others can make a browser do, one that is logged in here: nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamkit import Server
from tests.web.chromium import Browser, Tab

STATUS = "/streamservice.AdminService/GetStatus"
PUBLISH = "/streamservice.ProducerService/Publish"


@pytest.fixture
def look() -> tuple[int, bool]:
    """One is enough here."""
    return 1400, False


ATTACKS = """(async (base) => {
  const json = {"content-type": "application/json"};
  const tries = {
    post: () => fetch(base + "%(publish)s", {method: "POST", headers: json, body: "{}"}),
    simple: () => fetch(base + "%(publish)s", {method: "POST", mode: "no-cors", body: "{}",
      credentials: "include", headers: {"content-type": "text/plain"}}),
    web: () => fetch(base + "%(publish)s", {method: "POST", body: new Uint8Array(5),
      credentials: "include", headers: {"content-type": "application/grpc-web+proto"}}),
    read: () => fetch(base + "/v1/updates?all=1", {credentials: "include"}),
    methods: () => fetch(base + "/methods.json", {credentials: "include"}),
    rows: () => fetch(base + "/download/query?sql=select+1", {credentials: "include"}),
    opaque: () => fetch(base + "/v1/updates?all=1", {mode: "no-cors", credentials: "include"}),
    code: () => fetch(base + "/?code=x", {mode: "no-cors", credentials: "include"}),
    beacon: async () => { navigator.sendBeacon(base + "%(publish)s", "{}"); return {status: 0}; },
    events: () => new Promise((done) => {
      const source = new EventSource(base + "/v1/updates?all=1", {withCredentials: true});
      source.onmessage = () => done({status: 200});
      source.onerror = () => { source.close(); done({status: 0}); };
    }),
    image: () => new Promise((done) => {
      const image = new Image();
      image.onload = () => done({status: 200});
      image.onerror = () => done({status: 0});
      image.src = base + "/icon.svg";
    }),
    script: () => new Promise((done) => {
      const script = document.createElement("script");
      script.onload = () => done({status: 200});
      script.onerror = () => done({status: 0});
      script.src = base + "/api.js";
      document.head.append(script);
    }),
    form: () => new Promise((done) => {
      const frame = document.createElement("iframe");
      frame.name = "frame";
      document.body.append(frame);
      const form = document.createElement("form");
      Object.assign(form, {method: "post", enctype: "text/plain", target: "frame",
        action: base + "%(publish)s"});
      const field = document.createElement("input");
      Object.assign(field, {name: '{"updates": [{"topic": "owned", "message": "', value: '"}]}'});
      form.append(field);
      document.body.append(form);
      frame.onload = () => done({status: 0});
      form.submit();
    }),
  };
  const told = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try {
      const reply = await attempt();
      told[name] = reply.status;
    } catch { told[name] = 0; }
  }
  return JSON.stringify(told);
})(%(base)s)"""


@pytest.fixture
async def reached() -> list[str]:
    return []


@pytest.fixture
async def server(reached: list[str]) -> AsyncIterator[Server]:
    async def note(context: Any, further: Any) -> None:
        reached.append(context.method)
        await further(context)

    async with Server(journal=":memory:", port=0, web=True, interceptors=[note]) as server:
        yield server


@pytest.fixture
async def elsewhere() -> AsyncIterator[int]:
    """Somebody else's server, with an empty page. Gives its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        text = b"<!doctype html><title>Free prizes</title><body></body>"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % len(text) + text)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def _attacked(tab: Tab, server: Server, reached: list[str], page: str, base: str) -> Any:
    """Leave the page of ours for one of theirs, and let that try everything."""
    await tab.open(page)
    await tab.until(f"location.href.startsWith({page!r}) && document.readyState === 'complete'")
    tab.problems.clear()
    reached.clear()
    words = {"publish": PUBLISH, "base": json.dumps(base)}
    told = json.loads(await tab.run(ATTACKS % words))
    tab.problems.clear()  # what the browser says to the attacker is no fault of ours
    assert reached == []
    return told


@pytest.mark.parametrize("host", ["127.0.0.1", "prizes.rebound.example"])
async def test_pages_of_others_reach_no_handler(
    host: str, tab: Tab, server: Server, reached: list[str], elsewhere: int
) -> None:
    """Of another site, and of the same one on another port: cookies know no ports."""
    page, base = f"http://{host}:{elsewhere}/", f"http://127.0.0.1:{server.port}"
    told = await _attacked(tab, server, reached, page, base)
    assert set(told.values()) <= {0, 403}, told


async def test_a_name_that_was_rebound_to_this_machine_is_not_ours(
    tab: Tab, server: Server, reached: list[str]
) -> None:
    """The page came from a name that leads here now: to the browser all of it is one origin."""
    page = f"http://prizes.rebound.example:{server.port}"
    told = await _attacked(tab, server, reached, f"{page}/", page)
    assert set(told.values()) <= {0, 421}, told
    assert told["post"] == told["read"] == told["methods"] == 421


async def test_the_page_cannot_be_framed(browser: Browser, server: Server, elsewhere: int) -> None:
    tab = await browser.tab()
    await tab.open(f"http://127.0.0.1:{elsewhere}/")
    await tab.until("document.title === 'Free prizes'")
    await tab.run(
        "new Promise((done) => { const frame = document.createElement('iframe');"
        f" frame.src = 'http://127.0.0.1:{server.port}/'; frame.onload = () => done();"
        " document.body.append(frame); })"
    )
    frames = await tab.send("Page.getFrameTree")
    [framed] = frames["frameTree"]["childFrames"]
    world = await tab.send("Page.createIsolatedWorld", frameId=framed["frame"]["id"])
    seen = await tab.send(
        "Runtime.evaluate",
        expression="document.body.innerText.length > 0 && !document.querySelector('#tabs')",
        contextId=world["executionContextId"],
    )
    assert seen["result"]["value"] is True, "the browser's own page about it"
