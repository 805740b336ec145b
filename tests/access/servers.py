"""A server with rules of access, and calls to it by somebody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from streamkit.access.rules import Rules, parse_rules
from streamkit.access.tokens import new_token, sha256_of
from streamkit.client import AsyncClient
from streamkit.testing import serve

ROLES = """
[role.shop]
subscribe = ["orders.>"]
publish = ["orders.eu.*"]
logs = ["api-*"]
write_logs = ["api-eu"]
jobs = ["build-*"]
report_jobs = ["build-1"]
cancel_jobs = ["build-1"]
query = ["shop"]
methods = ["/probe.Own/*"]

[role.silent]

[role.reports]
report_jobs = ["*"]

[role.cancels]
cancel_jobs = ["build-*"]
"""


def tokens_for(names: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, str], Rules]:
    """A token for each name, and rules in which it has these roles."""
    secrets = {name: new_token(name) for name in names}
    entries = [
        f'[[token]]\nid = "{name}"\nsha256 = "{sha256_of(secrets[name])}"\nroles = {list(roles)}\n'
        for name, roles in names.items()
    ]
    return secrets, parse_rules(ROLES + "".join(entries))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def client_of(address: str, token: str, **settings: Any) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address, metadata=bearer(token), **settings) as client:
        yield client


__all__ = ["ROLES", "bearer", "client_of", "serve", "tokens_for"]
