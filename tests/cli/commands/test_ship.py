"""ship: lines from anywhere into a log, none lost, none twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from tests.cli.tools import COMMAND, ServerProcess, environment, invoke, wait_for


def messages(server: str, service: str) -> list[str]:
    done = invoke("logs", service, "-n", "all", "-o", "jsonl", server=server)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["message"] for line in done.stdout.splitlines()]


def test_standard_input(server: str) -> None:
    text = b"one\r\nERROR two\n\nbad \xff utf8\nlast without newline"
    done = invoke("ship", "in", server=server, stdin=text)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "streamkit: shipped 5 lines to in\n"
    assert messages(server, "in") == ["one", "ERROR two", "", "bad � utf8", "last without newline"]
    found = invoke("logs", "in", "-l", "error", "-o", "raw", server=server)
    assert found.stdout == "ERROR two\n"


def test_level_and_fields(server: str) -> None:
    line = ["ship", "lev", "--level", "warn", "-F", "host=a", "-q"]
    assert invoke(*line, server=server, stdin="x\n").stderr == ""
    done = invoke("logs", "lev", "-o", "jsonl", server=server)
    entry = json.loads(done.stdout)
    assert (entry["level"], entry["fields"]) == ("warn", {"host": "a"})


def test_nothing(server: str) -> None:
    done = invoke("ship", "nothing", server=server)
    assert (done.returncode, done.stderr) == (0, "streamkit: shipped 0 lines to nothing\n")


def test_a_long_line_and_a_file(server: str, tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"x" * 1_000_000 + b"\nshort\n")
    assert invoke("ship", "file", str(file), server=server).returncode == 0
    stored = messages(server, "file")
    assert "".join(stored[:-1]) == "x" * 1_000_000 and stored[-1] == "short"


def test_follow_across_rotations(server: str, tmp_path: Path) -> None:
    file = tmp_path / "app.log"
    file.write_text("1\n")
    process = subprocess.Popen(
        [*COMMAND, "ship", "rotated", str(file), "-f"],
        env=environment(server),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: messages(server, "rotated") == ["1"])
    with file.open("a") as log:
        log.write("2\n")
        os.rename(file, tmp_path / "app.log.1")
        log.write("3\n")
    file.write_text("4\n")
    wait_for(lambda: messages(server, "rotated") == list("1234"))
    file.write_text("5\n")  # truncated in place
    wait_for(lambda: messages(server, "rotated") == list("12345"))
    process.send_signal(2)
    assert process.stderr is not None
    assert "shipped 5 lines to rotated" in process.stderr.read()
    process.stderr.close()
    assert process.wait(10) == 130


def following(server: str, service: str, file: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "ship", service, str(file), "-f", *options],
        env=environment(server),
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    assert "Traceback" not in said, said
    return said


def test_a_file_is_shipped_once_however_often_we_start(server: str, tmp_path: Path) -> None:
    file = tmp_path / "app.log"
    file.write_text("1\n")
    process = following(server, "kept", file)
    wait_for(lambda: messages(server, "kept") == ["1"])
    second = invoke("ship", "kept", str(file), "-f", server=server)
    assert second.returncode == 2 and "by another process" in second.stderr
    end(process, signal.SIGKILL)
    with file.open("a") as log:
        log.write("2\n")
    os.rename(file, f"{file}.1")
    file.write_text("3\n")
    process = following(server, "kept", file)
    wait_for(lambda: messages(server, "kept") == list("123"))
    end(process)
    process = following(server, "kept", file, "--from", "start")
    wait_for(lambda: messages(server, "kept") == list("1233"))
    end(process)


def test_the_server_is_waited_for(
    start_server: Callable[..., ServerProcess], nowhere: str, tmp_path: Path
) -> None:
    file = tmp_path / "app.log"
    file.write_text("1\n2\n")
    process = following(nowhere, "waits", file)
    assert process.stderr is not None and "reconnecting" in process.stderr.readline()
    server = start_server(port=int(nowhere.rpartition(":")[2]))
    wait_for(lambda: messages(server.address, "waits") == ["1", "2"])
    end(process)


def test_both_sides_are_killed(start_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    """kill -9 of us and of the server while a file grows and is rotated: each line comes once."""
    count, file = 12_000, tmp_path / "app.log"
    file.write_text("")
    server = start_server()
    process = following(server.address, "both", file, "-q")

    def write(numbers: range) -> None:
        for number in numbers:
            log.write(f"line {number}\n")
        log.flush()

    with file.open("a") as log:
        write(range(4_000))
        wait_for(lambda: messages(server.address, "both"))
        end(process, signal.SIGKILL)
        write(range(4_000, 8_000))
        os.rename(file, f"{file}.1")
        process = following(server.address, "both", file, "-q")
        server.kill()
        server = start_server(port=server.port)
    with file.open("a") as log:
        write(range(8_000, count))
    wait_for(lambda: messages(server.address, "both")[-1:] == [f"line {count - 1}"], 60)
    end(process)
    assert messages(server.address, "both") == [f"line {number}" for number in range(count)]


def test_the_server_is_killed_in_the_middle(start_server: Callable[..., ServerProcess]) -> None:
    """kill -9 during 40,000 lines: every line is there in the end, once and in order."""
    count = 40_000
    server = start_server()
    process = subprocess.Popen(
        [*COMMAND, "ship", "big"],
        env=environment(server.address),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stderr is not None
    pipe = process.stdin

    def feed() -> None:
        with pipe:
            for number in range(count):
                pipe.write(b"line %d\n" % number)

    feeder = threading.Thread(target=feed)
    feeder.start()

    def stored() -> int:
        sql = "SELECT count(*) FROM logs WHERE service = 'big'"
        done = invoke("query", sql, "--no-header", "-q", server=server.address)
        return int(done.stdout or 0)

    wait_for(lambda: stored() > 100)
    server.kill()
    server = start_server(port=server.port)
    kept = stored()
    said = process.stderr.read().decode()
    process.stderr.close()
    feeder.join()
    assert process.wait(60) == 0, said
    assert "lost" in said and f"shipped {count} lines to big" in said, said
    print(f"killed with at least {kept} of {count} lines stored")
    sql = "SELECT message FROM logs WHERE service = 'big' ORDER BY sequence"
    done = invoke("query", sql, "--no-header", "--batch", "5000", server=server.address)
    assert done.stdout.splitlines() == [f"line {number}" for number in range(count)]
