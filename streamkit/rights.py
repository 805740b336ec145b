"""The words of access: who asks, what for, and how much of it.

They stand below everything else, so that a handler can ask "may this caller?" without knowing who
decides it, or whether anybody does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar

__all__ = ["NO_QUOTA", "STORE", "Action", "Identity", "Quota", "Rights", "open_to", "roles_of"]

F = TypeVar("F", bound=Callable[..., Any])

STORE = "store"
"""The name by which the server's own store is granted. Its SQL reads everything in it."""


class Action(Enum):
    """What somebody wants to do. The value is the name that a role gives it in the file.

    Each but ADMIN is asked for one resource at a time, and a role allows it by patterns: topics,
    services, job ids, names of databases, paths of methods.
    """

    SUBSCRIBE = "subscribe"
    PUBLISH = "publish"
    LOGS = "logs"
    WRITE_LOGS = "write_logs"
    JOBS = "jobs"
    REPORT_JOBS = "report_jobs"
    CANCEL_JOBS = "cancel_jobs"
    QUERY = "query"
    METHODS = "methods"
    ADMIN = "admin"

    # Members are their own only equals; hashing their names would be half the price of a decision.
    __hash__ = object.__hash__

    @property
    def of_topics(self) -> bool:
        """Whether its patterns are those of topics; all others have "*" for any characters."""
        return self in (Action.SUBSCRIBE, Action.PUBLISH)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls. Made by the server out of what the caller proved, never by the caller."""

    name: str
    """What logs and `streamkit top` show: "token:ci", "cert:spiffe://...", "uid:1000"."""
    roles: tuple[str, ...] = ()
    expires: float | None = None
    """Seconds since 1970; None: never."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What one identity may take at a time; None sets no bound."""

    streams: int | None = None
    """Live streams."""
    publish_per_second: int | None = None
    """Updates, log lines and job reports together."""
    queries: int | None = None
    """SQL statements that run."""


NO_QUOTA = Quota()


class Rights(Protocol):
    """What the caller of one call may do, as the rules are now."""

    @property
    def identity(self) -> Identity: ...

    def allows(self, action: Action, asked: str = "") -> bool:
        """Whether all that `asked`, a name or a pattern, stands for is allowed."""
        ...

    def require(self, action: Action, asked: str = "") -> None:
        """Raise AuthError unless it is allowed."""
        ...

    def narrowed(self, action: Action) -> tuple[str, ...] | None:
        """The patterns that "everything" comes down to; None if it is everything."""
        ...

    def check(self, message: object) -> None:
        """Raise AuthError unless everything that is in a request message is allowed."""
        ...


def open_to(*roles: str) -> Callable[[F], F]:
    """Decorate a method of a service of your own: whoever has one of these roles may call it.

        class Orders(OrdersBase):
            @open_to("till", "reader")
            async def watch(self, request: WatchRequest) -> AsyncIterator[Order]: ...

    That is beside what a role's own `methods` allow. Without rules of access it changes nothing.
    """

    def mark(method: F) -> F:
        method.__streamkit_roles__ = frozenset(roles)  # type: ignore[attr-defined]  # ours
        return method

    return mark


def roles_of(method: object) -> frozenset[str]:
    """The roles that a method was opened to."""
    roles: frozenset[str] = getattr(method, "__streamkit_roles__", frozenset())
    return roles
