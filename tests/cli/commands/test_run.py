"""run: the command behaves as it would without us, whatever the server does."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from streamkit.cli.input.child import Child
from streamkit.cli.reporting import Reporter
from streamkit.cli.session import Session
from streamkit.client import AsyncClient
from streamkit.client.writing.spool import Spool
from streamkit.config import Backoff
from streamkit.testing import FaultProxy, serve
from tests.cli.tools import (
    COMMAND,
    ServerProcess,
    Terminal,
    environment,
    invoke,
    streamkit,
    wait_for,
)


def lines(server: str, service: str) -> list[dict[str, object]]:
    done = invoke("logs", service, "-n", "all", "-o", "jsonl", server=server)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_job_with_its_log(server: str) -> None:
    script = "echo out; echo ERROR bad >&2; printf 'no newline'"
    done = streamkit("run", "--job", "basic", "--", "sh", "-c", script, server=server)
    assert (done.returncode, done.stdout) == (0, "out\nno newline")
    assert done.stderr == "ERROR bad\n"
    stored = {entry["message"]: entry for entry in lines(server, "basic")}
    assert set(stored) == {"out", "ERROR bad", "no newline"}
    assert stored["ERROR bad"]["level"] == "error"
    assert stored["ERROR bad"]["fields"] == {"stream": "stderr"}
    watched = invoke("watch-job", "basic", "-o", "jsonl", server=server)
    assert watched.returncode == 0
    last = json.loads(watched.stdout.splitlines()[-1])
    assert (last["status"], last["percentage"], last["exit_code"]) == ("completed", 100, 0)


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
def test_exit_code_is_the_commands(server: str, script: str, code: int) -> None:
    job = f"code-{code}"
    done = streamkit("run", "--job", job, "--", "sh", "-c", script, server=server)
    assert done.returncode == code
    watched = invoke("watch-job", job, "-o", "jsonl", server=server)
    last = json.loads(watched.stdout.splitlines()[-1])
    assert watched.returncode == (1 if code else 0)
    assert last["status"] == ("failed" if code else "completed")
    assert last["exit_code"] == code


def test_no_such_command(server: str, tmp_path: Path) -> None:
    done = streamkit("run", "--", "no-such-command-here", server=server)
    assert done.returncode == 127 and "no such command" in done.stderr
    file = tmp_path / "not-executable"
    file.write_text("x")
    assert streamkit("run", "--", str(file), server=server).returncode == 126


def test_stdin_directory_and_environment_pass_through(server: str) -> None:
    code = (
        "import os, sys; print(sys.stdin.read().upper(), os.getcwd(), os.environ['MINE'],"
        "os.environ['PYTHONUNBUFFERED'], os.environ['STREAMKIT_JOB'], sys.argv[1:])"
    )
    line = ["run", "--job", "pass", "--", sys.executable, "-c", code, "--job", "-q", "-s", "x"]
    done = streamkit(*line, server=server, stdin="given", env={"MINE": "kept"})
    expected = f"GIVEN {os.getcwd()} kept 1 pass ['--job', '-q', '-s', 'x']\n"
    assert done.stdout == expected


def test_quiet_and_service(server: str) -> None:
    line = ["run", "--quiet", "--job", "quiet", "--service", "other", "--", "echo", "x"]
    done = streamkit(*line, server=server)
    assert done.stdout == done.stderr == ""
    assert [entry["message"] for entry in lines(server, "other")] == ["x"]


def test_a_job_id_that_had_its_run(server: str) -> None:
    for _ in range(3):
        done = streamkit("run", "--job", "again", "--", "true", server=server)
        assert done.returncode == 0
    assert "this one is again-3" in done.stderr
    assert invoke("watch-job", "again-3", "--wait", "0", server=server).returncode == 0


def test_progress_lines_and_bad_bytes(server: str) -> None:
    script = r"printf 'a 10%%\ra 50%%\ra 100%%\n'; printf 'bad \xff\xfe utf8 \xe9\n'"
    streamkit("run", "--job", "bytes", "--", "bash", "-c", script, server=server)
    assert [entry["message"] for entry in lines(server, "bytes")] == ["a 100%", "bad �� utf8 �"]


def test_progress_regex(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo step 1/4; until [ -e {gate} ]; do sleep 0.05; done"
    line = ["--progress-regex", r"(\d+)/(\d+)", "--", "bash", "-c", script]
    process = subprocess.Popen(
        [*COMMAND, "run", "-q", "--job", "steps", *line], env=environment(server)
    )

    def state() -> tuple[int, int, int]:
        listed = json.loads(invoke("jobs", "-o", "json", server=server).stdout)
        job: dict[str, int] = next((job for job in listed if job["job_id"] == "steps"), {})
        return job.get("completed", 0), job.get("total", 0), job.get("percentage", 0)

    wait_for(lambda: state() == (1, 4, 25))
    gate.touch()
    assert process.wait(20) == 0


def test_everything_arrives_from_a_loud_command(server: str) -> None:
    """More than the buffer holds: while the server is there, nothing is dropped."""
    done = streamkit("run", "-q", "--job", "loud", "--", "seq", "60000", server=server, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    counted = invoke(
        "query",
        "SELECT count(*), count(DISTINCT message) FROM logs WHERE service = 'loud'",
        "--no-header",
        server=server,
    )
    assert counted.stdout == "60000,60000\n"


def test_server_away(nowhere: str) -> None:
    """The command runs as always; one line says that nobody listens; nothing hangs."""
    started = time.monotonic()
    script = "for i in $(seq 5000); do echo line $i; done; exit 7"
    done = streamkit("run", "--", "bash", "-c", script, server=nowhere)
    assert done.returncode == 7 and done.stdout.count("\n") == 5000
    notes = done.stderr.splitlines()
    assert len(notes) == 2 and "the command goes on" in notes[0]
    assert "wait in " in notes[1] and re.search(r"\b5000 lines", notes[1])
    assert time.monotonic() - started < 60, "three seconds, on a machine that has nothing else"


def test_server_goes_and_comes(start_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """What is written during an outage is stored when the server is back, once."""
    server = start_server()
    gate = tmp_path / "gate"
    script = (
        f"echo before; until [ -e {gate}.1 ]; do sleep 0.05; done; echo during; "
        f"until [ -e {gate}.2 ]; do sleep 0.05; done; echo after"
    )
    process = subprocess.Popen(
        [*COMMAND, "run", "-q", "--job", "outage", "--", "bash", "-c", script],
        env=environment(server.address),
        stderr=subprocess.PIPE,
        text=True,
    )
    address = server.address
    wait_for(lambda: len(lines(address, "outage")) == 1)
    server.kill()
    Path(f"{gate}.1").touch()
    assert process.stderr is not None
    assert "goes on" in process.stderr.readline()
    again = start_server(port=server.port)
    wait_for(lambda: len(lines(again.address, "outage")) == 2)
    Path(f"{gate}.2").touch()
    assert process.wait(20) == 0
    assert [entry["message"] for entry in lines(again.address, "outage")] == [
        "before",
        "during",
        "after",
    ]
    process.stderr.close()
    assert invoke("watch-job", "outage", server=again.address).returncode == 0


def test_cancel_ends_the_command(server: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", "--job", "endless", "--", "sh", "-c", "echo up; exec sleep 600"],
        env=environment(server),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    wait_for(lambda: invoke("cancel", "endless", server=server).returncode == 0)
    assert process.wait(20) == 143
    process.stdout.close()
    watched = invoke("watch-job", "endless", "-o", "jsonl", server=server)
    assert watched.returncode == 1
    assert json.loads(watched.stdout.splitlines()[-1])["status"] == "cancelled"


def test_a_command_that_fails_by_itself_after_a_cancel_has_failed(
    server: str, tmp_path: Path
) -> None:
    """Only one that the signal ended counts as cancelled."""
    script = f"trap 'exit 1' TERM; touch {tmp_path}/up; while true; do sleep 0.1; done"
    process = subprocess.Popen(
        [*COMMAND, "run", "-q", "--job", "trapped", "--", "sh", "-c", script],
        env=environment(server),
    )
    wait_for((tmp_path / "up").exists)
    wait_for(lambda: invoke("cancel", "trapped", server=server).returncode == 0)
    assert process.wait(30) == 1
    watched = invoke("watch-job", "trapped", "-o", "jsonl", server=server)
    last = json.loads(watched.stdout.splitlines()[-1])
    assert (last["status"], last["exit_code"]) == ("failed", 1)


async def test_a_short_write_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pipe may take a part of what it is given."""
    write = os.write
    monkeypatch.setattr(
        "streamkit.cli.input.child.os.write", lambda number, data: write(number, data[:7])
    )

    async def drop(name: str, lines: list[str], now: datetime) -> None:
        pass

    child = Child(drop, quiet=False)
    child.start(["seq", "2000"], dict(os.environ))
    assert await child.wait() == 0
    monkeypatch.undo()
    assert capfd.readouterr().out == "".join(f"{number}\n" for number in range(1, 2001))


COUNTING = """
import signal, sys, time
got = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda n, f: got.append(n))
print("ready", flush=True)
end = time.monotonic() + 20
while not got and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(0.5)
print("signals", [int(n) for n in got], flush=True)
sys.exit(9)
"""


def test_ctrl_c_reaches_the_command_once(server: str) -> None:
    """On a terminal the kernel sends it to the whole group: passing it on would double it."""
    line = ["run", "--", sys.executable, "-c", COUNTING]
    with Terminal(*line, server=server) as terminal:
        terminal.wait_for("ready")
        terminal.interrupt()
        terminal.wait_for("signals [2]")
        assert terminal.wait() == 9


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_other_signals_are_passed_on(server: str, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*COMMAND, "run", "--", sys.executable, "-c", COUNTING],
        env=environment(server),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.stdout.read() == b"signals [%d]\n" % number
    assert process.wait(20) == 9
    process.stdout.close()


def run_into_file(server: str, file: Path, *arguments: str) -> int:
    """Both outputs into one file, as a shell's `> file 2>&1` does."""
    with file.open("wb") as target:
        done = subprocess.run(
            [*COMMAND, "run", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=target,
            env=environment(server),
            timeout=60,
            check=False,
        )
    return done.returncode


def test_a_background_process_outlives_us(server: str, tmp_path: Path) -> None:
    """It holds nobody up, it is not killed by its next line, and that line is shown."""
    shown, gate, marker = tmp_path / "shown", tmp_path / "gate", tmp_path / "marker"
    late = f"(until [ -e {gate} ]; do sleep 0.1; done; echo late; echo alive > {marker}) & echo now"
    assert run_into_file(server, shown, "-j", "background", "--", "sh", "-c", late) == 0
    told = shown.read_text()
    assert told.startswith("now\n") and "a process in the background goes on" in told
    gate.touch()
    wait_for(marker.exists)
    wait_for(lambda: shown.read_text().endswith("late\n"))


def test_one_file_for_both_outputs_keeps_their_order(server: str, tmp_path: Path) -> None:
    script = "for i in $(seq 100); do echo out $i; echo err $i >&2; done"
    file = tmp_path / "both"
    assert run_into_file(server, file, "-j", "ordered", "--", "bash", "-c", script) == 0
    expected = [f"{name} {number}" for number in range(1, 101) for name in ("out", "err")]
    assert file.read_text().splitlines() == expected
    assert [entry["message"] for entry in lines(server, "ordered")] == expected


@pytest.mark.parametrize(
    ("regex", "line", "state"),
    [
        (r"([\d,]+)/([\d,]+)", "1,000/4,000 files", (1000, 4000, 25)),
        (r"progress=(\S+)%", "progress=N/A%", (0, 0, 0)),
        (r"(\S+) (\S+)", "inf nan", (0, 0, 0)),
        (r"(x)?(\d+)", "7", (0, 0, 0)),
    ],
)
def test_a_progress_that_is_no_number_is_none(
    server: str, regex: str, line: str, state: tuple[int, int, int]
) -> None:
    job = f"number-{abs(hash(line))}"
    arguments = ["run", "-j", job, "--progress-regex", regex, "--"]
    done = streamkit(*arguments, "sh", "-c", f"echo '{line}'; echo end; exit 3", server=server)
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{line}\nend\n", "")
    listed = json.loads(invoke("jobs", "-n", "500", "-o", "json", server=server).stdout)
    found = next(entry for entry in listed if entry["job_id"] == job)
    assert tuple(found.get(key, 0) for key in ("completed", "total", "percentage")) == state


async def test_nothing_of_ours_reaches_the_command(tmp_path: Path) -> None:
    async def fail(name: str, lines: list[str], now: datetime) -> None:
        raise RuntimeError("no")

    notes: list[str] = []
    child = Child(fail, quiet=True, note=notes.append)
    file = tmp_path / "end"
    child.start(["sh", "-c", f"seq 100000; echo x > {file}"], dict(os.environ))
    assert await child.wait() == 0 and file.exists()
    assert "could not be reported: RuntimeError" in notes[0]


async def test_a_signal_that_comes_before_the_command_is_passed_on() -> None:
    async def drop(name: str, lines: list[str], now: datetime) -> None:
        pass

    child = Child(drop, quiet=True)
    child.pass_on(signal.SIGINT)
    child.start(["sleep", "60"], dict(os.environ))
    assert await child.wait() == 130


@pytest.mark.parametrize("job", ["a*b", "", "x\ny", "x" * 300])
def test_a_name_that_the_server_refuses_is_refused_first(
    server: str, tmp_path: Path, job: str
) -> None:
    option = ["--job", job] if job else ["--job", "fine", "--service", "a*b"]
    done = invoke("run", *option, "--", "touch", str(tmp_path / "ran"), server=server)
    assert done.returncode == 2 and option[-2] in done.stderr
    assert not (tmp_path / "ran").exists()


def test_timeout_and_total(server: str) -> None:
    line = ["run", "-j", "timed", "--timeout", "1s", "--total", "8", "--progress-regex", r"(\d+)"]
    done = streamkit(*line, "--", "sh", "-c", "echo 2 of 8; exec sleep 60", server=server)
    assert done.returncode == 124
    watched = invoke("watch-job", "timed", "-o", "jsonl", server=server)
    last = json.loads(watched.stdout.splitlines()[-1])
    assert (last["status"], last["completed"], last["total"]) == ("failed", 2, 8)
    assert "ended after 1s" in last["error"]


def test_a_terminal_for_the_command(server: str) -> None:
    code = "import os, sys; print(*map(os.isatty, (1, 2, 0))); print('e', file=sys.stderr)"
    done = streamkit("run", "-j", "pty", "--pty", "--", sys.executable, "-c", code, server=server)
    assert done.stdout == "True True False\ne\n", done.stderr
    assert [entry["message"] for entry in lines(server, "pty")] == ["True True False", "e"]


def test_what_waits_on_disk_is_delivered(
    start_server: Callable[..., ServerProcess], nowhere: str, tmp_path: Path
) -> None:
    """The server is away all the time; a later run brings it all, once and in order."""
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    script = "for i in $(seq 5000); do echo line $i; done; exit 7"
    done = streamkit("run", "-q", "-j", "kept", "--", "bash", "-c", script, server=nowhere, env=env)
    assert done.returncode == 7 and "5000 lines of output and the end wait in" in done.stderr
    server = start_server(port=int(nowhere.rpartition(":")[2])).address
    done = streamkit("deliver", server=nowhere, env=env)
    assert done.returncode == 0 and "5000 lines that waited" in done.stderr, done.stderr
    stored = [entry["message"] for entry in lines(server, "kept")]
    assert stored == [f"line {number}" for number in range(1, 5001)]
    watched = json.loads(invoke("watch-job", "kept", "-o", "jsonl", server=server).stdout)
    assert (watched["status"], watched["exit_code"]) == ("failed", 7)
    done = streamkit("deliver", server=nowhere, env=env)
    assert "nothing waits" in done.stderr


def test_a_spool_is_bounded(nowhere: str) -> None:
    script = "for i in $(seq 60000); do echo line $i; done"
    line = ["run", "-q", "--spool", "10K", "--", "bash", "-c", script]
    done = streamkit(*line, server=nowhere)
    told = re.findall(r"(\d+) lines of output", done.stderr)
    assert len(told) == 2 and sum(map(int, told)) == 60_000, done.stderr
    done = streamkit("run", "-q", "--spool", "0", "--", "echo", "x", server=nowhere)
    assert "1 lines of output did not reach" in done.stderr


def test_the_reader_of_the_output_goes(server: str) -> None:
    """`| head` ends the command the way it does without us."""
    line = f"{' '.join(COMMAND)} run --job headed -- yes | head -1"
    done = subprocess.run(
        ["bash", "-c", line + "; echo ${PIPESTATUS[0]}"],
        capture_output=True,
        text=True,
        env=environment(server),
        timeout=30,
        check=False,
    )
    assert done.stdout == "y\n141\n" and "Traceback" not in done.stderr


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage the next attempt of every writer is a minute away."""
    options = Session.options

    def slow(self: Session) -> dict[str, Any]:
        return options(self) | {"backoff": Backoff(first=60.0)}

    monkeypatch.setattr(Session, "options", slow)


@pytest.mark.parametrize("back", [True, False])
async def test_a_command_that_ends_after_an_outage(
    unhurried: None, back: bool, tmp_path: Path
) -> None:
    """A server that is back gets the end at once; one that is not is told nothing wrong later."""
    async with serve() as address, FaultProxy(address) as proxy, AsyncClient(address) as client:
        session = Session(server=proxy.address)
        spool = Spool(tmp_path / "spool", 1_000_000)
        reporter = Reporter(session, "outlived", "outlived", None, spool)
        reporting = asyncio.create_task(reporter.run("make"))
        try:
            await asyncio.wait_for(reporter._job_known.wait(), 10)
            await proxy.refuse()
            await reporter.take("stdout", ["said while the server was away"], datetime.now(UTC))
            while reporter._online:
                await asyncio.sleep(0.01)
            if back:
                await proxy.heal()
            await reporter.finish(0)
            await proxy.heal()
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
        (job,) = await client.jobs()
        assert job.status == ("completed" if back else "running")
        told = [line.message async for line in client.logs("outlived", lines=10)]
        assert told == (["said while the server was away"] if back else [])


async def test_what_was_said_before_there_was_a_job_is_shown_in_it(tmp_path: Path) -> None:
    """All of it, not the last lines alone: the counts came earlier than the end."""
    async with serve() as address, FaultProxy(address) as proxy, AsyncClient(address) as client:
        await proxy.refuse()
        session = Session(server=proxy.address)
        spool = Spool(tmp_path / "spool", 1_000_000)
        reporter = Reporter(session, "early", "early", re.compile(r"(\d+)/(\d+)"), spool)
        reporting = asyncio.create_task(reporter.run("make"))
        try:
            for line in ("1/4 files", "  a step  ", ""):
                await reporter.take("stdout", [line], datetime.now(UTC))
            await proxy.heal()
            await reporter.finish(3)
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
        (job,) = await client.jobs()
        assert (job.status, job.completed, job.total) == ("failed", 1, 4)
        assert job.current_step == "a step"
