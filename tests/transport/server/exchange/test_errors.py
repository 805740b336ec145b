"""Faults of handlers, and what is said about errors."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from betterproto.lib.google.protobuf import Any as Any_
from betterproto.lib.google.protobuf import StringValue as BetterprotoString
from google.protobuf.wrappers_pb2 import StringValue
from grpclib.const import Status as GrpclibStatus
from grpclib.exceptions import GRPCError

from streamkit.client import AsyncClient
from streamkit.errors import InternalError, InvalidArgumentError, NotFoundError, Status
from streamkit.generated.google import rpc
from streamkit.generated.streamservice import PublishRequest, SubscribeRequest, Update, WriteReply
from streamkit.transport import Channel, context
from streamkit.transport.grpc.details import details_header, pack_details, unpack_details
from tests.transport.raw import PUBLISH, SUBSCRIBE
from tests.transport.server.exchange.calls import ECHO, Plain, Serve, fails
from tests.transport.services import Streams, Writes

# Faults of handlers, and what is said about errors -----------------------------------------------


class Faulty(Streams):
    """Mistakes of a handler's own, by the first topic."""

    downstream: Channel

    async def subscribe_to_updates(
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Update]:
        match subscribe_request.topics[0]:
            case "metadata":
                context().set_trailing_metadata({"Grpc-Status": "1"})
            case "late":
                yield Update()
                context().set_initial_metadata({"a": "b"})
            case "field":
                yield Update(topic=5)  # type: ignore[arg-type]  # wrong on purpose
            case "type":
                yield "no message"  # type: ignore[misc]  # wrong on purpose
            case "downstream":
                await self.downstream.unary(PUBLISH, PublishRequest(), WriteReply)
            case "misuse":
                await self.downstream.unary("\n", PublishRequest(), WriteReply)
            case "client":
                async with AsyncClient("127.0.0.1:1", reconnect=False) as client:
                    await client.publish("a", "1")
            case "closed client":
                async with AsyncClient("127.0.0.1:1") as client:
                    await client.close()
                    await client.publish("a", "1")
            case "passed on":
                try:
                    await self.downstream.unary(PUBLISH, PublishRequest(), WriteReply)
                except NotFoundError as error:
                    raise error.own() from None
            case "details":
                raise NotFoundError("no", details=["no message"])
            case _:
                raise ValueError("a fault")


class Missing(Writes):
    async def publish(self, publish_request: PublishRequest) -> WriteReply:
        raise NotFoundError("not down here")


FAULTS = [
    *("metadata", "late", "field", "type", "details", "error"),
    *("downstream", "misuse", "client", "closed client"),
]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_handlers_mistake_is_its_own(
    fault: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """INTERNAL without a word to the caller, one line with the place in the log."""
    handler = Faulty()
    async with serve([Missing()]) as handler.downstream, serve([handler]) as channel:
        error = await fails(channel, fault)
        assert (error.status, error.message) == (Status.INTERNAL, "internal error")
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (line,) = lines
    assert line.startswith(f"fault in a handler: {SUBSCRIBE} at ")
    assert f"{__file__}:" in line
    assert "\n" not in line
    assert all(record.exc_info is None for record in caplog.records)


async def test_an_error_is_passed_on_on_purpose(serve: Serve) -> None:
    handler = Faulty()
    async with serve([Missing()]) as handler.downstream, serve([handler]) as channel:
        error = await fails(channel, "passed on")
        assert (error.status, error.message) == (Status.NOT_FOUND, "not down here")


VIOLATION = rpc.BadRequestFieldViolation(field="topic", description="is too long")
DETAILS = [
    rpc.BadRequest(field_violations=[VIOLATION]),
    rpc.RetryInfo(retry_delay=timedelta(seconds=1.5)),
    rpc.ErrorInfo(reason="R", domain="d", metadata={"a": "b"}),
    BetterprotoString("well known"),
]


@pytest.mark.parametrize("how", ["ours", "grpclib's", "google's", "trailers", "bytes"])
async def test_details_of_an_error_travel(how: str, serve: Serve) -> None:
    theirs = StringValue(value="theirs")
    packed = pack_details(3, "no", DETAILS)

    class Detailed(Plain):
        async def Echo(self, stream: Any) -> None:
            await stream.recv_message()
            if how == "ours":
                raise InvalidArgumentError("no", details=DETAILS)
            if how == "trailers":
                await stream.send_trailing_metadata(
                    status=GrpclibStatus.INVALID_ARGUMENT,
                    status_message="no",
                    status_details=DETAILS,
                )
                return
            more: Any = {"grpclib's": DETAILS, "google's": theirs, "bytes": packed}[how]
            raise GRPCError(GrpclibStatus.INVALID_ARGUMENT, "no", more)

    async with serve([Detailed()]) as channel:
        with pytest.raises(InvalidArgumentError, match="no") as caught:
            await channel.unary(ECHO, StringValue(), StringValue)
        error = caught.value
        if how == "google's":
            assert [type(detail) for detail in error.details] == [BetterprotoString]
            assert error.details[0].value == "theirs"
        else:
            assert list(error.details) == DETAILS
            assert error.detail(rpc.RetryInfo) == DETAILS[1]
            assert error.detail(rpc.Help) is None
            assert error.status_details == packed


def test_details_that_cannot_be_read_hide_nothing() -> None:
    assert unpack_details("%%%") == (b"", ())
    assert unpack_details("CAM!C") == (b"", ())
    assert unpack_details("/w") == (b"\xff", ())
    unknown = Any_("type.googleapis.com/feed.v1.Tick", b"\x08\x01")
    broken = Any_("type.googleapis.com/google.rpc.RetryInfo", b"\xff")
    odd = Any_("type.googleapis.com/google.rpc.timedelta", b"")
    data = pack_details(3, "no", [unknown, broken, odd])
    assert unpack_details(details_header(data)[1]) == (data, (unknown, broken, odd))


def test_whatever_comes_as_details_is_no_fault() -> None:
    """A server's bytes end nobody's connection."""
    chance = random.Random(1)
    own = [name for name in vars(rpc) if name[0].isupper()]
    theirs = ["Duration", "Timestamp", "Struct", "Value", "Any", "FieldMask", "Enum", "Field"]
    kinds = [f"google.rpc.{name}" for name in own] + [f"google.protobuf.{name}" for name in theirs]
    for _ in range(3000):
        packed = [
            Any_(chance.choice(["type.googleapis.com/", ""]) + chance.choice([*kinds, "x", "."]))
            for _ in range(chance.randrange(3))
        ]
        for one in packed:
            starts = [8, 10, 16, 18, 26, 0, 1, 127, 255, chance.randrange(256)]
            one.value = bytes(chance.choices(starts, k=chance.randrange(24)))
        data = bytearray(bytes(rpc.Status(code=3, details=packed)))
        if data and chance.random() < 0.3:
            data[chance.randrange(len(data))] = chance.randrange(256)
        unpack_details(details_header(bytes(data))[1])


def test_details_that_cannot_be_sent_are_refused() -> None:
    large = rpc.DebugInfo(detail="x" * 100_000)
    for detail in (large, "text", Update(topic="t")):
        with pytest.raises(InternalError):
            pack_details(3, "no", [detail])
