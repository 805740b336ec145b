"""streamkit: long-lived gRPC streams in pure Python.

Live updates, query results, job progress and log tails, each a stream that resumes. Everything
public is a name of this module or of `streamkit.errors`, `streamkit.config`, `streamkit.asgi` and
`streamkit.testing`; names are imported when they are first used.
"""

# `typing` would be 25 modules more before the command can tell what Ctrl-C does.
TYPE_CHECKING = False

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from streamkit.access.rules import (
        Rules,
    )
    from streamkit.client import (
        AsyncClient,
        ClientEvent,
        Cursor,
        Iteration,
        JobEvents,
        JobHandle,
        JobWatch,
        KeyCursor,
        Last,
        LogStream,
        LogWriter,
        OnDrop,
        OnEvent,
        OnLoss,
        Parameters,
        Publisher,
        Query,
        Reconnect,
        RecordStream,
        ResumingCall,
        Retry,
        RetryBudget,
        StartAt,
        Subscription,
        after,
        last,
        resume,
        since,
    )
    from streamkit.client.blocking.client import (
        Client,
    )
    from streamkit.client.blocking.handles import (
        SyncLogWriter,
        SyncPublisher,
        SyncStream,
    )
    from streamkit.client.blocking.logging import (
        StreamHandler,
    )
    from streamkit.client.blocking.results import (
        SyncJob,
        SyncQuery,
    )
    from streamkit.client.blocking.stubs import (
        SyncReplies,
    )
    from streamkit.client.blocking.track import (
        track,
    )
    from streamkit.config import (
        Backoff,
        JournalOptions,
        QueryLimits,
        Retention,
        RetentionRule,
        TransportLimits,
    )
    from streamkit.errors import (
        AbortedError,
        AlreadyExistsError,
        AuthError,
        CallCancelledError,
        ConnectError,
        DeadlineError,
        DecodeError,
        EncodeError,
        InternalError,
        InvalidArgumentError,
        JobFailedError,
        LimitError,
        NotFoundError,
        PreconditionError,
        QueryError,
        Status,
        StoreError,
        StreamGapError,
        StreamkitError,
        UnimplementedError,
    )
    from streamkit.generated.streamservice import (
        CallInfo,
        Column,
        Gap,
        JobProgress,
        JobReport,
        JobRequest,
        LogEntry,
        LogRequest,
        QueryResult,
        ServerStatus,
        SubscribeRequest,
        Table,
        TableSchema,
        Update,
        WatchJobsRequest,
        WriteReply,
        WriteRequest,
    )
    from streamkit.journal import (
        Appended,
        Bounds,
        Delivery,
        Hub,
        Item,
        JobPage,
        Journal,
        JournalStatus,
        Loss,
        Position,
        ProducerId,
        Pruned,
        Record,
        Selector,
        Start,
        Stream,
        Tally,
        joined_frames,
        open_journal,
    )
    from streamkit.offers import (
        as_events,
    )
    from streamkit.rights import (
        Action,
        Identity,
        Quota,
        open_to,
    )
    from streamkit.server import (
        Server,
    )
    from streamkit.transport import (
        Carrier,
        Channel,
        ClientCall,
        ClientInterceptor,
        Context,
        Framed,
        GrpcServer,
        Servable,
        ServerInterceptor,
        ServiceStub,
        client_tls,
        context,
        server_tls,
    )

__all__ = [
    "AbortedError",
    "Action",
    "AlreadyExistsError",
    "Appended",
    "AsyncClient",
    "AuthError",
    "Backoff",
    "Bounds",
    "CallCancelledError",
    "CallInfo",
    "Carrier",
    "Channel",
    "Client",
    "ClientCall",
    "ClientEvent",
    "ClientInterceptor",
    "Column",
    "ConnectError",
    "Context",
    "Cursor",
    "DeadlineError",
    "DecodeError",
    "Delivery",
    "EncodeError",
    "Framed",
    "Gap",
    "GrpcServer",
    "Hub",
    "Identity",
    "InternalError",
    "InvalidArgumentError",
    "Item",
    "Iteration",
    "JobEvents",
    "JobFailedError",
    "JobHandle",
    "JobPage",
    "JobProgress",
    "JobReport",
    "JobRequest",
    "JobWatch",
    "Journal",
    "JournalOptions",
    "JournalStatus",
    "KeyCursor",
    "Last",
    "LimitError",
    "LogEntry",
    "LogRequest",
    "LogStream",
    "LogWriter",
    "Loss",
    "NotFoundError",
    "OnDrop",
    "OnEvent",
    "OnLoss",
    "Parameters",
    "Position",
    "PreconditionError",
    "ProducerId",
    "Pruned",
    "Publisher",
    "Query",
    "QueryError",
    "QueryLimits",
    "QueryResult",
    "Quota",
    "Reconnect",
    "Record",
    "RecordStream",
    "ResumingCall",
    "Retention",
    "RetentionRule",
    "Retry",
    "RetryBudget",
    "Rules",
    "Selector",
    "Servable",
    "Server",
    "ServerInterceptor",
    "ServerStatus",
    "ServiceStub",
    "Start",
    "StartAt",
    "Status",
    "StoreError",
    "Stream",
    "StreamGapError",
    "StreamHandler",
    "StreamkitError",
    "SubscribeRequest",
    "Subscription",
    "SyncJob",
    "SyncLogWriter",
    "SyncPublisher",
    "SyncQuery",
    "SyncReplies",
    "SyncStream",
    "Table",
    "TableSchema",
    "Tally",
    "TransportLimits",
    "UnimplementedError",
    "Update",
    "WatchJobsRequest",
    "WriteReply",
    "WriteRequest",
    "__version__",
    "after",
    "as_events",
    "client_tls",
    "context",
    "joined_frames",
    "last",
    "open_journal",
    "open_to",
    "resume",
    "server_tls",
    "since",
    "track",
]

_HOMES = {
    "streamkit.access.rules": ("Rules"),
    "streamkit.client": (
        "AsyncClient ClientEvent Cursor Iteration JobEvents JobHandle JobWatch KeyCursor Last "
        "LogStream LogWriter OnDrop OnEvent OnLoss Parameters Publisher Query Reconnect "
        "RecordStream ResumingCall Retry RetryBudget StartAt Subscription after last "
        "resume since"
    ),
    "streamkit.client.blocking.client": ("Client"),
    "streamkit.client.blocking.handles": ("SyncLogWriter SyncPublisher SyncStream"),
    "streamkit.client.blocking.logging": ("StreamHandler"),
    "streamkit.client.blocking.results": ("SyncJob SyncQuery"),
    "streamkit.client.blocking.stubs": ("SyncReplies"),
    "streamkit.client.blocking.track": ("track"),
    "streamkit.config": (
        "Backoff JournalOptions QueryLimits Retention RetentionRule TransportLimits"
    ),
    "streamkit.errors": (
        "AbortedError AlreadyExistsError AuthError CallCancelledError ConnectError "
        "DeadlineError DecodeError EncodeError InternalError InvalidArgumentError "
        "JobFailedError LimitError NotFoundError PreconditionError QueryError Status "
        "StoreError StreamGapError StreamkitError UnimplementedError"
    ),
    "streamkit.generated.streamservice": (
        "CallInfo Column Gap JobProgress JobReport JobRequest LogEntry LogRequest QueryResult "
        "ServerStatus SubscribeRequest Table TableSchema Update WatchJobsRequest "
        "WriteReply WriteRequest"
    ),
    "streamkit.journal": (
        "Appended Bounds Delivery Hub Item JobPage Journal JournalStatus Loss "
        "Position ProducerId Pruned Record Selector Start Stream Tally joined_frames open_journal"
    ),
    "streamkit.offers": ("as_events"),
    "streamkit.rights": ("Action Identity Quota open_to"),
    "streamkit.server": ("Server"),
    "streamkit.transport": (
        "Carrier Channel ClientCall ClientInterceptor Context Framed GrpcServer Servable "
        "ServerInterceptor ServiceStub client_tls context server_tls"
    ),
}
_MODULES = ("asgi", "config", "errors", "testing")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> "Any":
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
