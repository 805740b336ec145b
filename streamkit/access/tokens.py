"""Tokens: `sk_<id>_<secret>`. The secret has 256 random bits, so its plain SHA-256 may be kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

__all__ = ["fits", "id_of", "is_token_id", "new_token", "sha256_of"]

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_TOKEN = re.compile(r"sk_([A-Za-z0-9.-]{1,64})_[A-Za-z0-9_-]{43}")
_LONGEST = 3 + 64 + 1 + 43
_NOBODY = "0" * 64


def is_token_id(text: str) -> bool:
    """Whether a token can have this id."""
    return _ID.fullmatch(text) is not None


def new_token(token_id: str) -> str:
    """A token that nobody can guess. It is shown once and kept nowhere."""
    return f"sk_{token_id}_{secrets.token_urlsafe(32)}"


def sha256_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def id_of(text: str) -> str | None:
    """The id that a text claims to be a token of; None if it is no token at all."""
    match = _TOKEN.fullmatch(text) if len(text) <= _LONGEST else None
    return match and match[1]


def fits(token: str, sha256: str | None) -> bool:
    """Whether a token is the one kept. Takes as long for a wrong one, and for None: no such id."""
    same = hmac.compare_digest(sha256_of(token[: _LONGEST + 1]), sha256 or _NOBODY)
    return same and sha256 is not None
