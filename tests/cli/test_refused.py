"""A server that lets nobody in: one line, and the exit code that says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from streamkit.errors import AuthError
from streamkit.testing import serve
from streamkit.transport import Context
from tests.cli.tools import invoke


async def refuse(context: Context, call_next: Callable[[Context], Awaitable[None]]) -> None:
    if context.metadata.get("authorization") is None:
        raise AuthError("show your [bold]token[/bold]")
    await call_next(context)


@pytest.fixture
async def guarded() -> AsyncIterator[str]:
    async with serve(interceptors=[refuse]) as address:
        yield address


@pytest.mark.parametrize(
    "arguments",
    [
        ["publish", "t", "m"],
        ["subscribe", "t"],
        ["query", "SELECT 1"],
        ["jobs"],
        ["cancel", "j"],
        ["watch-job", "j"],
        ["logs", "s", "-f"],
        ["tables"],
        ["status"],
    ],
    ids=lambda arguments: arguments[0],
)
async def test_who_is_not_allowed_is_told_so(guarded: str, arguments: list[str]) -> None:
    done = await asyncio.to_thread(invoke, *arguments, server=guarded)
    assert (done.returncode, done.stdout) == (4, "")
    (line,) = done.stderr.splitlines()
    assert "show your [bold]token[/bold]" in line
