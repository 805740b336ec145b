"""A log that is rotated in every way at random, while what ships it and the server are killed."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cli.tools import COMMAND, ServerProcess, environment

MINUTES = 10.0
KEPT = 40


class Writer:
    """Writes numbered lines, now and then in halves, and rotates its own file."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path = path
        self.count = 0
        self.rotations: Counter[str] = Counter()
        self._chance = chance
        self._file = path.open("ab", buffering=0)

    def write(self) -> None:
        for _ in range(self._chance.choice((1, 10, 200))):
            line = b"%08d %s\n" % (self.count, b"x" * self._chance.randrange(150))
            self.count += 1
            if self._chance.random() < 0.01:
                cut = self._chance.randrange(len(line))
                self._file.write(line[:cut])
                time.sleep(0.01)
                line = line[cut:]
            self._file.write(line)

    def rotate(self) -> None:
        if os.fstat(self._file.fileno()).st_ino != self.path.stat().st_ino:
            return self.reopen()
        for number in range(KEPT, 0, -1):
            if (old := self._numbered(number)).exists():
                old.rename(self._numbered(number + 1))
        kind = self._chance.choice(("rename", "late", "copy"))
        self.rotations[kind] += 1
        if kind == "copy":
            shutil.copyfile(self.path, self._numbered(1))
            os.truncate(self.path, 0)
            return None
        self.path.rename(self._numbered(1))
        self.path.touch()
        return self.reopen() if kind == "rename" else None

    def close(self) -> None:
        self._file.close()

    def reopen(self) -> None:
        self._file.close()
        self._file = self.path.open("ab", buffering=0)

    def _numbered(self, number: int) -> Path:
        return Path(f"{self.path}.{number}")


@pytest.mark.soak
def test_nothing_is_lost_and_nothing_comes_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", time.time()))
    chance = random.Random(seed)
    store, log = tmp_path / "store.db", tmp_path / "app.log"
    writer = Writer(log, chance)
    server = ServerProcess(store)
    port = server.port
    said = (tmp_path / "said").open("wb")

    def ship() -> subprocess.Popen[bytes]:
        line = [*COMMAND, "ship", "rotated", str(log), "-f", "-q", "-s", f"localhost:{port}"]
        return subprocess.Popen(line, env=environment(), stderr=said)

    def stored() -> list[str]:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT message FROM logs WHERE service = 'rotated'").fetchall()
        database.close()
        return [message for (message,) in rows]

    writer.write()
    shipping, kills = ship(), Counter[str]()
    while not stored():
        time.sleep(0.1)  # what was rotated away before it began is not its own
    end = time.monotonic() + 60 * float(os.environ.get("MINUTES", MINUTES))
    down_until = 0.0
    while time.monotonic() < end:
        writer.write()
        time.sleep(chance.choice((0.0, 0.01, 0.05)))
        if chance.random() < 0.02:
            writer.rotate()
        if chance.random() < 0.002:
            kills["ship"] += 1
            shipping.kill()
            shipping.wait()
            shipping = ship()
        if down_until and time.monotonic() > down_until:
            server, down_until = ServerProcess(store, port=port), 0.0
        elif not down_until and chance.random() < 0.001:
            kills["server"] += 1
            server.kill()
            down_until = time.monotonic() + chance.choice((0.1, 3.0, 10.0))
    writer.close()
    if down_until:
        server = ServerProcess(store, port=port)
    deadline = time.monotonic() + 120
    while len(set(stored())) < writer.count and time.monotonic() < deadline:
        time.sleep(0.5)
    shipping.kill()
    shipping.wait()
    server.stop()
    said.close()
    told = (tmp_path / "said").read_text().splitlines()
    lost_told = [line for line in told if "lost" in line and "connection" not in line]
    messages = stored()
    numbers = Counter(message[:8] for message in messages)
    lost = [n for n in range(writer.count) if f"{n:08d}" not in numbers]
    twice = [number for number, count in numbers.items() if count > 1]
    torn = [message for message in messages if len(message) < 9 or message[8] != " "]
    print(
        f"seed {seed}: {writer.count} lines, {dict(writer.rotations)}, killed {dict(kills)}: "
        f"lost {len(lost)} (told {len(lost_told)}), twice {len(twice)}, torn {len(torn)}"
    )
    assert "Traceback" not in "".join(told)
    assert not twice and not torn
    assert not lost or lost_told, lost[:20]
