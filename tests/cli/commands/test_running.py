"""top, kick, health: what runs, an end to it, and whether anything serves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cli.tools import COMMAND, ServerProcess, environment, invoke, wait_for

Start = Callable[..., ServerProcess]


def test_a_call_is_seen_and_ended_for_good(start_server: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = start_server(tmp_path / "x.db", "--access-log", str(log), "--log-format", "json")
    subscriber = subprocess.Popen(
        [*COMMAND, "subscribe", "orders.>", "-s", server.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )

    def running() -> list[dict[str, object]]:
        shown = invoke("top", "--once", "--every", "0.1s", "-o", "jsonl", server=server.address)
        rows = [json.loads(line) for line in shown.stdout.splitlines()]
        return [row for row in rows if row["resource"] == "orders.>"]

    wait_for(lambda: bool(running()))
    [row] = running()
    assert row["method"] == "/streamservice.StreamService/SubscribeToUpdates"
    assert row["lag"] == 0 and str(row["peer"]).startswith("ipv4:127.0.0.1:")
    table = invoke("top", "--once", "--every", "0.1s", server=server.address).stdout
    assert table.splitlines()[0].split()[:3] == ["id", "identity", "peer"]
    assert "SubscribeToUpdates" in table
    kicked = invoke("kick", str(row["id"]), "--reason", "enough", server=server.address)
    assert kicked.returncode == 0 and "ended call" in kicked.stderr
    _, said = subscriber.communicate(timeout=30)
    assert subscriber.returncode == 3 and "an administrator ended the call: enough" in said
    assert invoke("kick", str(row["id"]), server=server.address).returncode == 5
    assert server.stop() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    [line] = [line for line in lines if line["resource"] == "orders.>"]
    assert (line["reason"], line["status"]) == ("kicked", "UNAVAILABLE")


def test_health_is_an_exit_code(server: str, nowhere: str) -> None:
    assert invoke("health", server=server).stdout == "serving\n"
    of_one = invoke("health", "streamservice.StreamService", server=server)
    assert (of_one.returncode, of_one.stdout) == (0, "serving\n")
    unknown = invoke("health", "nothing", server=server)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert invoke("health", server=nowhere).returncode == 3
