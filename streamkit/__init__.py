"""streamkit: long-lived gRPC streams in pure Python.

Live updates, query results, job progress and log tails, each a stream that resumes. Everything
public is a name of this module or of `streamkit.errors`, `streamkit.config` and
`streamkit.testing`; names are imported when they are first used.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from streamkit.client import (
        AsyncClient,
        ClientEvent,
        JobHandle,
        KeyCursor,
        Last,
        LogWriter,
        Publisher,
        Query,
        Reconnect,
        ResumingCall,
        after,
        last,
        since,
    )
    from streamkit.client.blocking.client import Client
    from streamkit.client.blocking.logging import StreamHandler
    from streamkit.client.blocking.track import track
    from streamkit.config import Backoff, JournalOptions, QueryLimits, Retention, TransportLimits
    from streamkit.errors import StreamkitError
    from streamkit.journal import Hub, Position, open_journal
    from streamkit.server import Server
    from streamkit.transport import Channel, Context, Framed, GrpcServer, context

__all__ = [
    "AsyncClient",
    "Backoff",
    "Channel",
    "Client",
    "ClientEvent",
    "Context",
    "Framed",
    "GrpcServer",
    "Hub",
    "JobHandle",
    "JournalOptions",
    "KeyCursor",
    "Last",
    "LogWriter",
    "Position",
    "Publisher",
    "Query",
    "QueryLimits",
    "Reconnect",
    "ResumingCall",
    "Retention",
    "Server",
    "StreamHandler",
    "StreamkitError",
    "TransportLimits",
    "__version__",
    "after",
    "context",
    "last",
    "open_journal",
    "since",
    "track",
]

_HOMES = {
    "streamkit.client": (
        "AsyncClient ClientEvent JobHandle KeyCursor Last LogWriter Publisher Query Reconnect "
        "ResumingCall after last since"
    ),
    "streamkit.client.blocking.logging": "StreamHandler",
    "streamkit.client.blocking.client": "Client",
    "streamkit.client.blocking.track": "track",
    "streamkit.config": "Backoff JournalOptions QueryLimits Retention TransportLimits",
    "streamkit.errors": "StreamkitError",
    "streamkit.journal": "Hub Position open_journal",
    "streamkit.server": "Server",
    "streamkit.transport": "Channel Context Framed GrpcServer context",
}
_MODULES = ("config", "errors", "testing")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if home is None:
        return import_module(f"{__name__}.{name}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
