"""What a large result costs in memory: the server and its readers, each a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.tools import COMMAND, environment
from tests.database.engines import Engine, generated
from tests.database.reading import BATCH

MIB = 1 << 20
SERVER_MAY_GROW = 64 * MIB
READER_MAY_GROW = 64 * MIB


class Cost(NamedTuple):
    """The most memory that the server had until the end of a read, and its reader."""

    server: int
    reader: int


class Reads:
    """Reads of generated results through a server, by processes of their own."""

    def __init__(self, kind: str, server: subprocess.Popen[str], folder: Path) -> None:
        assert server.stdout is not None
        self.kind = kind
        self._server = server
        self._address = server.stdout.readline().strip()
        self._file = folder / "result.csv"

    def read(self, reader: str, rows: int) -> Cost:
        """Have a process read so many rows and count them."""
        sql = generated(self.kind, rows)
        if reader == "client":
            command = [sys.executable, "-m", "tests.database.reading", self._address, sql]
        else:
            command = [*COMMAND, "query", "-d", "db", sql, "--batch", str(BATCH), "-q"]
            command += ["-o", "csv", "--out", str(self._file)]
        most, output = watched(command, self._address)
        if reader == "client":
            assert int(output) == rows
        else:
            assert lines(self._file) == rows + 1
            self._file.unlink()
        return Cost(high_water(self._server.pid), most)


@pytest.fixture
def reads(engine: Engine, tmp_path: Path) -> Iterator[Reads]:
    store = str(tmp_path / "events.db")
    command = [sys.executable, "-m", "tests.database.serving", store, engine.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield Reads(engine.kind, server, tmp_path)
        finally:
            server.terminate()
            assert server.wait(30) == 0


def high_water(pid: int) -> int:
    """The most memory that a process has had; 0 when it is gone."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def watched(command: list[str], server: str) -> tuple[int, str]:
    """Run a command to its end: the most memory that it had, and what it printed."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment(server)
    ) as process:
        most = 0
        while process.poll() is None:
            most = max(most, high_water(process.pid))
            time.sleep(0.02)
        assert process.stdout is not None
        assert process.returncode == 0
        return most, process.stdout.read()


def lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(MIB), b""))


def check_flat(reads: Reads, reader: str, few: int, many: int) -> None:
    """Ten times the rows and more make neither the server nor its reader larger."""
    before = reads.read(reader, few)
    began = time.monotonic()
    after = reads.read(reader, many)
    took = time.monotonic() - began
    server, client = after.server - before.server, after.reader - before.reader
    print(
        f"\n{reads.kind}, {reader}: {many} rows in {took:.0f} s,"
        f" server +{server / MIB:.1f} MiB, reader +{client / MIB:.1f} MiB"
        f" after {few} rows ({before.server / MIB:.0f} and {before.reader / MIB:.0f} MiB)"
    )
    assert server < SERVER_MAY_GROW
    assert client < READER_MAY_GROW


@pytest.mark.parametrize("engine", ["duckdb"], indirect=True)
def test_memory_of_server_and_reader_is_flat(reads: Reads) -> None:
    check_flat(reads, "client", 15_000, 150_000)


@pytest.mark.soak
@pytest.mark.parametrize("reader", ["client", "csv"])
def test_memory_is_flat_over_ten_million_rows_to_a_reader(reads: Reads, reader: str) -> None:
    check_flat(reads, reader, 500_000, 10_000_000)
