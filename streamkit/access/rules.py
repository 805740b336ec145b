"""The access file, read: who there is and which roles there are. Pure: text in, rules out."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from streamkit.access.containment import is_topic_pattern
from streamkit.access.roles import BUILT_IN, NOTHING, Grants, Role, union
from streamkit.access.tokens import fits, id_of, is_token_id
from streamkit.config import AccessLimits
from streamkit.errors import InvalidArgumentError
from streamkit.rights import Action, Identity, Quota

__all__ = ["JwtRules", "Rules", "Token", "parse_rules"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_QUOTAS = ("streams", "publish_per_second", "queries")
_LIMITS = AccessLimits()


@dataclass(frozen=True, slots=True)
class Token:
    """One token, without its secret."""

    id: str
    sha256: str = field(repr=False)
    roles: tuple[str, ...]
    expires: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class JwtRules:
    """Which signed tokens of somebody else are believed."""

    issuer: str
    audience: str
    jwks_file: str = ""
    jwks_url: str = ""
    roles_claim: str = "roles"
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    leeway: float = 30.0


@dataclass(frozen=True, eq=False)
class Rules:
    """Everything that the file says."""

    tokens: Mapping[str, Token] = field(default_factory=dict)
    certificates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Name in a client certificate -> roles."""
    peers: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """User at the other end of a unix socket -> roles."""
    roles: Mapping[str, Role] = field(default_factory=lambda: BUILT_IN)
    jwt: JwtRules | None = None
    _grants: dict[tuple[str, ...], Grants] = field(default_factory=dict, repr=False)

    def grants_of(self, identity: Identity) -> Grants:
        """What somebody may do. A role that does not exist (any more) allows nothing."""
        grants = self._grants.get(identity.roles)
        if grants is None:
            known = [self.roles[name] for name in identity.roles if name in self.roles]
            grants = union(known) if known else NOTHING
            # Roles of a signed token are somebody else's words: there may be many sets of them.
            if len(self._grants) >= _LIMITS.role_sets:
                self._grants.clear()
            self._grants[identity.roles] = grants
        return grants

    def token_holder(self, secret: str, now: float) -> Identity | None:
        """Who holds a token; None for a wrong, unknown or expired one, after the same time."""
        claimed = id_of(secret)
        token = None if claimed is None else self.tokens.get(claimed)
        right = fits(secret, None if token is None else token.sha256)
        if not right or token is None:
            return None
        if token.expires is not None and token.expires <= now:
            return None
        return Identity(f"token:{token.id}", token.roles, token.expires)

    def still(self, identity: Identity, now: float) -> Identity | None:
        """The same identity under these rules; None if it is none any more.

        Identities of signed tokens are vouched for by somebody else and stay until they expire,
        as long as anybody's are believed.
        """
        if identity.expires is not None and identity.expires <= now:
            return None
        kind, _, name = identity.name.partition(":")
        match kind:
            case "token":
                token = self.tokens.get(name)
                if token is None:
                    return None
                return Identity(identity.name, token.roles, token.expires)
            case "cert":
                roles = self.certificates.get(name)
            case "uid":
                roles = self.peers.get(int(name))
            case _:
                return identity if self.jwt is not None else None
        return None if roles is None else Identity(identity.name, roles)


def parse_rules(text: str, *, name: str = "the access file") -> Rules:
    """Read the text of an access file.

    Raises InvalidArgumentError naming the entry that is wrong; an unknown key is, too.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The parser's own words hold a place and no contents.
        raise InvalidArgumentError(f"{name}: {error}") from None
    try:
        return _rules(data)
    except ValueError as error:
        raise InvalidArgumentError(f"{name}: {error}") from None


def _rules(data: dict[str, Any]) -> Rules:
    _known(data, "the file", ("token", "certificate", "peer", "role", "jwt"))
    roles = dict(BUILT_IN)
    for role_name, table in _table(data, "role").items():
        if role_name in BUILT_IN:
            raise ValueError(f"role.{role_name} is built in; choose another name")
        roles[role_name] = _role(role_name, table)
    tokens: dict[str, Token] = {}
    for place, entry in enumerate(_entries(data, "token")):
        token = _token(entry, f"token[{place}]", roles)
        if tokens.setdefault(token.id, token) is not token:
            raise ValueError(f"token[{place}].id: {token.id!r} is there twice")
    certificates = _by(data, "certificate", "san", str, roles)
    peers = _by(data, "peer", "uid", int, roles)
    jwt = _jwt(data["jwt"]) if "jwt" in data else None
    return Rules(tokens, certificates, peers, MappingProxyType(roles), jwt)


def _role(name: str, table: Any) -> Role:
    where = f"role.{name}"
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table")
    actions = [action for action in Action if action is not Action.ADMIN]
    _known(table, where, (*(action.value for action in actions), "admin", *_QUOTAS))
    patterns: dict[Action, tuple[str, ...]] = {}
    for action in actions:
        if action.value in table:
            patterns[action] = _patterns(action, table[action.value], f"{where}.{action.value}")
    admin = table.get("admin", False)
    if not isinstance(admin, bool):
        raise ValueError(f"{where}.admin must be true or false")
    bounds = {key: _count(table[key], f"{where}.{key}") for key in _QUOTAS if key in table}
    return Role(name, MappingProxyType(patterns), admin, Quota(**bounds))


def _patterns(action: Action, value: Any, where: str) -> tuple[str, ...]:
    patterns = _texts(value, where)
    if len(patterns) > _LIMITS.patterns:
        raise ValueError(f"{where} must not hold more than {_LIMITS.patterns} patterns")
    for place, pattern in enumerate(patterns):
        if not pattern:
            raise ValueError(f"{where}[{place}] must not be empty")
        if action.of_topics and not is_topic_pattern(pattern):
            raise ValueError(
                f'{where}[{place}]: {pattern!r} is no topic pattern: "*" stands for one whole'
                ' token (orders.*), ">" for the last ones (orders.>)'
            )
        if action is Action.METHODS and not pattern.startswith(("/", "*")):
            raise ValueError(f"{where}[{place}]: give /package.Service/Method, with * for any")
    return patterns


def _token(entry: dict[str, Any], where: str, roles: Mapping[str, Role]) -> Token:
    _known(entry, where, ("id", "sha256", "roles", "expires", "note"))
    token_id, sha256 = entry.get("id"), entry.get("sha256")
    if not isinstance(token_id, str) or not is_token_id(token_id):
        raise ValueError(f"{where}.id must be 1 to 64 letters, digits, dots or dashes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{where}.sha256 must be 64 hexadecimal digits")
    expires = entry.get("expires")
    if expires is not None and not (isinstance(expires, datetime) and expires.tzinfo):
        raise ValueError(f"{where}.expires must be a time with its zone: 2027-01-31T12:00:00Z")
    note = entry.get("note", "")
    if not isinstance(note, str):
        raise ValueError(f"{where}.note must be text")
    held = _roles(entry, where, roles)
    until = None if expires is None else expires.timestamp()
    return Token(token_id, sha256, held, until, note)


def _by(
    data: dict[str, Any], key: str, name: str, kind: type, roles: Mapping[str, Role]
) -> dict[Any, tuple[str, ...]]:
    found: dict[Any, tuple[str, ...]] = {}
    for place, entry in enumerate(_entries(data, key)):
        where = f"{key}[{place}]"
        _known(entry, where, (name, "roles", "note"))
        value = entry.get(name)
        if type(value) is not kind or value in ("", -1):
            raise ValueError(f"{where}.{name} must be given")
        if value in found:
            raise ValueError(f"{where}.{name}: {value!r} is there twice")
        found[value] = _roles(entry, where, roles)
    return found


def _roles(entry: dict[str, Any], where: str, roles: Mapping[str, Role]) -> tuple[str, ...]:
    held = _texts(entry.get("roles", []), f"{where}.roles")
    for role in held:
        if role not in roles:
            raise ValueError(f"{where}.roles: no role {role!r}{_nearest(role, roles)}")
    return tuple(dict.fromkeys(held))


def _jwt(table: Any) -> JwtRules:
    if not isinstance(table, dict):
        raise ValueError("jwt must be a table")
    texts = ("issuer", "audience", "jwks_file", "jwks_url", "roles_claim")
    _known(table, "jwt", (*texts, "algorithms", "leeway"))
    given: dict[str, Any] = {}
    for key in texts:
        if key in table:
            if not isinstance(table[key], str) or not table[key]:
                raise ValueError(f"jwt.{key} must be text")
            given[key] = table[key]
    for key in ("issuer", "audience"):
        if key not in given:
            raise ValueError(f"jwt.{key} must be given")
    if ("jwks_file" in given) == ("jwks_url" in given):
        raise ValueError("jwt: give jwks_file or jwks_url")
    url = urlsplit(given.get("jwks_url", "https:"))
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname == "127.0.0.1"):
        raise ValueError("jwt.jwks_url must be https: who answers it decides who gets in")
    if "algorithms" in table:
        given["algorithms"] = _texts(table["algorithms"], "jwt.algorithms")
        for algorithm in given["algorithms"]:
            # Keys are public, so nothing that signs with the key it checks with.
            if not re.fullmatch(r"(RS|PS|ES)(256|384|512)|EdDSA", algorithm):
                raise ValueError(f"jwt.algorithms: {algorithm!r} is not RS256, ES256, EdDSA, ...")
    leeway = table.get("leeway", 30.0)
    if isinstance(leeway, bool) or not isinstance(leeway, int | float) or not 0 <= leeway <= 300:
        raise ValueError("jwt.leeway must be 0 to 300 seconds")
    return JwtRules(**given, leeway=float(leeway))


# ---- shapes ----


def _known(table: dict[str, Any], where: str, keys: tuple[str, ...]) -> None:
    for key in table:
        if key not in keys:
            raise ValueError(f"{where} has an unknown key {key!r}{_nearest(key, keys)}")


def _nearest(word: str, words: Any) -> str:
    close = get_close_matches(word, list(words), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise ValueError(f"{key} must be a table")
    return table


def _entries(data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = data.get(key, [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{key} must be written as [[{key}]]")
    return entries


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{where} must be a list of texts")
    return tuple(value)


def _count(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{where} must be a whole number from 1 up")
    return value
