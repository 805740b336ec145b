"""What holds for every command: exit codes, one-line errors, standard output is data."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from functools import partial

import pytest

from streamkit.cli.exits import one_line
from streamkit.cli.session import Session
from streamkit.client import ClientEvent
from streamkit.errors import ConnectError
from tests.cli.tools import COMMAND, ServerProcess, Terminal, environment, invoke, wait_for

CONNECTING = [
    ["publish", "a", "x"],
    ["subscribe", "a"],
    ["query", "SELECT 1"],
    ["watch-job", "x"],
    ["jobs"],
    ["cancel", "x"],
    ["logs"],
    ["tables"],
    ["schema", "x"],
    ["status"],
]


@pytest.mark.parametrize("arguments", CONNECTING, ids=lambda a: a[0])
def test_no_server(arguments: list[str], nowhere: str) -> None:
    done = invoke(*arguments, server=nowhere)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and nowhere in done.stderr
    assert "streamkit serve" in done.stderr, "what to do"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Usage"),
        (["nonsense"], 2, "nonsense"),
        (["logs", "--nonsense"], 2, "--nonsense"),
        (["logs", "-l", "loud"], 2, "debug, info, warn or error"),
        (["logs", "-n", "-5"], 2, "--last"),
        (["logs", "-n", "x"], 2, "--last"),
        (["logs", "-g", "("], 2, "regular expression"),
        (["logs", "--since", "soon"], 2, "--since"),
        (["logs", "-o", "xml"], 2, "pretty, raw, json, jsonl"),
        (["logs", "--color", "red"], 2, "auto, always or never"),
        (["subscribe"], 2, "TOPIC"),
        (["subscribe", "a", "--all", "--new"], 2, "one of"),
        (["subscribe", "a..b"], 2, "topic"),
        (["subscribe", "a", "-e"], 2, "--exit"),
        (["query", "SELECT 1", "--batch", "-1"], 2, "batch"),
        (["query"], 2, "one statement"),
        (["query", "SELECT 1", "-o", "xml"], 2, "not one of"),
        (["query", "SELECT 1", "-p", "x"], 2, "key=value"),
        (["query", "SELEC 1"], 1, "syntax error"),
        (["query", "SELECT 1; SELECT 2"], 1, "statement"),
        (["query", "DELETE FROM logs"], 1, ""),
        (["query", "SELECT 1", "--database", "nothing"], 5, "nothing"),
        (["watch-job"], 2, "--newest"),
        (["watch-job", "nothing", "--wait", "0"], 5, "nothing"),
        (["cancel", "nothing"], 5, "nothing"),
        (["jobs", "--status", "odd"], 2, "odd"),
        (["schema", "nothing"], 5, "nothing"),
        (["ship", "x", "/no/such/file"], 2, "/no/such/file"),
        (["ship", "x", "-f"], 2, "FILE"),
        (["publish", "a.*", "x"], 2, "topic"),
        (["publish", "", "x"], 2, "topic"),
        (["publish", "a", "x", "-H", "nothing"], 2, "key=value"),
        (["logs", "--connect-timeout", "x"], 2, "--connect-timeout"),
        (["status", "--cert", "/nothing"], 1, "key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input(server: str, arguments: list[str], code: int, said: str) -> None:
    done = invoke(*arguments, server=server)
    assert done.returncode == code, done.stderr
    assert said.lower() in (done.stderr + done.stdout).lower()
    if arguments:
        assert done.stderr.count("\n") <= 2 and done.stdout == ""


def test_options_in_any_order(server: str, nowhere: str) -> None:
    """-s before and after the command; the nearest one wins; then the environment."""
    for line in (
        ["-s", server, "status"],
        ["status", "-s", server],
        ["-s", nowhere, "status", "--server", server],
    ):
        assert invoke(*line, server=nowhere).returncode == 0
    assert invoke("publish", "-H", "k=v", "order.test", "-q", "x", server=server).stdout == ""
    assert invoke("publish", "order.test", "x", "-s", server, "--header", "k=v").returncode == 0


def test_the_traceback_is_for_those_who_ask(nowhere: str) -> None:
    shown = subprocess.run(
        [*COMMAND, "status", "--debug", "-s", nowhere],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert shown.returncode == 3 and "Traceback" in shown.stderr


def test_head_ends_a_stream_without_a_word(server: str) -> None:
    """The reader goes away while a long result is written, and while nothing comes at all."""
    items = "SELECT a.* FROM items a, items b LIMIT 2000000"
    for line in (
        f"query -d shop '{items}' -o csv | head -2",
        "logs -f | true",
        "subscribe quiet.topic | true",
        "subscribe quiet.topic -o jsonl | true",
        "--help | true",
    ):
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {' '.join(COMMAND)} {line}"],
            capture_output=True,
            text=True,
            timeout=30,
            env=environment(server),
            check=False,
        )
        assert done.stderr == "", line
        assert done.returncode in (0, 1) if "help" in line else done.returncode == 0, line


def test_interrupted(server: str) -> None:
    """Ctrl-C ends quickly, with 130, and the terminal is left as it was."""
    for line, stream in ((["logs", "-f"], "logs"), (["subscribe", "quiet.topic"], "updates")):
        with Terminal(*line, server=server) as terminal:
            wait_for(partial(subscribed, server, stream))
            terminal.interrupt()
            assert terminal.wait(5) == 130
            assert "Traceback" not in terminal.text


def subscribed(server: str, stream: str) -> bool:
    status = json.loads(invoke("status", "-o", "json", server=server).stdout)
    return any(s["subscribers"] == 1 for s in status["streams"] if s["name"] == stream)


def test_terminated(server: str) -> None:
    process = subprocess.Popen(
        [*COMMAND, "logs", "-f"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(server),
    )
    wait_for(partial(subscribed, server, "logs"))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 143 and said == b""


def test_a_stream_survives_the_server(start_server: Callable[..., ServerProcess]) -> None:
    """The reader is told on standard error, one line for each end, and gets everything, once."""
    first = start_server()
    invoke("publish", "t", "one", server=first.address)
    with Terminal("subscribe", "t", "--all", server=first.address) as terminal:
        terminal.wait_for("one")
        first.kill()
        terminal.wait_for("reconnecting in")
        second = start_server(port=first.port)
        invoke("publish", "t", "two", server=second.address)
        terminal.wait_for("t two")
        terminal.interrupt()
        assert terminal.wait() == 130
        assert terminal.text.count("one") == 1 and terminal.text.count("t two") == 1
        assert terminal.text.count("reconnecting") == terminal.text.count("connected again") == 1


def test_an_outage_is_one_line_and_its_end_another(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(server="there:1")
    error = ConnectError("the connection was lost: reset", hint="none of this line's business")
    for _ in range(3):  # attempts, of two streams each
        for stream in ("updates", "logs"):
            session._on_event(ClientEvent("lost", stream, error=error))
            session._on_event(ClientEvent("reconnecting", stream, delay=1.5))
    session._on_event(ClientEvent("resumed", "updates"))
    session._on_event(ClientEvent("resumed", "logs"))
    session._on_event(ClientEvent("connected", "another"))
    away, back = capsys.readouterr().err.splitlines()
    assert away == "streamkit: connection lost (reset); reconnecting in 1.5s"
    assert back.startswith("streamkit: connected again after 0.")


def test_only_who_could_not_connect_is_told_to_start_a_server() -> None:
    away = ConnectError("cannot connect to there:1: Connection refused", hint="is it running?")
    assert "streamkit serve" in one_line(away, server="there:1")
    other = ConnectError("cannot connect to there:1: its certificate is not accepted: self-signed")
    assert one_line(other, server="there:1").endswith("; name who signed it with --ca FILE")
    lost = ConnectError("the connection was lost: Connection reset by peer")
    text = "there:1: the connection was lost: Connection reset by peer"
    assert one_line(lost, server="there:1") == text
