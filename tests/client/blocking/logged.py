"""What a server was told by handlers of `logging`."""

from __future__ import annotations

from streamkit.client.blocking.client import Client
from streamkit.generated.streamservice import LogEntry
from tests.client.servers import ThreadServer


def entries(server: ThreadServer, service: str) -> list[LogEntry]:
    with Client(server.address) as client:
        return list(client.logs(service, lines=100_000))
