"""publish, subscribe and logs: what is shown, where it starts, when it stops."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import datetime
from pathlib import Path

import pytest

from tests.cli import hostile
from tests.cli.tools import COMMAND, Terminal, environment, invoke, streamkit


def publish(server: str, topic: str, *bodies: str) -> None:
    text = "".join(f"{body}\n" for body in bodies)
    assert invoke("publish", topic, "--lines", "-q", server=server, stdin=text).returncode == 0


def test_publish_from_everywhere(server: str, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"from a file \xff")
    assert invoke("publish", "pub", "argument", server=server).stdout.strip().isdigit()
    assert invoke("publish", "pub", "-", server=server, stdin="typed\n").returncode == 0
    assert invoke("publish", "pub", server=server, stdin="piped").returncode == 0
    assert invoke("publish", "pub", "-f", str(file), "-H", "k=v", server=server).returncode == 0
    done = invoke("publish", "pub", "--lines", server=server, stdin="a\nb\n")
    assert re.search(r"published 2 messages to pub; the last has \d+", done.stderr)
    shown = invoke("subscribe", "pub", "--all", "-e", "-o", "raw", server=server)
    expected = ["argument", "typed", "piped", "from a file �", "a", "b"]
    assert shown.stdout.splitlines() == expected
    assert invoke("publish", "pub", "x", "--lines", server=server).returncode == 2


def test_publish_does_not_wait_for_a_terminal(server: str) -> None:
    with Terminal("publish", "pub", server=server) as terminal:
        assert terminal.wait() == 2 and "no message" in terminal.text


def test_where_a_subscription_starts_and_stops(server: str) -> None:
    publish(server, "start.a", "1", "2", "3")
    publish(server, "start.b", "4", "5")

    def shown(*arguments: str) -> list[str]:
        done = invoke("subscribe", *arguments, "-o", "raw", server=server)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert shown("start.*", "--all", "-e") == list("12345")
    assert shown("start.a", "--all", "-e") == list("123")
    assert shown("start.>", "--last", "2", "-e") == list("45")
    assert shown("start.a", "start.b", "--since", "10m", "-n", "4") == list("1234")
    assert shown("start.nothing", "--all", "-e") == []
    timed = invoke("subscribe", "start.a", "--new", "--timeout", "300ms", server=server)
    assert timed.returncode == 124 and timed.stdout == ""


def test_json_has_everything(server: str) -> None:
    line = ["publish", "js", '{"price": 1}', "-H", "k=v"]
    sequence = int(invoke(*line, server=server).stdout)
    done = invoke("subscribe", "js", "--all", "-n", "1", "-o", "jsonl", server=server)
    update = json.loads(done.stdout)
    assert update.pop("timestamp").endswith("Z")
    assert update == {
        "topic": "js",
        "sequence": sequence,
        "message": '{"price": 1}',
        "metadata": {"k": "v"},
    }


def test_every_record_is_flushed_in_a_pipe(server: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "subscribe", "flush", "--all", "-o", "raw"],
        stdout=subprocess.PIPE,
        env=environment(server),
        text=True,
    )
    assert process.stdout is not None
    for word in ("one", "two", "three"):
        publish(server, "flush", word)
        assert process.stdout.readline() == f"{word}\n"
    process.terminate()
    assert process.wait(10) == 143
    process.stdout.close()


def test_logs_history_levels_and_filters(server: str) -> None:
    text = "\n".join(["DEBUG d", "INFO i", "WARN w", "ERROR e"] + [f"n {n}" for n in range(150)])
    invoke("ship", "lg-a", server=server, stdin=text)
    invoke("ship", "lg-b", server=server, stdin="INFO from b")

    def raw(*arguments: str) -> list[str]:
        done = invoke("logs", *arguments, "-o", "raw", server=server)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert raw("lg-a", "-l", "WARNING") == ["WARN w", "ERROR e"]
    assert raw("lg-a", "-n", "2") == ["n 148", "n 149"]
    assert len(raw("lg-a")) == 100 and len(raw("lg-a", "-n", "all")) == 154
    assert len(raw("lg-a", "--since", "1h")) == 154 and raw("lg-a", "-n", "0") == []
    assert raw("lg-*", "-n", "1") == ["INFO from b"] == raw("lg-b", "lg-x")
    assert raw("lg-a", "-g", r"14\d", "-v", "9$", "-n", "all") == [
        f"n {n}" for n in range(140, 149)
    ]
    assert raw("lg-none") == []


def test_logs_as_text(server: str) -> None:
    invoke("ship", "txt", "-F", "k=v", server=server, stdin="WARN careful")
    line = invoke("logs", "txt", server=server).stdout
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} warn  WARN careful k=v\n", line)
    assert "txt warn" in invoke("logs", "txt", "--prefix", server=server).stdout
    bare = invoke("logs", "txt", "--time", "none", server=server).stdout
    assert bare == "warn  WARN careful k=v\n"
    iso = invoke("logs", "txt", "--time", "iso", server=server).stdout.split()[0]
    assert datetime.fromisoformat(iso).tzinfo is not None
    wide = invoke("logs", "txt", server=server, env={"COLUMNS": "20"}).stdout
    assert wide == line, "a pipe is never wrapped"


def test_follow_gives_history_then_what_comes(server: str) -> None:
    invoke("ship", "fol", server=server, stdin="".join(f"old {n}\n" for n in range(20)))
    with Terminal("logs", "fol", "-f", "-n", "3", server=server) as terminal:
        terminal.wait_for("old 17", "old 18", "old 19")
        invoke("ship", "fol", server=server, stdin="new\n")
        terminal.wait_for("new")
        assert "old 16" not in terminal.text
        terminal.interrupt()
        assert terminal.wait() == 130


@pytest.mark.parametrize(
    ("output", "columns"), [("pretty", 80), ("pretty", 120), ("raw", 80), ("jsonl", 80)]
)
def test_hostile_lines_on_a_real_terminal(server: str, output: str, columns: int) -> None:
    """What reached the terminal holds our colours and nothing else that acts on it."""
    service = f"evil-{output}-{columns}"
    corpus = [line for line in hostile.CORPUS + hostile.lines(400) if "\n" not in line]
    text = "\n".join(corpus).encode("utf-8", "replace")
    assert invoke("ship", service, "-F", "k=\x1b[2J", server=server, stdin=text).returncode == 0
    line = ["logs", service, "-n", "all", "-o", output]
    with Terminal(*line, server=server, columns=columns, rows=40) as terminal:
        assert terminal.wait() == 0
        seen = terminal.raw.decode()
    if output == "pretty":
        assert "\x1b[" in seen, "there is colour"
        seen = re.sub("\x1b\\[[0-9;]*m", "", seen)
    assert not hostile.HARMFUL.search(seen.replace("\r\n", "\n"))
    assert "[/var/x] ordinary path" in seen and "[bold red]markup[/]" in seen


def test_no_colour_where_it_is_not_wanted(server: str) -> None:
    invoke("ship", "col", server=server, stdin="ERROR red\n")
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with Terminal("logs", "col", server=server, env=env) as terminal:
            assert terminal.wait() == 0
            assert b"\x1b" not in terminal.raw and b"ERROR red" in terminal.raw
    assert "\x1b" not in invoke("logs", "col", server=server).stdout
    assert "\x1b[" in invoke("logs", "col", server=server, env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b[" in invoke("logs", "col", "--color", "always", server=server).stdout


def test_an_output_that_is_not_utf8(server: str) -> None:
    invoke("ship", "enc", server=server, stdin="日本 ü\n")
    env = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = streamkit("logs", "enc", "-o", "raw", server=server, env=env)
    assert (done.returncode, done.stdout) == (0, "\\u65e5\\u672c \\xfc\n")


def test_standard_input_is_left_alone(server: str) -> None:
    """Inside a `while read` loop the commands must not eat the loop's lines."""
    invoke("publish", "loop", "x", server=server)
    script = (
        f"printf '1\\n2\\n3\\n' | while read n; do {' '.join(COMMAND)} logs loop-x; echo $n; done"
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment(server), check=True
    )
    assert done.stdout == "1\n2\n3\n"
    closed = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} subscribe loop --all -e -o raw <&-"],
        capture_output=True,
        text=True,
        env=environment(server),
        check=False,
    )
    assert (closed.returncode, closed.stdout) == (0, "x\n"), closed.stderr
