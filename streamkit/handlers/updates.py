"""SubscribeToUpdates: live updates of some topics, pushed as they are published."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from streamkit.generated.streamservice import SubscribeRequest, Update
from streamkit.handlers.streaming import JournalHandler, records_of
from streamkit.handlers.validation import check_topics, start_from
from streamkit.journal.base import Selector, Start, Stream
from streamkit.transport import Framed

__all__ = ["UpdatesHandler"]


class UpdatesHandler(JournalHandler):
    """Serves the journal's updates. Needs the keyword `journal`."""

    def subscribe_to_updates(  # type: ignore[override]  # ready frames instead of messages
        self, subscribe_request: SubscribeRequest
    ) -> AsyncGenerator[Framed, None]:
        """Every update of the topics from the requested start on, without end.

        Without a start only what is published from now on is sent. The subscription is in force
        once the initial metadata has arrived.
        """
        topics = check_topics(subscribe_request.topics)
        return records_of(
            self._journal,
            Selector(Stream.UPDATES, topics),
            start_from(subscribe_request.start) or Start(),
            follow=True,
            options=subscribe_request.options,
            record=Update,
        )
