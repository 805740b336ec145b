"""Roles, and what several of them allow together. Roles only allow: nothing takes away again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from streamkit.access.containment import NameGrants, TopicGrants
from streamkit.config import AccessLimits
from streamkit.rights import NO_QUOTA, Action, Quota

__all__ = ["BUILT_IN", "NOTHING", "Grants", "Role", "union"]

_ALL: dict[Action, tuple[str, ...]] = {
    action: (">" if action.of_topics else "*",) for action in Action if action is not Action.ADMIN
}
_LONGEST_KEPT = 256
_LIMITS = AccessLimits()


@dataclass(frozen=True, slots=True)
class Role:
    """A name for what somebody may do."""

    name: str
    patterns: Mapping[Action, tuple[str, ...]] = field(default_factory=dict)
    admin: bool = False
    quota: Quota = NO_QUOTA


@dataclass(frozen=True, eq=False)
class Grants:
    """What an identity may do: the decision itself, without a word about who asks or how."""

    patterns: Mapping[Action, tuple[str, ...]]
    admin: bool = False
    quota: Quota = NO_QUOTA
    roles: frozenset[str] = frozenset()
    _allowed: dict[Action, set[str]] = field(default_factory=dict, repr=False)
    """What was found to be allowed before."""
    _found: dict[Action, NameGrants | TopicGrants] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for action, patterns in self.patterns.items():
            self._found[action] = (
                TopicGrants(patterns) if action.of_topics else NameGrants(patterns)
            )

    def allows(self, action: Action, asked: str = "") -> bool:
        """Whether all that `asked`, a name or a pattern, stands for is allowed.

        It must lie within one granted pattern: two that cover it together are not looked for.
        """
        return self.admin if action is Action.ADMIN else self.forbidden(action, {asked}) is None

    def forbidden(self, action: Action, names: set[str]) -> str | None:
        """One of these names and patterns that is not allowed; None if all of them are."""
        known = self._allowed.get(action)
        if known is None:
            known = self._allowed[action] = set()
        elif names <= known:
            return None
        granted = self._found.get(action)
        for asked in names - known:
            if granted is None or not granted.cover(asked):
                return asked
            if len(asked) <= _LONGEST_KEPT:
                if len(known) >= _LIMITS.decisions:
                    known.clear()
                known.add(asked)
        return None

    def narrowed(self, action: Action) -> tuple[str, ...] | None:
        """What "everything" comes down to: the granted patterns; None if that is everything.

        Empty means that nothing is allowed.
        """
        granted = self.patterns.get(action, ())
        return None if _ALL[action][0] in granted else granted


NOTHING = Grants(MappingProxyType({}))
"""What somebody without a role may do."""

BUILT_IN: Mapping[str, Role] = MappingProxyType(
    {
        role.name: role
        for role in (
            Role("admin", _ALL, admin=True),
            Role(
                "reader",
                {
                    action: _ALL[action]
                    for action in (Action.SUBSCRIBE, Action.LOGS, Action.JOBS, Action.QUERY)
                },
            ),
            Role(
                "writer",
                {
                    action: _ALL[action]
                    for action in (
                        Action.PUBLISH,
                        Action.WRITE_LOGS,
                        Action.REPORT_JOBS,
                        Action.CANCEL_JOBS,
                    )
                },
            ),
        )
    }
)
"""Roles that are there without being written down. `reader` reads all of the store, by SQL too."""


def union(roles: Iterable[Role]) -> Grants:
    """What several roles allow together. Of the bounds that are stated the largest counts."""
    roles = tuple(roles)
    patterns: dict[Action, tuple[str, ...]] = {}
    for action in _ALL:
        granted = [pattern for role in roles for pattern in role.patterns.get(action, ())]
        if granted:
            patterns[action] = tuple(dict.fromkeys(granted))
    return Grants(
        MappingProxyType(patterns),
        admin=any(role.admin for role in roles),
        quota=Quota(
            streams=_largest(role.quota.streams for role in roles),
            publish_per_second=_largest(role.quota.publish_per_second for role in roles),
            queries=_largest(role.quota.queries for role in roles),
        ),
        roles=frozenset(role.name for role in roles),
    )


def _largest(bounds: Iterable[int | None]) -> int | None:
    return max((bound for bound in bounds if bound is not None), default=None)
