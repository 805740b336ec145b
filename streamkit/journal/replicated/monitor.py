"""Whether NATS servers sync before they acknowledge. Only their monitoring port tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from streamkit.errors import StoreError

__all__ = ["check_synced"]

_SECONDS = 3.0
_MOST = 1024 * 1024
_HINT = "set `sync_interval: always` in their configuration, or say ?sync=lazy if that may be"


async def check_synced(servers: Sequence[str], port: int) -> None:
    """Raise StoreError if one of the servers does not sync always, or none tells."""
    hosts = [urlsplit(server).hostname or "127.0.0.1" for server in servers]
    told = await asyncio.gather(*(_settings(host, port) for host in dict.fromkeys(hosts)))
    known = [settings for settings in told if settings is not None]
    if not known:
        raise StoreError(
            f"no NATS server tells at port {port} whether it syncs before it acknowledges",
            hint="give the port of their `http:` as ?monitor=PORT, or say ?sync=lazy",
        )
    for settings in known:
        config = (settings.get("jetstream") or {}).get("config") or {}
        if not config:
            raise StoreError(
                f"JetStream is off on the NATS server {settings.get('server_name', '')}",
                hint="switch it on: `jetstream { store_dir: ... }` in its configuration",
            )
        if not config.get("sync_always"):
            raise StoreError(
                f"the NATS server {settings.get('server_name', '')} acknowledges before it syncs:"
                " acknowledged writes would be lost with the power",
                hint=_HINT,
            )


async def _settings(host: str, port: int) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /varz HTTP/1.0\r\nHost: nats\r\n\r\n")
                answer = await reader.read(_MOST)
                while more := await reader.read(_MOST):
                    answer += more
                    if len(answer) > _MOST:
                        return None
            finally:
                writer.close()
        found = json.loads(answer.partition(b"\r\n\r\n")[2])
    except (OSError, TimeoutError, ValueError):
        return None
    return found if isinstance(found, dict) else None
