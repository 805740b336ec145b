"""doctor: each finding once, and what it says to do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamkit.access.file import add_token
from streamkit.cli import checks
from streamkit.cli.checks import Finding
from streamkit.config import Retention
from streamkit.generated.streamservice import ServerStatus
from streamkit.terms import VERSION
from tests.cli.tools import ServerProcess, invoke

GIB = 1 << 30


def status(**more: object) -> ServerStatus:
    given = {"version": VERSION, "epoch": "e1", "now": datetime.fromtimestamp(1000, UTC)} | more
    return ServerStatus(**given)  # type: ignore[arg-type]  # as each case has it


def of(found: list[Finding], check: str) -> Finding:
    [one] = [each for each in found if each.check == check]
    return one


@pytest.mark.parametrize(
    ("told", "epoch", "check", "state", "text"),
    [
        (status(), "e1", "version", "ok", "both sides"),
        (status(version="0.0.1"), "", "version", "warn", "the server has 0.0.1"),
        (status(), "", "clock", "ok", "agree"),
        (status(now=datetime.fromtimestamp(900, UTC)), "", "clock", "warn", "differ by 100 s"),
        (status(now=datetime.fromtimestamp(1100, UTC)), "", "clock", "warn", "differ by 99 s"),
        (status(faults=["the disk is full"]), "", "server", "fail", "the disk is full"),
        (status(draining=True), "", "server", "warn", "on its way down"),
        (status(connections=3), "", "server", "ok", "3 connections"),
        (status(), "e0", "epoch", "warn", "another one"),
    ],
)
def test_what_a_server_says(
    told: ServerStatus, epoch: str, check: str, state: str, text: str
) -> None:
    found = of(list(checks.of_status(told, 1000, 1001, epoch)), check)
    assert found.state == state and text in found.text
    assert state == "ok" or found.advice


@pytest.mark.parametrize(("days", "state"), [(-1, "fail"), (13, "warn"), (15, "ok")])
def test_a_certificate_ends(days: int, state: str) -> None:
    assert checks.of_certificate(time.time() + days * 86400, time.time()).state == state


def test_a_token_is_for_its_owner(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert checks.of_token(str(file)).state == "fail"
    file.write_text("sk_secret")
    file.chmod(0o644)
    found = checks.of_token(str(file))
    assert (found.state, found.advice) == ("warn", f"chmod 600 {file}")
    file.chmod(0o600)
    assert checks.of_token(str(file)).state == "ok"


def test_an_access_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    add_token(file, "ci", ["reader"], expires=time.time() + 100 * 86400)
    [found] = checks.of_access(str(file), time.time())
    assert found.state == "ok"
    add_token(file, "soon", ["reader"], expires=time.time() + 86400)
    [found] = checks.of_access(str(file), time.time())
    assert found.state == "warn" and found.text.endswith(": soon")
    file.chmod(0o644)
    [found] = checks.of_access(str(file), time.time())
    assert found.state == "fail" and "chmod 600" in found.advice


def test_a_store_is_looked_at(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    file = tmp_path / "store.db"
    assert "will be made" in checks.of_store(str(file)).text
    with closing(sqlite3.connect(file)) as opened, opened:
        opened.execute("create table some (a)")
        opened.executemany("insert into some values (?)", [("x" * 500,) for _ in range(2000)])
    assert checks.of_store(str(file)).text.endswith("is sound")
    data = bytearray(file.read_bytes())
    data[4096 * 3 : 4096 * 6] = b"\x7f" * 4096 * 3
    file.write_bytes(data)
    found = checks.of_store(str(file))
    assert found.state == "fail" and "restore" in found.advice


@pytest.mark.parametrize(
    ("make", "good", "bad"),
    [
        (lambda free: checks.of_disk("/", "/nothing", 2 * GIB, free), 3 * GIB, GIB),
        (lambda slow: checks.of_fsync("/", [slow] * 50), 0.001, 0.2),
        (checks.of_files, 65536, 1024),
        (checks.of_loop, True, False),
    ],
)
def test_a_machine_is_fit(make: Callable[[object], Finding], good: object, bad: object) -> None:
    assert make(good).state == "ok"
    found = make(bad)
    assert found.state == "warn" and found.advice


def test_a_disk_that_is_full_and_a_log_that_is_held(tmp_path: Path) -> None:
    assert checks.of_disk("/", "/nothing", 0, 1024).state == "fail"
    store = tmp_path / "x.db"
    assert checks.of_wal(str(store), Retention()).state == "ok"
    with (tmp_path / "x.db-wal").open("wb") as file:
        file.truncate(GIB)  # of holes
    found = checks.of_wal(str(store), Retention(max_bytes=64 * 1024 * 1024))
    assert found.state == "warn" and "streamkit top" in found.advice


def test_the_command_tells_and_ends_with_its_code(
    server: str, nowhere: str, tmp_path: Path
) -> None:
    file = tmp_path / "streamkit.toml"
    file.write_text(f'[serve]\nstore = "{tmp_path}/x.db"\n')
    good = invoke("doctor", "--config", str(file), server=server)
    assert good.returncode == 0 and "✓ version:" in good.stdout and "✓ clock:" in good.stdout
    bad = invoke("doctor", "--config", str(file), "-o", "json", server=nowhere)
    assert bad.returncode == 1
    found = {each["check"]: each for each in json.loads(bad.stdout)}
    assert found["server"]["state"] == "fail" and found["server"]["advice"]
    assert found["fsync"]["state"] in ("ok", "warn") and found["store"]["state"] == "ok"


def test_another_store_behind_the_same_address_is_noticed(tmp_path: Path) -> None:
    port = 0
    for store, text in (("one", "version"), ("two", "the store is another one")):
        process = ServerProcess(tmp_path / f"{store}.db", port=port)
        port = process.port
        try:
            assert text in invoke("doctor", server=process.address).stdout
        finally:
            process.stop()
