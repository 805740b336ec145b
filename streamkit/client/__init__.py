"""The client: streams that resume, writers that wait out an outage, one class for each of both.

`AsyncClient` is for asyncio, `Client` the same for everybody else. `ResumingCall` and the rules of
`retry` serve users' own services as well. Imports neither handlers nor server.
"""

from streamkit.client.aio import AsyncClient
from streamkit.client.cursor import Cursor, KeyCursor
from streamkit.client.events import ClientEvent
from streamkit.client.job import JobHandle
from streamkit.client.query import Query
from streamkit.client.resume import Reconnect, ResumingCall
from streamkit.client.retry import Retry, RetryBudget, backoff, is_retryable
from streamkit.client.start import Last, Position, after, last, since
from streamkit.client.streams import JobWatch, LogStream, RecordStream, Subscription
from streamkit.client.writers import LogWriter, Publisher

__all__ = [
    "AsyncClient",
    "ClientEvent",
    "Cursor",
    "JobHandle",
    "JobWatch",
    "KeyCursor",
    "Last",
    "LogStream",
    "LogWriter",
    "Position",
    "Publisher",
    "Query",
    "Reconnect",
    "RecordStream",
    "ResumingCall",
    "Retry",
    "RetryBudget",
    "Subscription",
    "after",
    "backoff",
    "is_retryable",
    "last",
    "since",
]
