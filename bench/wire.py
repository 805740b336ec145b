"""The transport next to its peers: one stream, fan-out, latency, payloads, memory.

Server and client are processes of their own, started afresh for each figure. The peers (dependency
group "bench") are measured in the same run; those that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
ROUNDS = 2
PACED_ROUNDS = 7
PACED_MESSAGES = 600
MOST_IDLE = 10.1
"""KiB of a subscriber that waits."""

Row = dict[str, Any]


def run() -> list[Row]:
    """Measure everything and return the rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        os.environ["BENCH_SCHEMA"] = folder
        rows: list[Row] = []
        for part in (one_stream, to_grpcio, latency, payloads, fan_out, memory):
            rows += part()
            print(f"  {part.__name__} measured", file=sys.stderr, flush=True)
        return rows


def generate(folder: Path) -> None:
    """Compile the schema for google.protobuf, and for betterproto as it is installed."""
    plugin = Path(sys.executable).parent / "protoc-gen-python_betterproto"
    command = [
        "protoc",
        f"--proto_path={ROOT / 'schema'}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        f"--python_out={folder}",
        f"--plugin=protoc-gen-bp={plugin}",
        f"--bp_out={folder}",
        "stream_service.proto",
    ]
    if protoc.main(command):
        raise SystemExit("protoc failed")


# Processes --------------------------------------------------------------------------------------


class Server:
    """A running server program."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    @property
    def cpu(self) -> float:
        """CPU seconds that the process has used."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICK

    @property
    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE


@contextmanager
def serving(stack: str, *words: str) -> Iterator[Server]:
    """A server program of a stack, for the time of the block."""
    if stack == "connect":
        served = words[0] if words else "bench.stacks.connect:app"
        command = [str(Path(sys.executable).parent / "pyvoy"), served]
        command += ["--port", "0", "--log-level", "info", "--loop", "asyncio"]
    else:
        command = [sys.executable, "-m", f"bench.stacks.{stack}", "serve", *words]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if stack == "connect" else None,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = read_port(stack, process)
            if stack == "connect":  # it tells of calls that were left, and waits when nobody reads
                threading.Thread(target=process.stdout.read, daemon=True).start()
            yield Server(process, port)
        finally:
            if stack == "connect":
                process.terminate()
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def read_port(stack: str, process: subprocess.Popen[str]) -> int:
    """The port that a server announces."""
    assert process.stdout is not None
    for line in process.stdout:
        if stack != "connect":
            return int(line)
        if "listening" in line.lower():
            return int(line.rstrip().rstrip("/").rpartition(":")[2])
    raise SystemExit(f"{stack} did not start")


def measure(stack: str, task: str, server: Server, *numbers: int, plain: bool = False) -> Row:
    """The figures of a client program."""
    words = [str(server.port), *map(str, numbers or (0,)), *(["plain"] if plain else [])]
    done = subprocess.run(
        [sys.executable, "-m", f"bench.stacks.{stack}", "client", task, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    if done.returncode:
        raise SystemExit(f"{stack} {task} failed:\n{done.stderr[-3000:]}")
    found: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def with_connect() -> bool:
    return (
        importlib.util.find_spec("connectrpc") is not None
        and shutil.which("pyvoy", path=str(Path(sys.executable).parent)) is not None
    )


def row(
    name: str, unit: str, ours: float, peer: str, figure: float, floor: float, *, less: bool = False
) -> Row:
    """One comparison; `ratio` is how many times better ours is, `floor` what it has to be."""
    ratio = figure / ours if less else ours / figure
    return {
        "name": name,
        "unit": unit,
        "ours": round(ours, 2),
        "peer": peer,
        "peer_figure": round(figure, 2),
        "ratio": round(ratio, 3),
        "floor": floor,
    }


# Rows ---------------------------------------------------------------------------------------------


def rate(stack: str, task: str, client: str | None = None) -> tuple[float, float]:
    """What a client program gets from a fresh server: per second, and per CPU-second of whichever
    of the two processes uses more. The second is what a busy machine disturbs least."""
    with serving(stack) as server:
        before = server.cpu
        found = measure(client or stack, task, server)
        busier = max(server.cpu - before, float(found["cpu"]))
        return float(found["rate"]), float(found["messages"]) / busier


def best(contenders: dict[str, tuple[str, ...]]) -> dict[str, tuple[float, float]]:
    """The rates of all contenders, measured in turn so that a busy moment hits no single one."""
    figures = dict.fromkeys(contenders, (0.0, 0.0))
    for _ in range(ROUNDS):
        for name, how in contenders.items():
            wall, cpu = rate(*how)
            figures[name] = (max(figures[name][0], wall), max(figures[name][1], cpu))
    return figures


def compared(
    name: str, contenders: dict[str, tuple[str, ...]], floors: dict[str, float]
) -> list[Row]:
    """Rows of ours next to each other contender, by the clock and by CPU time."""
    figures = best(contenders)
    wall, cpu = figures.pop("ours")
    rows = [
        row(name, "messages/s", wall, peer, figure[0], floors.get(peer, 0))
        for peer, figure in figures.items()
    ]
    # Envoy works in processes of its own, which are not counted.
    rows += [
        row(f"{name}, by CPU", "messages/CPU-s, busier side", cpu, peer, figure[1], 0)
        for peer, figure in figures.items()
        if not peer.startswith("connectrpc")
    ]
    return rows


def one_stream() -> list[Row]:
    """One stream of Updates of 80 bytes, each stack to itself."""
    contenders: dict[str, tuple[str, ...]] = {
        "ours": ("ours", "count"),
        "grpc.aio": ("grpcio_aio", "count"),
        "grpcio": ("grpcio_sync", "count"),
        "grpcio, single-threaded": ("grpcio_sync", "single"),
        "grpclib + betterproto": ("grpclib_stock", "count"),
    }
    if with_connect():
        contenders["connectrpc, gRPC"] = ("connect", "count")
        contenders["connectrpc, Connect"] = ("connect", "count-connect")
    floors = {"grpc.aio": 15.0, "connectrpc, gRPC": 10.0, "connectrpc, Connect": 10.0}
    return compared("one stream of 80-byte Updates", contenders, floors)


def to_grpcio() -> list[Row]:
    """The unmodified grpcio client: from our server, from grpcio's two, and from one that only
    sends bytes prepared beforehand. That is the most this client takes, whatever serves it."""
    rows = []
    for task, label, floor in (
        ("count", "to a grpcio client", 4.0),
        ("single", "to a single-threaded grpcio client", 10.0),
    ):
        contenders: dict[str, tuple[str, ...]] = {
            "ours": ("ours", task, "grpcio_sync"),
            "grpcio server": ("grpcio_sync", task),
            "grpc.aio server": ("grpcio_aio", task, "grpcio_sync"),
            "bytes prepared beforehand": ("prepared", task, "grpcio_sync"),
        }
        rows += compared(label, contenders, {"grpcio server": floor, "grpc.aio server": floor})
    return rows


def latency() -> list[Row]:
    """One message every 5 ms, from the handler's clock to the reader's.

    All contenders in turn, in another order each round, and the median over the rounds of each
    one's figure: what else the machine does decides a single run's p99.
    """
    contenders: dict[str, tuple[str, ...]] = {
        "grpc.aio": ("grpcio_aio",),
        "asyncio": ("ours", "plain"),
    }
    if importlib.util.find_spec("uvloop") is not None:
        contenders["uvloop"] = ("ours",)
    runs: dict[str, list[Row]] = {name: [] for name in contenders}
    order = list(contenders)
    for _ in range(PACED_ROUNDS):
        for name in order:
            stack, *words = contenders[name]
            with serving(stack, *words) as server:
                runs[name].append(
                    measure(stack, "latency", server, PACED_MESSAGES, plain=bool(words))
                )
        order = order[1:] + order[:1]
    figures = {
        name: {what: statistics.median(run[what] for run in found) for what in ("p50", "p99")}
        for name, found in runs.items()
    }
    peer = figures.pop("grpc.aio")
    floors = {"asyncio": 1.0, "uvloop": 1 / 0.75}
    return [
        row(
            f"latency {what} at 5 ms pace, {loop}",
            "us",
            ours[what],
            "grpc.aio",
            peer[what],
            floors[loop],
            less=True,
        )
        for loop, ours in figures.items()
        for what in ("p50", "p99")
    ]


def payloads() -> list[Row]:
    """Messages of one mebibyte."""
    figures = best(
        {
            "ours": ("ours", "big"),
            "grpclib + betterproto": ("grpclib_stock", "big"),
            "grpc.aio": ("grpcio_aio", "big"),
            "grpcio": ("grpcio_sync", "big"),
        }
    )
    ours, _ = figures.pop("ours")
    floors = {"grpclib + betterproto": 3}
    return [
        row("1 MiB payloads", "MB/s", ours, peer, figure[0], floors.get(peer, 0))
        for peer, figure in figures.items()
    ]


def fan_out() -> list[Row]:
    """Bursts of encoded messages to 1,000 subscribers on 10 connections, again and again."""

    def deliveries(stack: str, messages: int, *burst: int) -> float:
        with serving(stack) as server:
            before = server.cpu
            found = measure("ours", "fan", server, 1000, messages, *burst)
            return float(found["deliveries"]) / (server.cpu - before)

    name = "fan-out to 1,000 subscribers"
    ours, peer = deliveries("ours", 5000), deliveries("grpcio_aio", 100)
    unit = "deliveries per CPU-second of the server"
    rows = [
        row(name, unit, ours, "the floor", 1_000_000, 1),
        row(name, unit, ours, "grpc.aio", peer, 0),
    ]
    for burst, messages in ((10, 2000), (1, 500)):
        single = deliveries("ours", messages, burst)
        rows.append(row(f"{name}, {burst} a wake-up", unit, single, "grpc.aio", peer, 0))
    return rows


def memory(*, peer: bool = True) -> list[Row]:
    """10,000 idle subscribers on one server, 100 on each connection."""

    def each(stack: str, subscribers: int) -> float:
        with serving(stack) as server:
            measure_idle(server, 100)  # what the first ones load is not theirs
            before = server.memory
            return (measure_idle(server, subscribers) - before) / subscribers / 1024

    def measure_idle(server: Server, subscribers: int) -> int:
        command = [sys.executable, "-m", "bench.stacks.ours", "client", "idle"]
        with subprocess.Popen(
            [*command, str(server.port), str(subscribers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if not process.stdout.readline():
                raise SystemExit("the idle subscribers failed")
            found = server.memory
            process.stdin.close()
            process.wait(60)
            return found

    name, unit = "memory of an idle subscriber, of 10,000", "KiB"
    ours = each("ours", 10_000)
    rows = [row(name, unit, ours, "the most", MOST_IDLE, 1, less=True)]
    if peer:
        # grpc.aio cancels some of 10,000 streams that come at once.
        theirs = each("grpcio_aio", 1000)
        rows.append(row(name, unit, ours, "grpc.aio, of 1,000", theirs, 0, less=True))
    return rows
