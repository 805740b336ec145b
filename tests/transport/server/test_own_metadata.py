"""What is written once for all calls that have the same is never given to one that has its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

from streamkit.generated.streamservice import SubscribeRequest, Update
from streamkit.transport import context
from tests.transport.conftest import Dial, Serve
from tests.transport.services import Streams, ask


async def test_each_call_has_its_own_metadata(serve: Serve, dial: Dial) -> None:
    class Own(Streams):
        calls = 0

        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Update]:
            self.calls += 1
            context().set_initial_metadata({"before": f"{self.calls}"})
            context().set_trailing_metadata({"after": f"{self.calls}"})
            yield Update(topic="t")

    client = await dial(await serve(Own()))
    for number in ("1", "2", "3"):
        answer = await client.ended(client.call(ask("x")))
        assert (answer.headers["before"], answer.trailers["after"]) == (number, number)
