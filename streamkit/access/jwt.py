"""Signed tokens of somebody else (JWT), verified and never issued. Needs the extra `jwt`."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamkit.access.rules import JwtRules
from streamkit.config import AccessLimits
from streamkit.errors import PreconditionError
from streamkit.rights import Identity

__all__ = ["JwtVerifier"]

log = logging.getLogger(__name__)

_FETCH_EVERY = 300.0
"""Seconds between two looks at the keys; a token that names an unknown key does not hurry it."""
_FETCH_SECONDS = 10.0
_LARGEST_TOKEN = 16 * 1024
_MOST_ROLES = 64
_LIMITS = AccessLimits()


class JwtVerifier:
    """Verifies tokens by the public keys of their issuer. Belongs to one event loop.

    The keys are fetched on a thread, at most once in five minutes; when that fails the last good
    ones stay in use. PreconditionError when the library is missing.
    """

    def __init__(self, rules: JwtRules, fetch: Callable[[JwtRules], bytes] | None = None) -> None:
        try:
            import jwt
            import jwt.algorithms  # without cryptography it knows no public keys
        except ImportError:
            raise PreconditionError(
                "[jwt] needs PyJWT and cryptography", hint="pip install 'streamkit-grpc[jwt]'"
            ) from None
        if "RS256" not in jwt.algorithms.get_default_algorithms():
            raise PreconditionError(
                "[jwt] needs cryptography", hint="pip install 'streamkit-grpc[jwt]'"
            )
        self._jwt = jwt
        self.rules = rules
        self._fetch = fetch or _fetch
        self._keys: dict[str | None, Any] = {}
        self._fetched = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._known: dict[str, Identity] = {}

    async def holder(self, token: str) -> Identity | None:
        """Who a token speaks for; None for one that is not to be believed now."""
        if len(token) > _LARGEST_TOKEN:
            return None
        known = self._known.get(token)
        if known is not None:
            if known.expires is not None and known.expires > time.time():
                return known
            del self._known[token]
            return None
        await self._refresh()
        identity = self._verified(token)
        if identity is not None:
            if len(self._known) >= _LIMITS.signed_tokens:
                self._known.clear()
            self._known[token] = identity
        return identity

    def _verified(self, token: str) -> Identity | None:
        jwt, rules = self._jwt, self.rules
        try:
            key = self._keys.get(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=list(rules.algorithms),
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=rules.leeway,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None
        roles = claims.get(rules.roles_claim, [])
        if isinstance(roles, str):
            roles = roles.split()
        if not isinstance(roles, list):
            return None
        held = tuple(dict.fromkeys(role for role in roles if isinstance(role, str)))[:_MOST_ROLES]
        return Identity(f"jwt:{claims['sub']}", held, float(claims["exp"]) + rules.leeway)

    async def _refresh(self) -> None:
        """Have keys that are not too old; one fetch serves all who wait for it."""
        if self._fetching is None and time.monotonic() - self._fetched >= _FETCH_EVERY:
            self._fetched = time.monotonic()
            self._fetching = asyncio.create_task(self._load())
        fetching = self._fetching
        if fetching is not None and not self._keys:
            # Cancelling one caller leaves the fetch to the others.
            await asyncio.shield(fetching)

    async def _load(self) -> None:
        try:
            data = await asyncio.to_thread(self._fetch, self.rules)
            self._keys = self._read(data)
            self._known.clear()
        except (OSError, ValueError, self._jwt.PyJWTError) as error:
            log.warning("keeping the former keys of %s: %s", self.rules.issuer, error)
        finally:
            self._fetching = None

    def _read(self, data: bytes) -> dict[str | None, Any]:
        keys = json.loads(data)["keys"] if data else []
        found: dict[str | None, Any] = {}
        for entry in keys:
            if isinstance(entry, dict) and entry.get("kty") in ("RSA", "EC", "OKP"):
                key = self._jwt.PyJWK(entry)
                found[entry.get("kid")] = key
        if not found:
            raise ValueError("there are no public keys in it")
        return found

    async def close(self) -> None:
        """End a fetch that is on its way; its thread ends by itself."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever may redirect could send us to keys of their own, without TLS."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fetch(rules: JwtRules) -> bytes:
    if rules.jwks_file:
        with Path(rules.jwks_file).open("rb") as file:
            data: bytes = file.read(_LIMITS.file_bytes + 1)
    else:
        # The scheme was checked when the rules were read.
        opener = urllib.request.build_opener(_NoRedirect)
        with opener.open(rules.jwks_url, timeout=_FETCH_SECONDS) as answer:
            data = answer.read(_LIMITS.file_bytes + 1)
    if len(data) > _LIMITS.file_bytes:
        raise ValueError(f"more than {_LIMITS.file_bytes} bytes of keys")
    return data
