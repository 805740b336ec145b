"""What is refused before a handler runs."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
import pytest

from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.errors import InvalidArgumentError, LimitError, Status
from streamkit.generated.google import rpc
from streamkit.generated.streamservice import SubscribeRequest, Update
from streamkit.transport import Service
from tests.transport.server.exchange.calls import Serve, fails, publish
from tests.transport.services import Streams, Writes


class Wanted(pydantic.BaseModel):
    topics: list[Annotated[str, pydantic.Field(max_length=3)]]


async def test_a_check_refuses_requests(serve: Serve) -> None:
    def check(message: Any) -> None:
        if isinstance(message, SubscribeRequest):
            if "bad" in message.topics:
                raise ValueError("bad is not a topic")
            if "short" in message.topics:
                raise ValueError("topics: too few")
            if "limit" in message.topics:
                raise LimitError("not so many")
            Wanted.model_validate({"topics": message.topics})

    streams = Streams()
    async with serve([streams, Writes()], check=check) as channel:
        error = await fails(channel, "bad")
        assert (error.status, error.message) == (Status.INVALID_ARGUMENT, "bad is not a topic")
        plain = rpc.BadRequestFieldViolation(description="bad is not a topic")
        assert error.detail(rpc.BadRequest) == rpc.BadRequest(field_violations=[plain])
        error = await fails(channel, "short")
        assert error.message == "topics: too few"
        few = rpc.BadRequestFieldViolation(field="topics", description="too few")
        assert error.detail(rpc.BadRequest) == rpc.BadRequest(field_violations=[few])
        error = await fails(channel, "long:word")
        assert error.message == "topics.0: String should have at most 3 characters"
        violation = rpc.BadRequestFieldViolation(
            field="topics.0", description="String should have at most 3 characters"
        )
        assert error.detail(rpc.BadRequest) == rpc.BadRequest(field_violations=[violation])
        assert isinstance(await fails(channel, "limit"), LimitError)
        assert not streams.started
        assert (await publish(channel)).producer_sequence == 7


def test_a_generator_that_would_hold_up_the_loop_is_refused() -> None:
    class Blocking(Streams):
        def subscribe_to_updates(self, subscribe_request: SubscribeRequest) -> Any:
            yield Update()

    class Delegating(Streams):
        def subscribe_to_updates(self, subscribe_request: SubscribeRequest) -> Any:
            return super().subscribe_to_updates(subscribe_request)

    with pytest.raises(InvalidArgumentError, match=r"Blocking.subscribe_to_updates is a generator"):
        Service([Blocking()], StreamkitCodec(), TransportLimits())
    Service([Delegating()], StreamkitCodec(), TransportLimits()).close()
