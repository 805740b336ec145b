"""What identities, roles, the access log and the figures cost: the same work without them.

    python -m bench access

Both servers run at the same time and take turns, in many short rounds, so both see the same
machine. What is compared is the processor time of the server for a message, in the quicker half of
the rounds: all else depends on who else is at work.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from streamkit.access.file import add_token
from streamkit.client import AsyncClient
from streamkit.transport import run as run_loop

__all__ = ["run"]

Row = dict[str, Any]
ROUNDS = 30
MESSAGES = 12_000
READ = 36_000
CALLS = 300
FLOOR = 0.97  # at most 3 % of the messages a second


class Server:
    """`streamkit serve` as a process."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "streamkit", "serve", "--port", "0",
                "--store", str(folder / "store.db"), *options,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        self.address = ""
        for line in self.process.stderr:
            if " serves on " in line:
                self.address = line.split()[-1]
            if line.startswith("next"):
                break

    def seconds(self) -> float:
        """Processor time of all its threads so far; clock ticks would be too coarse."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


async def publish(client: AsyncClient) -> int:
    async with client.publisher() as publisher:
        for number in range(MESSAGES):
            if not publisher.try_send(f"orders.{number % 50}", "x" * 80):
                await publisher.flush()
                publisher.try_send(f"orders.{number % 50}", "x" * 80)
    return MESSAGES


async def subscribe(client: AsyncClient) -> int:
    from streamkit.client import last

    seen = 0
    async with client.subscribe("orders.>", start=last(READ)) as updates:
        while seen < READ:
            seen += len(await updates.receive())
    return seen


async def call(client: AsyncClient) -> int:
    for _ in range(CALLS):
        await client.publish("orders.one", "x" * 80)
    return CALLS


WORK: dict[str, Callable[[AsyncClient], Awaitable[int]]] = {
    "published by a pipeline": publish,
    "read by a subscriber": subscribe,
    "single calls": call,
}


def quick_half(rounds: list[float]) -> float:
    """The mean of the rounds that nobody disturbed."""
    return statistics.fmean(sorted(rounds)[: len(rounds) // 2])


def run() -> list[Row]:
    """Measure everything and return the rows of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "on").mkdir()
        (folder / "off").mkdir()
        file = folder / "access.toml"
        file.write_text('[role.shop]\npublish = ["orders.*"]\nsubscribe = ["orders.>"]\n')
        file.chmod(0o600)
        token = add_token(file, "shop", ["shop"])
        log = str(folder / "access.log")
        servers = {
            True: Server(
                folder / "on",
                *("--access", str(file), "--access-log", log, "--metrics", "127.0.0.1:0"),
            ),
            False: Server(folder / "off"),
        }
        try:
            return run_loop(measure(servers, token))
        finally:
            for server in servers.values():
                server.stop()


async def measure(
    servers: dict[bool, Server],
    token: str | None,
    what: str = "access, log and figures",
    floor: float = FLOOR,
) -> list[Row]:
    """Both servers in turns; what is on in the first is off in the second."""
    spent: dict[str, dict[bool, list[float]]] = {name: {True: [], False: []} for name in WORK}
    async with (
        AsyncClient(servers[True].address, token=token) as with_access,
        AsyncClient(servers[False].address) as without,
    ):
        clients = {True: with_access, False: without}
        for client in clients.values():
            for _ in range(READ // MESSAGES):
                await publish(client)
        for turn in range(ROUNDS + 1):
            for name, work in WORK.items():
                for on in (True, False) if turn % 2 else (False, True):
                    began = servers[on].seconds()
                    count = await work(clients[on])
                    await asyncio.sleep(0.05)  # what is still being written
                    if turn:  # the first round warms up
                        spent[name][on].append((servers[on].seconds() - began) / count)
    rows = []
    for name, both in spent.items():
        ours, peer = (1e6 * quick_half(both[which]) for which in (True, False))
        rows.append(
            {
                "name": f"{what} on, {name}",
                "unit": "us of server time each",
                "ours": ours,
                "peer": "off",
                "peer_figure": peer,
                "ratio": peer / ours,
                "floor": floor if name != "single calls" else None,
            }
        )
    return rows
