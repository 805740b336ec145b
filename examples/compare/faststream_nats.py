"""FastStream on NATS JetStream: a broker in the place of a server, and no schema beside the code.

$ pip install 'faststream[nats]'
$ nats-server -js -sd store -p 50051 --auth $TOKEN
$ python faststream_nats.py watch 50051
"""

import asyncio
import os
import sys

from faststream import Context, FastStream
from faststream.nats import JStream, NatsBroker
from nats.js.api import DeliverPolicy
from pydantic import BaseModel

STREAM = JStream("orders")


class Order(BaseModel):
    item: str


def broker(port):
    return NatsBroker(f"nats://{os.environ['TOKEN']}@127.0.0.1:{port}", logger=None)


async def place(port, item):
    async with broker(port) as connected:
        await connected.publish(Order(item=item), "orders", stream="orders")


async def watch(port):
    connected = broker(port)

    @connected.subscriber(
        "orders", stream=STREAM, deliver_policy=DeliverPolicy.ALL, ordered_consumer=True
    )
    async def on_order(order: Order, message=Context()):  # noqa: B008  # FastStream's way
        print(message.raw_message.metadata.sequence.stream, order.item, flush=True)

    await FastStream(connected, logger=None).run()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["place", port, item]:
            asyncio.run(place(int(port), item))
        case ["watch", port]:
            asyncio.run(watch(int(port)))
