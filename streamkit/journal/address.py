"""What a store's URL says, for those who do not open it."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

__all__ = ["is_log", "without_password"]

_LOGS = ("postgresql://", "postgres://", "nats://")


def is_log(url: str) -> bool:
    """Whether a URL names a log that servers share, and not a store of one server alone."""
    return url.startswith(_LOGS)


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    if at:
        user = user.partition(":")[0]
    query = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if "password" not in name.lower()
    ]
    netloc = f"{user}{at}{hosts}"
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query, quote_via=quote)))
