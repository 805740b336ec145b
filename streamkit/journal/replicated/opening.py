"""From a URL to the journal that follows the log behind it."""

from __future__ import annotations

import os
import ssl
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from streamkit.config import JournalOptions
from streamkit.errors import InvalidArgumentError
from streamkit.journal.address import without_password
from streamkit.journal.base import Clock
from streamkit.journal.replicated.journal import ReplicatedJournal
from streamkit.journal.replicated.log import Log
from streamkit.journal.replicated.nats import NatsLog
from streamkit.journal.replicated.postgres import PostgresLog
from streamkit.journal.rules.silence import Steady

__all__ = ["follow_log", "log_at"]

STORE = "streamkit.db"
"""The file of the local copy, in its folder."""
_OPTIONS = frozenset({"creds", "monitor", "replicas", "sync", "tls_ca"})


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
    if parts.scheme == "nats":
        return _nats(url)
    raise InvalidArgumentError(
        f"{without_password(url)!r} names no log", hint="give postgresql://... or nats://..."
    )


def _nats(url: str) -> NatsLog:
    """nats://[USER[:PASSWORD]@]HOST[:PORT],HOST...[:PORT]/NAME with the options of `_OPTIONS`."""
    parts = urlsplit(url)
    shown = without_password(url)
    user, _, hosts = parts.netloc.rpartition("@")
    name = parts.path.strip("/")
    if not name or not hosts:
        raise InvalidArgumentError(f"{shown!r} names no log", hint="give nats://HOST,HOST/NAME")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = set(options) - _OPTIONS
    if unknown:
        raise InvalidArgumentError(
            f"{', '.join(sorted(unknown))}: no option of {shown!r}",
            hint=f"there are {', '.join(sorted(_OPTIONS))}",
        )
    connecting: dict[str, Any] = {}
    if user:
        login, colon, password = user.partition(":")
        connecting["user"] = unquote(login)
        connecting["password"] = unquote(password) if colon else os.environ.get("NATS_PASSWORD", "")
    if "creds" in options:
        connecting["user_credentials"] = options["creds"]
    if "tls_ca" in options:
        connecting["tls"] = ssl.create_default_context(cafile=options["tls_ca"])
    sync = options.get("sync", "always")
    if sync not in ("always", "lazy"):
        raise InvalidArgumentError(f"sync is always or lazy, not {sync!r}")
    try:
        replicas, monitor = int(options.get("replicas", 0)), int(options.get("monitor", 8222))
    except ValueError:
        raise InvalidArgumentError(f"replicas and monitor of {shown!r} are numbers") from None
    return NatsLog(
        [f"nats://{host}" for host in hosts.split(",")],
        name,
        shown,
        replicas=replicas,
        monitor=monitor if sync == "always" else None,
        **connecting,
    )
