"""The services that a streamkit server mounts, each a translation from messages to the domain.

Every handler overrides its RPCs of a generated service base and takes what it needs as keywords, so
any of them can be mounted alone: `UpdatesHandler(journal=journal)`.
"""

from __future__ import annotations

from streamkit.handlers.admin import AdminHandler
from streamkit.handlers.health import HealthHandler
from streamkit.handlers.jobs import JobsHandler
from streamkit.handlers.logs import LogsHandler
from streamkit.handlers.producer import ProducerHandler
from streamkit.handlers.queries import QueriesHandler
from streamkit.handlers.reflection import ReflectionAlphaHandler, ReflectionHandler
from streamkit.handlers.updates import UpdatesHandler

__all__ = [
    "AdminHandler",
    "HealthHandler",
    "JobsHandler",
    "LogsHandler",
    "ProducerHandler",
    "QueriesHandler",
    "ReflectionAlphaHandler",
    "ReflectionHandler",
    "StreamService",
    "UpdatesHandler",
]


class StreamService(UpdatesHandler, QueriesHandler, JobsHandler, LogsHandler):
    """All four streams as one service: keywords `journal`, `databases` and `limits`."""
