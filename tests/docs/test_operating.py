"""The page about operating a server: its commands, in its order, and its table of roles."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from streamkit.access.rules import parse_rules
from streamkit.cli.input.retention import retention_rule
from streamkit.rights import Action

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operating.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("curl")), reason="the page uses openssl and curl"
)
@pytest.mark.timeout(300)
def test_the_page_works_word_by_word(tmp_path: Path) -> None:
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(3)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        port, figures, many = (probe.getsockname()[1] for probe in sockets)
    # The test keeps to the loopback; the rule for other addresses is the same without it.
    script = "set -e\n" + "\n".join(blocks("sh"))
    script = script.replace("--host 0.0.0.0", f"--host 127.0.0.1 --port {port}")
    script = script.replace("localhost:50051", f"localhost:{port}")
    script = script.replace("127.0.0.1:9464", f"127.0.0.1:{figures}")
    script = script.replace("50052", str(many))
    unset = ("STREAMKIT_SERVER", "STREAMKIT_TOKEN", "STREAMKIT_ACCESS", "STREAMKIT_CONTEXT")
    done = subprocess.run(
        ["bash", "-m", "-c", script],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key not in unset}
        | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
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
