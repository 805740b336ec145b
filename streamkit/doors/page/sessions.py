"""Who has logged in on the page: in memory, bounded. Logins without a token, by the code that the
server printed, are written down beside the store, so that a page goes on when its server restarts;
those with a token are forgotten, as a token is nothing to write down."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

from streamkit.config import DoorLimits

__all__ = ["Logins", "OwnLogins", "Session", "Sessions"]

_MOST_BYTES = 1 << 20
"""Of the file; a thousand logins take a tenth."""


@dataclass(frozen=True, slots=True)
class Session:
    """One login. A token is sent on with every call, and decided about like any other."""

    until: float
    token: str = field(default="", repr=False)


class Sessions:
    """Codes that open one session each, and the sessions by their cookies."""

    def __init__(
        self, limits: DoorLimits, *, file: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        """`file` is where logins are written down, hashed; "" for nowhere."""
        self._limits = limits
        self._file = file
        self._clock = clock
        self._codes: OrderedDict[str, float] = OrderedDict()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        """By the hash of the cookie: what is written down opens nothing."""
        self._read()

    def new_code(self) -> str:
        """Return a code that opens a session once, for a while."""
        code = secrets.token_urlsafe(24)
        self._codes[code] = self._clock() + self._limits.code_seconds
        while len(self._codes) > self._limits.sessions:
            self._codes.popitem(last=False)
        return code

    def redeem(self, code: str) -> str | None:
        """Return the cookie of a new session; None for a code that is used, late or none."""
        until = self._codes.pop(code, None)
        return self.open("") if until is not None and self._clock() < until else None

    def open(self, token: str) -> str:
        """Return the cookie of a new session."""
        cookie = secrets.token_urlsafe(32)
        self._sessions[_hashed(cookie)] = Session(
            self._clock() + self._limits.session_seconds, token
        )
        while len(self._sessions) > self._limits.sessions:
            self._sessions.popitem(last=False)
        self._write()
        return cookie

    def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie, while it holds."""
        key = _hashed(cookie)
        session = self._sessions.get(key)
        if session is not None and self._clock() >= session.until:
            del self._sessions[key]
            return None
        return session

    def close(self, cookie: str) -> None:
        """Forget a session."""
        if self._sessions.pop(_hashed(cookie), None) is not None:
            self._write()

    def _read(self) -> None:
        """Take up what an earlier life of the server has written; what cannot be read is none."""
        with suppress(OSError, ValueError, RecursionError):  # then all log in again
            if not self._file or os.path.getsize(self._file) > _MOST_BYTES:
                return
            with open(self._file, encoding="utf-8") as file:
                found = json.load(file)
            now, most = self._clock(), self._limits.session_seconds
            for key, until in found.items() if isinstance(found, dict) else ():
                if isinstance(until, int | float) and now < until <= now + most:
                    self._sessions[key] = Session(until)

    def _write(self) -> None:
        if not self._file:
            return
        kept = {key: one.until for key, one in self._sessions.items() if not one.token}
        fresh = f"{self._file}.new"
        with suppress(OSError):  # where nothing can be written, a login ends with the server
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(kept, file)
            os.replace(fresh, self._file)


class Logins(Protocol):
    """The sessions, wherever they are kept: another process may have them for several."""

    async def redeem(self, code: str) -> str | None: ...

    async def open(self, token: str) -> str: ...

    async def find(self, cookie: str) -> Session | None: ...

    async def close(self, cookie: str) -> None: ...


class OwnLogins:
    """Those of this process."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def redeem(self, code: str) -> str | None:
        return self._sessions.redeem(code)

    async def open(self, token: str) -> str:
        return self._sessions.open(token)

    async def find(self, cookie: str) -> Session | None:
        return self._sessions.find(cookie)

    async def close(self, cookie: str) -> None:
        self._sessions.close(cookie)


def _hashed(cookie: str) -> str:
    return sha256(cookie.encode()).hexdigest()
