"""Who has logged in on the page: in memory, bounded, forgotten when the server ends."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from streamkit.config import DoorLimits

__all__ = ["Session", "Sessions"]


@dataclass(frozen=True, slots=True)
class Session:
    """One login. A token is sent on with every call, and decided about like any other."""

    until: float
    token: str = field(default="", repr=False)


class Sessions:
    """Codes that open one session each, and the sessions by their cookies."""

    def __init__(self, limits: DoorLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._codes: OrderedDict[str, float] = OrderedDict()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

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
        self._sessions[cookie] = Session(self._clock() + self._limits.session_seconds, token)
        while len(self._sessions) > self._limits.sessions:
            self._sessions.popitem(last=False)
        return cookie

    def find(self, cookie: str) -> Session | None:
        """Return the session of a cookie, while it holds."""
        session = self._sessions.get(cookie)
        if session is not None and self._clock() >= session.until:
            del self._sessions[cookie]
            return None
        return session

    def close(self, cookie: str) -> None:
        """Forget a session."""
        self._sessions.pop(cookie, None)
