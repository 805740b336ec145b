"""One connection that sends much does not keep the loop from the others."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from streamkit.generated.streamservice import PublishRequest, Update
from streamkit.transport import GrpcServer
from streamkit.transport.http2 import cutter as frames
from tests.transport.conftest import Dial, Serve
from tests.transport.raw import PUBLISH, RawClient
from tests.transport.services import PlainCodec, Streams, Writes, ask


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """No chunk gets more than two looks at the clock."""
    monkeypatch.setattr(frames, "_TURN", 1e-9)


@pytest.mark.usefixtures("short_turns")
async def test_a_chunk_of_many_frames_takes_several_turns(serve: Serve, dial: Dial) -> None:
    server = await serve()
    client = await dial(server)
    assert await client.pong()
    (protocol,) = server._connections
    steps: list[int] = []
    cutter = protocol._cutter
    assert cutter is not None

    whole = cutter

    class Stepping:
        """The cutter, with the frames of each of its turns noted."""

        def __getattr__(self, name: str) -> object:
            return getattr(whole, name)

        def feed(self, data: bytes) -> None:
            before = whole.frames
            whole.feed(data)
            steps.append(whole.frames - before)

    protocol._cutter = Stepping()  # type: ignore[assignment]  # stands in for it
    pings = [client.ping(number.to_bytes(8, "big")) for number in range(80)]
    client.send(*pings)
    stream = client.call(ask("count:3"))
    answer = await client.ended(stream)
    assert len(answer.messages) == 3
    assert max(steps) <= 16
    assert sum(steps) == 82
    echoed = [
        int.from_bytes(f.opaque_data, "big") for f in client.frames if hasattr(f, "opaque_data")
    ]
    assert echoed[-80:] == list(range(80))


@pytest.mark.usefixtures("short_turns")
async def test_others_are_served_between(serve: Serve, dial: Dial) -> None:
    server = await serve()
    greedy, other = await dial(server), await dial(server)
    assert await greedy.pong()
    assert await other.pong()
    order: list[str] = []
    calls = [greedy.call(b"", PUBLISH) for _ in range(400)]
    one = other.call(b"", PUBLISH)

    async def ended(name: str, client: RawClient, stream: int) -> None:
        answer = await client.ended(stream)
        assert answer.status == 0
        order.append(name)

    await asyncio.gather(ended("other", other, one), ended("last", greedy, calls[-1]))
    assert order == ["other", "last"]


@pytest.mark.usefixtures("short_turns")
async def test_what_is_left_is_processed_before_the_end(serve: Serve, dial: Dial) -> None:
    """A client that sends much and closes at once: all of it counts, and then it is gone."""
    server = await serve()
    client = await dial(server)
    assert await client.pong()
    (protocol,) = server._connections
    cutter = protocol._cutter
    assert cutter is not None
    before = cutter.frames
    client.send(*[client.ping() for _ in range(90)])
    client.writer.write_eof()
    async with asyncio.timeout(5):
        while server.connections:
            await asyncio.sleep(0)
    assert cutter.frames - before == 90


@pytest.mark.usefixtures("short_turns")
async def test_a_fault_in_what_is_left_ends_the_connection(serve: Serve, dial: Dial) -> None:
    server = await serve(pings=40)
    client = await dial(server)
    assert await client.pong()
    client.send(*[client.ping() for _ in range(90)])
    assert await client.gone() == 11
    other = await dial(server)
    assert await other.pong()


class Patient(PlainCodec):
    """Takes as long to decode a large request as it takes the test to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()

    def decode(self, data: bytes, message_type: Any) -> Any:
        if len(data) > 100_000:
            assert self.go_on.wait(5), "nobody was served in the meantime"
        return super().decode(data, message_type)


async def test_a_large_request_is_decoded_beside_the_others(
    streams: Streams, writes: Writes, dial: Dial
) -> None:
    codec = Patient()
    request = bytes(PublishRequest(updates=[Update(topic="t", message="x" * 200_000)]))
    server = GrpcServer([streams, writes], codec=codec)
    await server.start()
    large, other = await dial(server), await dial(server)
    call = large.call(request, PUBLISH)
    answer = await other.ended(other.call(ask("count:3")))
    assert (answer.status, len(answer.messages)) == (0, 3)
    assert not writes.received
    # A caller who gives up is not waited for, nor is a server that ends.
    gone = large.call(request, PUBLISH)
    large.send(large.rst(gone))
    codec.go_on.set()
    assert (await large.ended(call)).status == 0
    assert len(writes.received) == 1
    await server.close()
