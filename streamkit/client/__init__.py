"""The client: streams that resume, writers that wait out an outage, one class for each of both.

`AsyncClient` is for asyncio, `Client` the same for everybody else. `ResumingCall` and the rules of
`retry` serve users' own services as well. Imports neither handlers nor server.
"""

from streamkit.client.aio import AsyncClient
from streamkit.client.attempts import Reconnect
from streamkit.client.events import ClientEvent
from streamkit.client.reading.cursor import Cursor, KeyCursor
from streamkit.client.reading.query import Query
from streamkit.client.reading.resume import ResumingCall
from streamkit.client.reading.start import Last, Position, after, last, since
from streamkit.client.reading.streams import JobWatch, LogStream, RecordStream, Subscription
from streamkit.client.retry import Retry, RetryBudget, backoff, is_retryable
from streamkit.client.writing.job import JobHandle
from streamkit.client.writing.writers import LogWriter, Publisher

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
