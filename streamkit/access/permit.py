"""One admitted call: what its caller may do, message by message and again when rules change."""

from __future__ import annotations

import math
from typing import Any

from streamkit.access.quota import Usage
from streamkit.access.roles import Grants
from streamkit.errors import AuthError, LimitError, Status
from streamkit.methods import Method
from streamkit.rights import Action, Identity
from streamkit.terms import RECONNECT_HEADER
from streamkit.transport import Context

__all__ = ["Permit"]

_DOING = {
    Action.SUBSCRIBE: "subscribe to",
    Action.PUBLISH: "publish to",
    Action.LOGS: "read the logs of",
    Action.WRITE_LOGS: "write logs of",
    Action.JOBS: "read the job",
    Action.REPORT_JOBS: "report on the job",
    Action.CANCEL_JOBS: "cancel the job",
    Action.QUERY: "query the database",
    Action.METHODS: "call",
    Action.ADMIN: "administer this server",
}
_BACK_IN = "1000"  # milliseconds: when another stream or query may have ended
_SHOWN = 80


class Permit:
    """The rights of one call, as a handler sees them (`streamkit.rights.Rights`)."""

    __slots__ = ("_ctx", "_grants", "_held", "_method", "_streams", "_usage", "identity")

    def __init__(
        self, ctx: Context, method: Method, identity: Identity, grants: Grants, usage: Usage
    ) -> None:
        self._ctx = ctx
        self._method = method
        self._grants = grants
        self._usage = usage
        self._held: list[tuple[Action, set[str]]] = []
        self._streams = ctx.streams_replies or ctx.streams_requests
        self.identity = identity

    # ---- the life of a call ----

    def enter(self, *, begun: bool = False) -> None:
        """Begin the call. Raises AuthError when no message can make it an allowed one, LimitError
        when the identity has too many already. `begun`: another call of the method has found that
        it may begin, under the same grants."""
        if not begun:
            self._may_begin(self._grants)
        if not self._streams:  # what runs a query is one, too
            return
        usage, quota = self._usage, self._grants.quota
        if self._method.runs_query and quota.queries is not None and usage.queries >= quota.queries:
            raise self._limited(f"{quota.queries} queries of {self.identity.name} are running")
        if quota.streams is not None and usage.streams >= quota.streams:
            raise self._limited(f"{self.identity.name} has {quota.streams} streams")
        usage.queries += self._method.runs_query
        usage.streams += 1

    def leave(self) -> None:
        """The call is over."""
        if self._streams:
            self._usage.queries -= self._method.runs_query
            self._usage.streams -= 1

    def inspect(self, message: Any) -> float:
        """Look at a request message before its handler does.

        Raises AuthError for one that is not allowed and LimitError for one that comes too soon;
        returns the seconds that a stream has to wait before it goes on.
        """
        method = self._method
        if method.items is not None and not method.answers:
            for action, names in method.items(message):
                if method.narrows is not None and not names:
                    names = self._narrow(message, *method.narrows)
                refused = self._grants.forbidden(action, names)
                if refused is None:
                    if self._streams:
                        self._held.append((action, names))
                elif not method.hides:
                    raise _denied(action, refused)
        if method.weight is None:
            return 0.0
        quota = self._grants.quota
        if quota.publish_per_second is None:
            return 0.0
        delay = self._usage.wait(quota)
        if delay and not self._streams:
            self._ctx.set_trailing_metadata(
                {"grpc-retry-pushback-ms": str(math.ceil(delay * 1000))}
            )
            raise LimitError(
                f"{self.identity.name} may publish {quota.publish_per_second} records a second"
            )
        self._usage.publish(method.weight(message), quota)
        return delay

    def review(self, identity: Identity | None, grants: Grants | None, now: float) -> None:
        """Decide the call again, under rules that make its caller `identity` (None: nobody)."""
        ctx = self._ctx
        if identity is None or grants is None:
            expires = self.identity.expires
            if expires is None or expires > now:
                ctx.reason = "revoked"
                ctx.end(AuthError("access was withdrawn: the credentials were revoked"))
            elif self._streams and not ctx.finite:
                # What comes to an end by itself may do so: it could not be resumed.
                ctx.reason = "expired"
                ctx.set_trailing_metadata({RECONNECT_HEADER: "1"})
                ctx.end(AuthError("the credentials have expired", status=Status.UNAUTHENTICATED))
            return
        self.identity, self._grants = identity, grants
        try:
            self._may_begin(grants)
            for action, names in self._held:
                refused = grants.forbidden(action, names)
                if refused is not None:
                    raise _denied(action, refused)
        except AuthError as error:
            ctx.reason = "revoked"
            ctx.end(AuthError(f"access was withdrawn: {error}"))

    # ---- what handlers ask ----

    def allows(self, action: Action, asked: str = "") -> bool:
        """Whether all that `asked`, a name or a pattern, stands for is allowed."""
        return self._grants.allows(action, asked)

    def require(self, action: Action, asked: str = "") -> None:
        """Raise AuthError unless it is allowed."""
        if not self._grants.allows(action, asked):
            raise _denied(action, asked)

    def narrowed(self, action: Action) -> tuple[str, ...] | None:
        """The patterns that "everything" comes down to; None if it is everything.

        A stream that asked this has made use of all of it, and ends when it gets less.
        """
        allowed = self._grants.narrowed(action)
        if self._streams:
            self._held.append((action, {"*"} if allowed is None else set(allowed)))
        return allowed

    def check(self, message: Any) -> None:
        """Raise AuthError unless everything that is in a request message is allowed."""
        items = self._method.items
        for action, names in items(message) if items is not None else ():
            refused = self._grants.forbidden(action, names)
            if refused is not None:
                raise _denied(action, refused)

    # ---- inside ----

    def _may_begin(self, grants: Grants) -> None:
        needs = self._method.needs
        if needs == (Action.METHODS,):
            opened = self._method.roles & grants.roles
            if not opened and not grants.allows(Action.METHODS, self._ctx.method):
                raise _denied(Action.METHODS, self._ctx.method)
        elif needs == (Action.ADMIN,):
            if not grants.admin:
                raise _denied(Action.ADMIN, "")
        elif needs and grants.patterns.keys().isdisjoint(needs):
            raise AuthError(f"not allowed to {_DOING[needs[0]]} anything")

    def _narrow(self, request: Any, action: Action, field: str) -> set[str]:
        """Make a request for everything one for what is allowed; return what it asks for then."""
        allowed = self._grants.narrowed(action)
        if allowed is None:
            return {"*"}
        setattr(request, field, list(allowed))
        return set(allowed)

    def _limited(self, reason: str) -> LimitError:
        self._ctx.set_trailing_metadata({"grpc-retry-pushback-ms": _BACK_IN})
        return LimitError(f"{reason}, the most that are allowed")


def _denied(action: Action, asked: str) -> AuthError:
    what = f" {asked[:_SHOWN]!r}" if asked else ""
    return AuthError(f"not allowed to {_DOING[action]}{what}")
