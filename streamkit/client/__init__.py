"""The client: streams that resume, writers that wait out an outage, one class for each of both.

`AsyncClient` is for asyncio, `Client` the same for everybody else. `ResumingCall` and the rules of
`retry` serve users' own services as well. Imports neither handlers nor server.
"""

from streamkit.client.aio import AsyncClient
from streamkit.client.attempts import Reconnect
from streamkit.client.events import ClientEvent, OnEvent
from streamkit.client.reading.cursor import Cursor, KeyCursor, OnLoss
from streamkit.client.reading.iteration import Iteration
from streamkit.client.reading.own import resume
from streamkit.client.reading.query import Parameters, Query
from streamkit.client.reading.resume import ResumingCall
from streamkit.client.reading.start import Last, Position, StartAt, after, last, since
from streamkit.client.reading.streams import (
    JobEvents,
    JobWatch,
    LogStream,
    RecordStream,
    Subscription,
)
from streamkit.client.retry import Retry, RetryBudget, backoff, is_retryable
from streamkit.client.token import TokenSource, token_file
from streamkit.client.writing.job import JobHandle
from streamkit.client.writing.writers import LogWriter, OnDrop, Publisher

__all__ = [
    "AsyncClient",
    "ClientEvent",
    "Cursor",
    "Iteration",
    "JobEvents",
    "JobHandle",
    "JobWatch",
    "KeyCursor",
    "Last",
    "LogStream",
    "LogWriter",
    "OnDrop",
    "OnEvent",
    "OnLoss",
    "Parameters",
    "Position",
    "Publisher",
    "Query",
    "Reconnect",
    "RecordStream",
    "ResumingCall",
    "Retry",
    "RetryBudget",
    "StartAt",
    "Subscription",
    "TokenSource",
    "after",
    "backoff",
    "is_retryable",
    "last",
    "resume",
    "since",
    "token_file",
]
