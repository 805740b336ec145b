"""A process of subscribers that stop reading: `python -m tests.proof.stalling SETTINGS`.

They are raw clients that give no window back. The first line says that all are subscribed, the
second, once the server has cut the last one, when (by the monotonic clock) it cut the first and
the last.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import h2.config
import h2.connection
import h2.events

from streamkit.codec import encode
from streamkit.generated.streamservice import SubscribeRequest
from tests.proof.processes import die_with_parent


class Stalled(asyncio.Protocol):
    """Subscribes and never reads again; it only sees the end."""

    def __init__(self, topic: str) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self.subscribed = asyncio.get_running_loop().create_future()
        self._topic = topic
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        self._h2.send_headers(
            1,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/streamservice.StreamService/SubscribeToUpdates"),
                (":authority", "test"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
            ],
        )
        data = encode(SubscribeRequest(topics=[self._topic]))
        self._h2.send_data(1, b"\0" + len(data).to_bytes(4, "big") + data, end_stream=True)
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        # Read, but no window is ever given back: to the server that is a reader who has stopped.
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived) and not self.subscribed.done():
                self.subscribed.set_result(None)
            if isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                self._end()
        self._transport.write(self._h2.data_to_send())

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(time.monotonic())


async def main(address: str, topic: str, count: int) -> None:
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    made: list[Stalled] = []
    for first in range(0, count, 50):
        some = range(min(50, count - first))
        dialled = (loop.create_connection(lambda: Stalled(topic), host, int(port)) for _ in some)
        made += [protocol for _, protocol in await asyncio.gather(*dialled)]
    await asyncio.gather(*(protocol.subscribed for protocol in made))
    print(json.dumps(len(made)), flush=True)
    cut = await asyncio.gather(*(protocol.ended for protocol in made))
    print(json.dumps([min(cut), max(cut)]), flush=True)


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(main(**json.loads(sys.argv[1])))
