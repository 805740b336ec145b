"""TailLogs: the last lines of some services, then, when following, every new one."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from streamkit.generated.streamservice import LogEntry, LogRequest
from streamkit.handlers.streaming import JournalHandler, records_of
from streamkit.handlers.validation import check_count, level_rank, service_patterns, start_from
from streamkit.journal.base import Selector, Start, Stream
from streamkit.transport import Framed

__all__ = ["LogsHandler"]

_LINES = 100
"""History of a request that neither follows nor says how much it wants."""


class LogsHandler(JournalHandler):
    """Serves the journal's logs. Needs the keyword `journal`."""

    def tail_logs(  # type: ignore[override]  # ready frames instead of messages
        self, log_request: LogRequest
    ) -> AsyncGenerator[Framed, None]:
        """The last `lines` entries at or above the level, then new ones with neither gap nor
        repetition, if following. A start, where one is given, takes the place of `lines`.
        """
        rank = level_rank(log_request.log_level)
        lines = check_count(log_request.lines, "lines")
        if not lines and not log_request.follow:
            lines = _LINES
        services = service_patterns(log_request.service_name, log_request.services)
        return records_of(
            self._journal,
            Selector(Stream.LOGS, services, rank),
            start_from(log_request.start) or (Start(last=lines) if lines else Start()),
            follow=log_request.follow,
            options=log_request.options,
            record=LogEntry,
        )
