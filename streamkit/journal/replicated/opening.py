"""From a URL to the journal that follows the log behind it."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from streamkit.config import JournalOptions
from streamkit.errors import InvalidArgumentError
from streamkit.journal.address import without_password
from streamkit.journal.base import Clock
from streamkit.journal.replicated.journal import ReplicatedJournal
from streamkit.journal.replicated.log import Log
from streamkit.journal.replicated.postgres import PostgresLog
from streamkit.journal.rules.silence import Steady

__all__ = ["follow_log", "log_at"]

STORE = "streamkit.db"
"""The file of the local copy, in its folder."""


async def follow_log(
    url: str, data: str, options: JournalOptions, clock: Clock, steady: Steady
) -> ReplicatedJournal:
    """Open the log at a URL and the copy of it in a folder. Raises StoreError."""
    log = log_at(url)
    if not data:
        raise InvalidArgumentError(
            f"{log.url} needs a folder for this server's copy of it", hint="give it as --data DIR"
        )
    os.makedirs(data, mode=0o700, exist_ok=True)
    return await ReplicatedJournal.follow(log, os.path.join(data, STORE), options, clock, steady)


def log_at(url: str) -> Log:
    """The log that a URL names, not yet opened. Raises InvalidArgumentError."""
    parts = urlsplit(url)
    if parts.scheme in ("postgresql", "postgres"):
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        name = query.pop("log", "streamkit")
        # As libpq reads it: a space is %20 there, and a plus is a plus.
        conninfo = urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))
        return PostgresLog(conninfo, name, without_password(url))
    raise InvalidArgumentError(
        f"{without_password(url)!r} names no log", hint="give postgresql://... or nats://..."
    )
