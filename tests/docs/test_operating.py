"""The page about operating a server: its commands, in its order, and its table of roles."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from streamkit.access.rules import parse_rules
from streamkit.cli.input.retention import retention_rule
from streamkit.rights import Action

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operating.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


LONGEST = 110.0
"""Seconds for the whole page, which takes 15 to 40."""


def free_ports(count: int) -> list[int]:
    """Free ports that no connection gets by itself: the script makes some before it listens."""
    taken = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(taken.read_text().split()[0]) if taken.exists() else 32768
    with ExitStack() as probes:
        found: list[int] = []
        for port in random.sample(range(first - 8000, first), 200):
            probe = probes.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise AssertionError("no free port")


def run_script(script: str, folder: Path, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run it, and end with it whatever it has started: what a script leaves in the background
    would keep its output open. One that fails or hangs says at which command."""
    said, told, trace = (folder / name for name in (".stdout", ".stderr", ".trace"))
    with said.open("w") as out, told.open("w") as err, trace.open("w") as traced:
        process = subprocess.Popen(
            ["bash", "-m", "-c", f"BASH_XTRACEFD={traced.fileno()}; set -ex\n{script}"],
            cwd=folder,
            env={
                key: value for key, value in os.environ.items() if not key.startswith("STREAMKIT_")
            }
            | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
            | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=[traced.fileno()],
            start_new_session=True,
        )
        try:
            code: int | str = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = f"nothing within {seconds:g} s"
        finally:
            for pid in of_session(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
    commands = "".join(trace.read_text().splitlines(keepends=True)[-5:])
    shown = said.read_text(), told.read_text()
    assert code == 0, f"{code} at the last of\n{commands}\n{shown[0]}\n{shown[1]}"
    return subprocess.CompletedProcess(script, code, *shown)


def of_session(leader: int) -> list[int]:
    """The processes of a session, in whichever group a shell has put them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                found.append(int(process.name))
    return found


@pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("curl")), reason="the page uses openssl and curl"
)
@pytest.mark.timeout(120)
def test_the_page_works_word_by_word(tmp_path: Path) -> None:
    port, figures, many = free_ports(3)
    # The test keeps to the loopback; the rule for other addresses is the same without it.
    script = "\n".join(blocks("sh"))
    script = script.replace("--host 0.0.0.0", f"--host 127.0.0.1 --port {port}")
    script = script.replace("localhost:50051", f"localhost:{port}")
    script = script.replace("127.0.0.1:9464", f"127.0.0.1:{figures}")
    script = script.replace("50052", str(many))
    done = run_script(script, tmp_path, LONGEST)
    said = done.stdout
    assert "serving" in said
    assert "refused, as it should be" in said and "revoked" in said
    assert "not allowed to publish to 'stock.eu'" in done.stderr
    assert re.search(r"orders\.eu\W+17", said)
    assert '"identity": "token:ann"' in said or '"identity": "token:till-7"' in said
    assert re.search(r"^streamkit_store_bytes \d", said, re.MULTILINE)
    assert re.search(r'^stock = |stock = \{ env = "STOCK_URL" \}', said, re.MULTILINE)
    assert "there already" in said
    with closing(sqlite3.connect(tmp_path / "restored.db")) as restored:
        found = restored.execute("select message from updates where topic = 'orders.eu'")
        assert found.fetchall() == [("17",)]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("last", "told"), [("false", "1 at"), ("sleep 999", "nothing within")])
def test_a_page_that_fails_or_hangs_is_ended_and_says_where(
    tmp_path: Path, last: str, told: str
) -> None:
    with pytest.raises(AssertionError, match=rf"{told}(.|\n)*\+ {last}"):
        run_script(f"sleep 1000 &\n{last}", tmp_path, 0.5)


def test_the_other_proofs_are_as_the_file_takes_them() -> None:
    [written] = [block for block in blocks("toml") if "[[certificate]]" in block]
    roles = '[role.till]\npublish = ["orders.*"]\n'
    rules = parse_rules(written + roles)
    assert rules.certificates and rules.peers and rules.jwt is not None


def test_the_rules_of_retention_are_as_the_file_takes_them() -> None:
    [written] = [block for block in blocks("toml") if "[[serve.retention]]" in block]
    tables = tomllib.loads(written)["serve"]["retention"]
    rules = [retention_rule(",".join(f"{key}={value}" for key, value in t.items())) for t in tables]
    assert [rule.pattern for rule in rules] == ["metrics.>", "prices.*"]


def test_the_table_names_every_action() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `") and " | " in line]
    named = {word for row in rows for word in re.findall(r"`(\w+)", row.split(" | ")[0])}
    assert {action.value for action in Action} <= named
