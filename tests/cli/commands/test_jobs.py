"""watch-job, jobs, cancel: bars where somebody watches, lines elsewhere, the outcome as code."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator

import pytest

from streamkit.client import AsyncClient
from tests.cli.tools import Terminal, streamkit


@pytest.fixture
async def client(server: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server) as client:
        yield client


async def watched(server: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(streamkit, "watch-job", *arguments, server=server)


async def seen(terminal: Terminal, *texts: str) -> None:
    await asyncio.to_thread(terminal.wait_for, *texts)


async def test_bars_on_a_terminal(server: str, client: AsyncClient) -> None:
    """Percentage and count while it runs; the bar stays with the outcome; code 0."""
    async with client.job("bars", total=200) as job:
        with Terminal("watch-job", "bars", server=server, columns=120) as terminal:
            await seen(terminal, "bars", "running", "0%")
            await job.update(completed=100, step="half [bold]way[/]")
            await seen(terminal, "50% 100/200", "half [bold]way[/]")
            await job.finish()
            assert await asyncio.to_thread(terminal.wait) == 0
            line = next(line for line in terminal.lines if "bars" in line)
            assert "completed" in line and "100%" in line and "━" * 24 in line
            assert b"\x1b[?25h" in terminal.raw.rpartition(b"\x1b[?25l")[2], "cursor is back"


async def test_a_total_that_is_not_known(server: str, client: AsyncClient) -> None:
    async with client.job("pulse") as job:
        with Terminal("watch-job", "pulse", server=server, columns=120) as terminal:
            await job.update(completed=41, step="page")
            await seen(terminal, "pulse", " 41 ", "page")
            assert "%" not in "\n".join(terminal.lines)
            terminal.interrupt()
            assert await asyncio.to_thread(terminal.wait) == 130


@pytest.mark.parametrize("env", [{"CI": "true"}, {"TERM": "dumb"}, {"TTY_INTERACTIVE": "0"}])
async def test_lines_where_nobody_watches(
    server: str, client: AsyncClient, env: dict[str, str]
) -> None:
    name = "lines-" + "-".join(env).lower().replace("_", "")
    async with client.job(name, total=100) as job:
        with Terminal("watch-job", name, server=server, env=env) as terminal:
            await seen(terminal, f"{name}: running")
            for done in range(1, 101):
                await job.update(completed=done, step=f"step {done}")
            await job.finish()
            assert await asyncio.to_thread(terminal.wait) == 0
            lines = [line for line in terminal.text.splitlines() if line]
            assert 3 <= len(lines) <= 13, lines
            assert lines[-1].startswith(f"{name}: completed 100%")
            assert b"\x1b[?25l" not in terminal.raw and b"\x1b[1A" not in terminal.raw


async def test_force_color_does_not_switch_on_bars(server: str, client: AsyncClient) -> None:
    async with client.job("forced"):
        pass
    env = {"FORCE_COLOR": "1", "CI": "true"}
    done = await asyncio.to_thread(streamkit, "watch-job", "forced", server=server, env=env)
    assert "\x1b[32m" in done.stdout and re.sub("\x1b\\[[0-9;]*m", "", done.stdout) == (
        "forced: completed 100%\n"
    )


async def test_the_outcome_is_the_exit_code(server: str, client: AsyncClient) -> None:
    async with client.job("good"):
        pass
    async with client.job("bad") as job:
        for number in range(30):
            await job.log(f"output {number}")
        await job.finish("failed", "it broke \x1b[2J", exit_code=3)
    good, bad = await watched(server, "good"), await watched(server, "bad")
    assert (good.returncode, good.stderr) == (0, "")
    assert bad.returncode == 1 and bad.stdout.startswith("bad: failed")
    assert "it broke \\x1b[2J" in bad.stdout
    assert "the last 20 lines of bad" in bad.stderr
    assert "output 29" in bad.stderr and "output 10" in bad.stderr and "output 9" not in bad.stderr
    both = await watched(server, "good", "bad")
    assert both.returncode == 1


async def test_output_with_logs(server: str, client: AsyncClient) -> None:
    async with client.job("talk") as job:
        await job.log("before the watch")
        task = asyncio.create_task(watched(server, "talk", "--logs"))
        await job.log("in between")
        for number in range(50):
            await job.log(f"last words {number}")
    done = await task
    assert done.returncode == 0
    shown = [line for line in done.stdout.splitlines() if " info " in line]
    assert len(shown) == 52 and shown[0].endswith("before the watch")
    assert shown[-1].endswith("last words 49"), "everything that was said before the end"
    events = await watched(server, "talk", "--logs", "-o", "jsonl")
    kinds = [json.loads(line)["kind"] for line in events.stdout.splitlines()]
    assert kinds.count("log") == 52 and "job" in kinds


async def test_waiting_for_a_job_to_appear(server: str, client: AsyncClient) -> None:
    task = asyncio.create_task(watched(server, "later", "--wait", "20s"))
    await asyncio.sleep(0)
    async with client.job("later", step="here"):
        pass
    assert (await task).returncode == 0
    missing = await watched(server, "never", "--wait", "100ms")
    assert missing.returncode == 5 and missing.stderr.count("\n") == 1


async def test_timeout_leaves_the_job_alone(server: str, client: AsyncClient) -> None:
    async with client.job("slow"):
        done = await watched(server, "slow", "--timeout", "300ms")
        assert done.returncode == 124 and "nothing was stopped" in done.stderr
        assert (await client.jobs(limit=1))[0].status == "running"


async def test_jobs_lists_them(server: str, client: AsyncClient) -> None:
    async with client.job("listed", total=10, step="[/x] \x1b[2J") as job:
        await job.update(completed=5)
        line = ["jobs", "--status", "running,pending", "-n", "50"]
        table = await asyncio.to_thread(streamkit, *line, server=server)
        row = next(line for line in table.stdout.splitlines() if line.startswith("listed"))
        assert row.split()[1:4] == ["running", "50%", "5/10"]
        assert row.endswith("[/x] \\x1b[2J") and "\x1b" not in table.stdout
        listed = await asyncio.to_thread(streamkit, *line, "-o", "json", server=server)
        found = {job["job_id"]: job for job in json.loads(listed.stdout)}
        assert found["listed"]["completed"] == 5
    latest = await watched(server, "--latest")
    assert latest.returncode == 0 and "listed" in latest.stdout


async def test_cancel(server: str, client: AsyncClient) -> None:
    async with client.job("stop") as job:
        done = await asyncio.to_thread(streamkit, "cancel", "stop", server=server)
        assert done.returncode == 0 and "asked to stop" in done.stderr
        await asyncio.wait_for(job.cancel_requested.wait(), 20)
    done = await asyncio.to_thread(streamkit, "cancel", "stop", server=server)
    assert "had ended before" in done.stderr or "is cancelled" in done.stderr
    assert (await watched(server, "stop")).returncode == 1
