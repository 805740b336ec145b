"""A server process: `python -m tests.proof.serving SETTINGS` prints its address and serves."""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

from streamkit.config import JournalOptions, Retention, TransportLimits
from streamkit.errors import StreamkitError
from streamkit.process import dedicate_process
from streamkit.server import Server
from streamkit.transport.loop import run
from tests.proof.processes import die_with_parent


async def main(settings: dict[str, Any]) -> None:
    options = JournalOptions(
        durability=settings.get("durability", "normal"),
        ring_records=settings.get("ring_records", 65_536),
        retention=Retention(max_age=0.0, max_bytes=settings.get("max_bytes", 0)),
    )
    limits = TransportLimits(stall_timeout=settings.get("stall_timeout", 30.0))
    async with Server(
        journal=settings["store"],
        data=settings.get("data", ""),
        port=settings.get("port", 0),
        journal_options=options,
        limits=limits,
    ) as server:
        print(json.dumps(server.address), flush=True)
        await server.serve()


if __name__ == "__main__":
    die_with_parent()
    given = json.loads(sys.argv[1])
    if "file_bytes" in given:  # as on a disk of that size
        resource.setrlimit(resource.RLIMIT_FSIZE, (given["file_bytes"], given["file_bytes"]))
    dedicate_process()  # as `streamkit serve` and `Server.run` do
    try:
        run(main(given))
    except StreamkitError as error:
        print(error, file=sys.stderr)
        raise SystemExit(3) from None
