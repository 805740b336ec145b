"""Callers with a role, for tests of what each may do."""

from __future__ import annotations

import itertools
from dataclasses import replace

from streamkit.access.rules import Rules, Token, parse_rules
from streamkit.access.tokens import new_token, sha256_of
from streamkit.errors import InvalidArgumentError

__all__ = ["Access"]


class Access:
    """Rules without a file, and tokens for them.

        access = Access('[role.till]\\npublish = ["orders.*"]')
        async with serve(access=access.rules) as address:
            client = AsyncClient(address, token=access.token("till"))

    The text is that of an access file; `admin`, `reader` and `writer` are there without it. Raises
    InvalidArgumentError for a text that such a file could not hold.
    """

    def __init__(self, roles: str = "") -> None:
        known = parse_rules(roles, name="the roles of the test")
        self._tokens: dict[str, Token] = dict(known.tokens)
        self._numbers = itertools.count(1)
        self.rules: Rules = replace(known, tokens=self._tokens)

    def token(self, *roles: str) -> str:
        """A new token whose holder has these roles. InvalidArgumentError for an unknown one."""
        for role in roles:
            if role not in self.rules.roles:
                known = ", ".join(sorted(self.rules.roles))
                raise InvalidArgumentError(f"no role {role!r}; there are {known}")
        name = f"{'-'.join(roles)}.{next(self._numbers)}".replace("_", "-")
        token = new_token(name)
        self._tokens[name] = Token(name, sha256_of(token), roles)
        return token
