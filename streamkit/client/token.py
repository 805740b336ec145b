"""The token that a client shows with each of its calls, and where it may be shown."""

from __future__ import annotations

import inspect
import ipaddress
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamkit.errors import ConnectError, InvalidArgumentError, PreconditionError, StreamkitError

if TYPE_CHECKING:
    from streamkit.transport import ClientCall

__all__ = ["Token", "TokenSource", "token_file", "token_of"]

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A token, or a function, also a coroutine function, that gets one; asked anew for every call."""

_SENDABLE = re.compile(r"[!-~]+")
_LARGEST = 64 * 1024
_FRESH = 10.0
"""Seconds after a change of the token in which a refused call may have shown the one before."""


def token_of(
    source: TokenSource | None, address: str, *, encrypted: bool, insecure: bool
) -> Token | None:
    """The token of a client: the one given, else that of $STREAMKIT_TOKEN, else none."""
    if source is None:
        source = os.environ.get("STREAMKIT_TOKEN") or None
    if source is None:
        return None
    return Token(source, address, encrypted=encrypted, insecure=insecure)


def token_file(path: str | os.PathLike[str]) -> TokenSource:
    """The token in a file, which is read for every call: what replaces it serves the next one.

    The calls raise PreconditionError where the file cannot be read.
    """
    file = Path(path)

    def read() -> str:
        try:
            with file.open("rb") as opened:
                return opened.read(_LARGEST).decode("ascii", "replace").strip()
        except OSError as error:
            raise PreconditionError(f"cannot read the token in {file}: {error.strerror}") from None

    return read


class Token:
    """Adds a client's token to its calls: an interceptor. Its `repr` does not show the token.

    Raises PreconditionError for an address to which the token would go in the clear, unless
    `insecure` is said: anybody on the way could use it from then on.
    """

    __slots__ = ("_changed", "_last", "_source")

    def __init__(
        self, source: TokenSource, address: str, *, encrypted: bool, insecure: bool = False
    ) -> None:
        if not encrypted and not insecure:
            for each in map(str.strip, address.split(",")):
                if not _stays_here(each):
                    raise PreconditionError(
                        f"a token is not sent to {each} without TLS",
                        hint="connect with TLS (--tls, --ca), or say --insecure",
                    )
        if isinstance(source, str):
            _check(source)
        self._source = source
        self._last = ""
        self._changed = float("-inf")

    async def __call__(
        self, call: ClientCall[Any, Any], call_next: Callable[[], Awaitable[None]]
    ) -> None:
        call.metadata["authorization"] = f"Bearer {await self._get()}"
        await call_next()

    async def renewed(self) -> bool:
        """Whether a call that was refused just now may have shown a token that is out of date."""
        await self._get()
        return time.monotonic() - self._changed < _FRESH

    async def _get(self) -> str:
        source = self._source
        if isinstance(source, str):
            return source
        try:
            given = source()
            token = await given if inspect.isawaitable(given) else given
        except StreamkitError:
            raise
        except Exception as error:
            # Not "from error": what somebody else's code says may hold a secret.
            raise ConnectError(f"no token: {type(error).__name__}") from None
        _check(token)
        if token != self._last:
            if self._last:
                self._changed = time.monotonic()
            self._last = token
        return token


def _check(token: object) -> None:
    if not isinstance(token, str) or not _SENDABLE.fullmatch(token):
        raise InvalidArgumentError("a token is printable ASCII text without spaces")


def _stays_here(address: str) -> bool:
    """Whether what is sent to an address does not leave this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0] if ":" in address else address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
