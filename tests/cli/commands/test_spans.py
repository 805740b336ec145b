"""Where streams start and stop on the command line, and all that lists and watches many jobs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.tools import COMMAND, Terminal, environment, invoke, streamkit, wait_for


def publish(server: str, topic: str, *messages: str) -> list[int]:
    found = []
    for message in messages:
        done = invoke("publish", topic, message, server=server)
        assert done.returncode == 0, done.stderr
        found.append(int(done.stdout))
    return found


def test_from_a_sequence_and_until_a_time(server: str) -> None:
    first, second, *_ = publish(server, "span", "a", "b")
    between = datetime.now(UTC)
    publish(server, "span", "c")
    line = ["subscribe", "span", "-o", "raw"]
    done = invoke(*line, "--from-seq", str(second), "-e", server=server)
    assert done.stdout == "b\nc\n", done.stderr
    done = invoke(*line, "--from-seq", str(first), "--until", between.isoformat(), server=server)
    assert (done.returncode, done.stdout) == (0, "a\nb\n"), done.stderr
    assert invoke(*line, "--until", "10m", server=server).returncode == 2
    assert invoke(*line, "--all", "--from-seq", "1", server=server).returncode == 2


def test_until_a_time_to_come(server: str) -> None:
    publish(server, "soon", "x")
    until = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    started = time.monotonic()
    line = ["subscribe", "soon", "--last", "1", "--until", until, "-o", "json"]
    done = invoke(*line, server=server)
    assert done.returncode == 0 and [u["message"] for u in json.loads(done.stdout)] == ["x"]
    assert 1 < time.monotonic() - started < 20


@pytest.mark.parametrize("option", ["--count", "-n"])
def test_a_count_and_json_as_an_array(server: str, option: str) -> None:
    publish(server, f"count{option}", "1", "2", "3")
    line = ["subscribe", f"count{option}", "--all", option, "2", "-o", "json"]
    done = invoke(*line, server=server)
    assert [update["message"] for update in json.loads(done.stdout)] == ["1", "2"]
    none = invoke("logs", "nobody-writes-this", "-o", "json", server=server)
    assert json.loads(none.stdout) == []


def test_spans_of_logs_and_older_spellings(server: str) -> None:
    invoke("ship", "spans", server=server, stdin="1\n2\n3\n")
    between = datetime.now(UTC).isoformat()
    invoke("ship", "spans", server=server, stdin="4\n")

    def shown(*options: str) -> list[str]:
        done = invoke("logs", "spans", "-o", "raw", *options, server=server)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert shown("--until", between) == shown("-f", "--until", between) == ["1", "2", "3"]
    assert shown("-n", "2") == shown("--last", "2") == shown("--lines", "2") == ["3", "4"]
    assert shown("--all", "--count", "1") == shown("-n", "all", "-F", "--count", "1") == ["1"]
    entry = json.loads(invoke("logs", "spans", "-n", "1", "-o", "jsonl", server=server).stdout)
    assert shown("--from-seq", str(entry["sequence"])) == ["4"]
    assert invoke("logs", "-n", "1", "--all", server=server).returncode == 2


def test_detached_and_watched_among_all(server: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    script = f"echo here; until [ -e {gate} ]; do sleep 0.1; done; exit 3"
    line = ["run", "--detach", "-j", "away", "--", "sh", "-c", script]
    done = streamkit(*line, server=server)
    assert (done.returncode, done.stdout) == (0, "away\n"), done.stderr

    def states() -> dict[str, str]:
        listed = json.loads(invoke("jobs", "-o", "json", "-n", "500", server=server).stdout)
        return {job["job_id"]: job["status"] for job in listed}

    wait_for(lambda: states().get("away") == "running")
    with Terminal("jobs", "--watch", "-n", "10", server=server) as terminal:
        terminal.wait_for("away", "running")
        gate.touch()
        terminal.wait_for("failed")
        terminal.interrupt()
        assert terminal.wait() == 130
    assert states()["away"] == "failed"
    done = invoke("watch-job", "--all-running", "--timeout", "1s", server=server)
    assert done.returncode in (0, 124)


def test_jobs_are_watched_in_a_pipe(server: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "jobs", "--watch", "-o", "jsonl"],
        env=environment(server),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    invoke_run = [*COMMAND, "run", "-q", "-j", "piped", "--", sys.executable, "-c", "pass"]
    assert subprocess.run(invoke_run, env=environment(server), timeout=30).returncode == 0
    for line in process.stdout:
        state = json.loads(line)
        if (state["job_id"], state["status"]) == ("piped", "completed"):
            break
    process.terminate()
    process.communicate(timeout=30)


def test_a_watched_job_as_one_array(server: str) -> None:
    assert streamkit("run", "-q", "-j", "array", "--", "true", server=server).returncode == 0
    for option in (["array"], ["--newest"], ["--latest"]):
        done = invoke("watch-job", *option, "-o", "json", server=server)
        assert json.loads(done.stdout)[-1]["job_id"] == "array"


def test_no_color(server: str) -> None:
    publish(server, "plain", "x")
    line = ["subscribe", "plain", "--last", "1", "--count", "1"]
    done = invoke(*line, "--color", "always", server=server)
    assert "\x1b[" in done.stdout
    done = invoke(*line, "--color", "always", "--no-color", server=server)
    assert done.returncode == 0 and "\x1b[" not in done.stdout


def test_a_person_who_waits_is_told_what_for() -> None:
    import socket

    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        with Terminal("status", "-s", address) as terminal:
            terminal.wait_for(f"connecting to {address} ...")
            terminal.interrupt()
            terminal.wait()
