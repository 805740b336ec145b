"""The page as a person uses it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from streamkit import AsyncClient, Server, last
from tests.web.chromium import Browser, Tab

STATIC = Path(__file__).resolve().parents[2] / "streamkit" / "doors" / "page" / "static"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>document.title='owned'</script>",
    "\x1b]0;owned\x07\x1b[31mred",
    "\u202egnp.exe",
    "a\u00adb\u200bc\U000e0041",
    "javascript:alert(1)",
    '"><svg onload=alert(1)>',
    "{{7*7}}${7*7}",
]


def test_the_page_is_small_and_needs_nothing_from_elsewhere() -> None:
    files = list(STATIC.iterdir())
    assert sum(file.stat().st_size for file in files) <= 60_000
    for file in files:
        text = file.read_text()
        assert "innerHTML" not in text and "outerHTML" not in text
        assert "insertAdjacentHTML" not in text and "eval(" not in text
        if file.suffix != ".svg":
            assert "//cdn" not in text and "https://" not in text


async def test_jobs_move_end_and_are_cancelled(tab: Tab, client: AsyncClient) -> None:
    async with client.job("import", total=200) as job:
        await job.advance(50)
        await tab.sees("50 of 200")
        await tab.until("document.querySelector('progress').value === 25")
        await job.advance(150)
    await tab.sees("completed")
    async with client.job("endless", total=10) as job:
        await tab.click("endless\n0%\nrunning\n0 of 10", "button.job")
        await tab.sees("streamkit watch-job 'endless'", "footer")
        await tab.click("Cancel")
        async with asyncio.timeout(10):
            while not job.cancel_requested:
                await job.advance(1)
                await asyncio.sleep(0.02)


async def test_a_jobs_log_is_shown_with_it(tab: Tab, client: AsyncClient) -> None:
    async with client.log_writer("builder") as log, client.job("build", service="builder"):
        await log.send("compiling")
        await tab.until("document.querySelector('.job')")
        await tab.run("document.querySelector('.job').click()")
        await tab.sees("compiling", ".lines")
        await log.send("linking")
        await tab.sees("linking", ".lines")


async def test_logs_by_level_and_search_in_the_present_and_the_past(
    tab: Tab, client: AsyncClient
) -> None:
    async with client.log_writer("api") as log:
        await log.send("the needle of old", level="warn")
        for n in range(1500):
            await log.send(f"hay {n}")
    await tab.run("location.hash = 'logs'")
    await tab.sees("hay 1499", ".lines")
    await tab.type("Search", "hay 1498")
    await tab.until("document.querySelectorAll('.lines .row').length === 1")
    await tab.type("Search", "needle", enter=True)
    await tab.sees("the needle of old", ".lines")
    await tab.sees("1 found")
    told = shlex.split(await tab.run("document.querySelector('#line').innerText"))
    assert "where message like '%needle%' escape" in told[2]
    async with client.log_writer("api") as log:
        await log.send("broken", level="error")
    await tab.type("Search", "")
    await tab.run("document.querySelector('select').value = 'error'")
    await tab.run("document.querySelector('select').dispatchEvent(new Event('change'))")
    await tab.until("document.querySelectorAll('.lines .row').length === 1")
    await tab.sees("-l error", "footer")


async def test_reading_holds_the_log_and_counts_what_comes(tab: Tab, client: AsyncClient) -> None:
    async with client.log_writer("api") as log:
        await tab.run("location.hash = 'logs'")
        for n in range(200):
            await log.send(f"line {n}")
        await tab.sees("line 199", ".lines")
        await tab.key(" ")
        for n in range(25):
            await log.send(f"later {n}")
        await tab.sees("25 new, go on")
        assert "later 24" not in await tab.run("document.querySelector('.lines').innerText")
        await tab.key(" ")
        await tab.sees("later 24", ".lines")


async def test_a_link_leads_to_one_line(tab: Tab, client: AsyncClient) -> None:
    async with client.log_writer("api") as log:
        for n in range(900):
            await log.send(f"line {n}")
    await tab.run("location.hash = 'logs/api@300'")
    await tab.until("document.querySelector('.row.marked')?.innerText.includes('line 299')")


async def test_updates_by_pattern_the_values_of_topics_and_publishing(
    tab: Tab, client: AsyncClient
) -> None:
    await client.publish("orders.eu", "one")
    await client.publish("metrics", "two")
    await tab.run("location.hash = 'updates'")
    await tab.sees("metrics: two", "aside")
    await tab.type("Topics", "orders.*")
    await tab.until("document.querySelectorAll('.lines .row').length === 1")
    await tab.type("Topic to publish to", "orders.us")
    await tab.type("Message", "from the page", enter=True)
    await tab.sees("from the page", ".lines")
    await tab.sees("orders.us: from the page", "aside")


async def test_a_query_fills_the_grid_and_a_link_runs_nothing(
    tab: Tab, client: AsyncClient
) -> None:
    await client.publish("orders", "one")
    hostile = "select 'ran by itself'"
    await tab.run(f"location.hash = {json.dumps('query?sql=' + hostile)}")
    await tab.until("document.querySelector('textarea')?.value.includes('by itself')")
    await tab.sees("updates", "aside")
    assert not await tab.run("document.querySelectorAll('td').length")
    await tab.type("SQL", "select topic, message, null as gone, 7 as n from updates")
    await tab.click("Run")
    await tab.sees("1 rows in")
    cells = await tab.run("[...document.querySelectorAll('td')].map((cell) => cell.innerText)")
    assert cells == ["orders", "one", "null", "7"]
    await tab.type("SQL", "select nonsense from updates")
    await tab.click("Run")
    await tab.sees("no such column")


async def test_a_query_without_end_is_stopped(tab: Tab) -> None:
    await tab.run("location.hash = 'query'")
    await tab.sees("updates", "aside")
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
    await tab.type("SQL", endless)
    await tab.click("Run")
    await tab.sees("the first of more")
    await tab.type("SQL", endless + " where i < 0")
    await tab.click("Run")
    await tab.click("Stop")
    await tab.sees("stopped")


async def test_parameters_of_a_query_are_in_the_command_too(tab: Tab, client: AsyncClient) -> None:
    await client.publish("it's", "one")
    await tab.run("location.hash = 'query'")
    await tab.sees("updates", "aside")
    statement = "select topic, typeof(:n) as n, typeof(:r) as r from updates where topic = :t"
    await tab.type("SQL", statement)
    await tab.type("Parameters", "t=it's, n=5, r=1.5")
    await tab.click("Run")
    await tab.sees("1 rows in")
    cells = await tab.run("[...document.querySelectorAll('td')].map((cell) => cell.innerText)")
    assert cells == ["it's", "integer", "real"]
    told = shlex.split(await tab.run("document.querySelector('#line').innerText"))
    given = [word for at, word in enumerate(told) if told[at - 1] == "-p"]
    assert told[2] == statement and given == ["t=it's", "n=5", "r=1.5"]


async def test_results_and_logs_are_downloaded_whole(
    tab: Tab, client: AsyncClient, tmp_path: Path
) -> None:
    async with client.log_writer("api") as log:
        for n in range(600):
            await log.send(f"line {n}")
    await tab.downloads(tmp_path)
    await tab.run("location.hash = 'logs'")
    await tab.sees("line 599", ".lines")
    await tab.click("Save view")
    view = await _file(tmp_path, "log.txt")
    assert [line.split()[-1] for line in view.splitlines()] == [str(n) for n in range(100, 600)]
    await tab.click("all as jsonl", "a")
    everything = await _file(tmp_path, "log.jsonl")
    assert [json.loads(line)["message"] for line in everything.splitlines()] == [
        f"line {n}" for n in range(600)
    ]
    await tab.run("location.hash = 'query'")
    await tab.type("SQL", "select sequence, message from logs order by sequence")
    await tab.click("csv")
    assert (await _file(tmp_path, "result.csv")).splitlines()[-1] == "600,line 599"
    await tab.click("jsonl")
    rows = (await _file(tmp_path, "result.jsonl")).splitlines()
    assert len(rows) == 600 and json.loads(rows[-1])["message"] == "line 599"


async def _file(folder: Path, name: str) -> str:
    """What was downloaded, once it is whole."""
    async with asyncio.timeout(20):
        while not (folder / name).exists():  # it has another name until then
            await asyncio.sleep(0.02)
    return (folder / name).read_text()


async def test_who_is_connected_and_how_far(tab: Tab, client: AsyncClient) -> None:
    await client.publish("orders", "one")
    async with client.subscribe("orders", start=last(1)) as updates:
        await updates.receive()
        await tab.run("location.hash = 'people'")
        await tab.sees("SubscribeToUpdates", "table")
        row = "[...document.querySelectorAll('tr')].find((r) => r.innerText.includes('Subscribe'))"
        cells = await tab.run(f"[...{row}.children].map((cell) => cell.innerText)")
        assert cells[2:9] == ["grpc", "SubscribeToUpdates", "orders", "1", "0", "1", "1"]
        assert cells[9].endswith("s") and "undefined" not in "".join(cells)
        await tab.sees("streamkit top", "footer")


async def test_a_form_makes_the_request(tab: Tab, client: AsyncClient) -> None:
    await tab.run("location.hash = 'methods'")
    await tab.click("ListJobs")
    await tab.type("limit", "5")
    await tab.type("statuses", "running, failed")
    await tab.sees('{"limit":5,"statuses":["running","failed"]}', "footer")
    await tab.type("limit", "")
    await tab.sees("""-d '{"statuses":["running","failed"]}'""", "footer")
    await tab.type("Request", '{"limit": 7}')
    await tab.until("document.querySelector('[aria-label=limit]').value === '7'")
    await tab.click("Send")
    await tab.sees("ok in")


async def test_every_method_can_be_called(tab: Tab, client: AsyncClient) -> None:
    await tab.run("location.hash = 'methods'")
    await tab.click("GetStatus")
    await tab.click("Send")
    await tab.sees('"durability": "normal"')
    await tab.click("SubscribeToUpdates")
    await tab.sees("Live updates of the requested topics")
    await tab.type("Request", '{"topics": ["orders"]}')
    await tab.click("Send")
    stop = "[...document.querySelectorAll('button')].find((b) => b.innerText === 'Stop')"
    await tab.until(f"{stop}.disabled === false")
    await _published(tab, client)
    await tab.click("Stop")
    await tab.sees("stopped after")
    await tab.sees("grpcurl -plaintext -d")


async def _published(tab: Tab, client: AsyncClient) -> None:
    async with asyncio.timeout(10):
        while "a live one" not in await tab.run("document.querySelector('.lines').innerText"):
            await client.publish("orders", "a live one")
            await asyncio.sleep(0.05)


async def test_hostile_text_is_only_ever_text(tab: Tab, client: AsyncClient) -> None:
    async with client.log_writer("api") as log:
        for n, text in enumerate(HOSTILE * 20):
            await log.send(text, fields={text: text})
            if n < len(HOSTILE):
                await client.publish("orders", text, metadata={"x": text})
        async with client.job("build", step=HOSTILE[0]):
            for panel in ("logs", "updates", "jobs", "query"):
                await tab.run(f"location.hash = '{panel}'")
                if panel == "query":
                    await tab.type("SQL", "select message from updates")
                    await tab.click("Run")
                    await tab.sees("8 rows in")
                else:
                    await tab.until("document.querySelectorAll('.row, .job').length > 0")
                text = await tab.run("document.body.innerText")
                assert not set(text) & set("\x1b\u202e\u200b\u00ad\U000e0041")
                elements = await tab.run(
                    "document.querySelectorAll('main img, main script, main svg').length"
                )
                assert elements == 0
    assert await tab.run("document.title") == "Query \u2013 streamkit"


async def test_the_keyboard_is_enough(tab: Tab, client: AsyncClient) -> None:
    await tab.key("2")
    await tab.until("document.title.startsWith('Logs')")
    await tab.key("/")
    await tab.until("document.activeElement.ariaLabel === 'Search'")
    await tab.key("Escape")
    await tab.key("4")
    await tab.until("document.title.startsWith('Query')")
    async with client.log_writer("api") as log:
        for n in range(40):
            await log.send(f"line {n}", fields={"number": n})
    await tab.key("2")
    await tab.sees("line 39", ".lines")
    await tab.run("document.querySelector('.lines').focus()")
    for key in ("ArrowDown", "ArrowUp", "ArrowUp", "Enter"):
        await tab.key(key)
    await tab.sees("line 37", "main > pre")
    assert (await tab.run("location.hash")).endswith("api@38")
    await tab.sees("new, go on")
    await tab.key(" ")
    await tab.sees("Pause")


async def test_the_page_goes_on_by_itself_when_its_server_comes_back(
    browser: Browser, tmp_path: Path
) -> None:
    store = str(tmp_path / "store.db")
    port = 0
    tab = await browser.tab()
    for life in range(3):
        async with Server(journal=store, port=port, web=True) as server:
            if not life:
                port = int(server.address.rpartition(":")[2])
                await tab.open(server.page_address)
                await tab.sees("Jobs")
                await tab.run("location.hash = 'updates'")
            async with AsyncClient(server.address) as client:
                await client.publish("orders", f"in life {life}")
            await tab.sees(f"in life {life}", ".lines")
    rows = await tab.run("[...document.querySelectorAll('.lines .row')].map((r) => r.innerText)")
    assert [row.split()[-1] for row in rows] == ["0", "1", "2"]


async def test_without_a_store_the_page_says_what_to_do(browser: Browser) -> None:
    async with Server(journal=":memory:", port=0, web=True) as server:
        port = int(server.address.rpartition(":")[2])
        tab = await browser.tab()
        await tab.open(server.page_address)
        await tab.sees("Jobs")
    async with Server(journal=":memory:", port=port, web=True) as server:
        await tab.sees("Open the address that the server printed")
        await tab.run(f"fetch({server.page_address!r}, {{redirect: 'manual'}})")
        await tab.sees("Jobs", "#tabs")


async def test_with_rules_of_access_it_asks_for_the_token_once_more(
    browser: Browser, tmp_path: Path
) -> None:
    access, secret = tmp_path / "access.toml", "sk_ann_" + "a" * 43
    digest = hashlib.sha256(secret.encode()).hexdigest()
    access.write_text(f'[[token]]\nid = "ann"\nsha256 = "{digest}"\nroles = ["admin"]\n')
    access.chmod(0o600)
    settings: dict[str, Any] = {"journal": str(tmp_path / "store.db"), "access": str(access)}
    tab = await browser.tab()
    port = 0
    for _ in range(2):
        async with Server(**settings, port=port, web=True) as server:
            if not port:
                port = int(server.address.rpartition(":")[2])
                await tab.open(server.page_address)
            await tab.sees("A token of this server")
            await tab.type("Token", secret, enter=True)
            await tab.sees("Jobs", "#tabs")
    assert not list(tmp_path.glob("*.logins"))


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
async def test_nothing_is_wider_than_the_window(
    width: int, dark: bool, browser: Browser, server: Server, client: AsyncClient
) -> None:
    tab = await browser.tab(width, 800, dark)
    await tab.open(server.page_address)
    await tab.sees("Jobs")
    await client.publish("orders." + "x" * 150, "y" * 5000)
    async with client.job("j" * 150, step="s" * 500):
        for panel in ("jobs", "logs", "updates", "query", "methods", "people"):
            await tab.run(f"location.hash = '{panel}'")
            await tab.until(
                f"document.title.toLowerCase().startsWith('{panel[:4]}') || {panel == 'people':d}"
            )
            wide = await tab.run("document.documentElement.scrollWidth <= innerWidth")
            assert wide, panel
    assert tab.problems == []
