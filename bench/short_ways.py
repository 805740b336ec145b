"""What the transport's own short ways are worth: each with and without it, in turns.

`lead` lets a message that comes alone leave in its own turn of the loop. Receiving in place brings
large messages from the socket into their own memory; smaller ones come by the way also on a stream
that asks for it, which then must cost nothing.
"""

from __future__ import annotations

import os
import statistics

from bench.wire import PACED_MESSAGES, PACED_ROUNDS, Row, measure, row, serving

SIZES = ((1 << 10, 0.85), (1 << 16, 0.9), (1 << 20, 1.1), ((4 << 20) - 16, 1.1))
"""Of messages with their fields' tags, and what receiving in place must be worth for each; the
last is the largest that the limits let through."""
ROUNDS = 3


def lead() -> list[Row]:
    """One message every 5 ms, from the handler's clock to the reader's."""

    def p50(without: str) -> float:
        return float(_measured(without, "latency", PACED_MESSAGES)["p50"])

    runs = [[p50(each) for each in ("", "lead")] for _ in range(PACED_ROUNDS)]
    ours, other = (statistics.median(column) for column in zip(*runs, strict=True))
    name = "a message that leaves in its own turn, p50"
    return [row(name, "us", ours, "without lead", other, 0, less=True)]


def in_place() -> list[Row]:
    """A stream of ready messages, kept as they came: the client's CPU for each, and the rate."""
    rows = []
    for size, floor in SIZES:
        runs: dict[str, list[tuple[float, float]]] = {"": [], "in place": []}
        for _ in range(ROUNDS):
            for without, found in runs.items():
                figures = _measured(without, "kept", 0, size)
                spent = 1e6 * float(figures["cpu"]) / float(figures["messages"])
                found.append((spent, float(figures["rate"])))
        ours, other = (
            [statistics.median(column) for column in zip(*found, strict=True)]
            for found in runs.values()
        )
        name = f"{size / 1024:,.0f} KiB received in place"
        peer = "received by the way"
        rows.append(row(f"{name}, CPU", "us", ours[0], peer, other[0], floor, less=True))
        rows.append(row(name, "MB/s", ours[1], peer, other[1], 0))
    return rows


def _measured(without: str, task: str, *numbers: int) -> Row:
    os.environ["BENCH_WITHOUT"] = without
    try:
        with serving("ours") as server:
            return measure("ours", task, server, *numbers)
    finally:
        del os.environ["BENCH_WITHOUT"]


def run() -> list[Row]:
    """Measure everything and return the rows of the table."""
    return lead() + in_place()
