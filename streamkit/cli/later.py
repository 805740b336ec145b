"""What every command uses and `--help` does not: loaded when something of it is first asked for.

asyncio alone would be a fifth of what `streamkit --help` costs; json and socket a tenth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["asyncio", "json", "socket", "ssl", "tomllib"]

if TYPE_CHECKING:
    import asyncio
    import json
    import socket
    import ssl
    import tomllib
else:

    class _Later:
        """Stands for a module: its attributes are that module's."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            from importlib import import_module

            return getattr(import_module(self._name), name)

    asyncio, ssl, socket = _Later("asyncio"), _Later("ssl"), _Later("socket")
    json, tomllib = _Later("json"), _Later("tomllib")
