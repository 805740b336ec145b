"""streamkit.

$ pip install 'streamkit-grpc[gen]'
$ streamkit gen orders.proto --out .
$ streamkit token create me --role admin --access access.toml > token
$ python ours.py serve 50051
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import streamkit
from orders import Order, OrdersBase, OrdersStub, WatchRequest

AUTHORIZATION = {"authorization": f"Bearer {os.environ['TOKEN']}"}


class Orders(OrdersBase):
    def __init__(self) -> None:
        self.hub: streamkit.Hub[Order] = streamkit.Hub()

    async def place(self, order: Order) -> Order:
        order.epoch, order.number = self.hub.epoch, self.hub.position.sequence + 1
        self.hub.publish("orders", order)
        return order

    async def watch(self, watch_request: WatchRequest) -> AsyncIterator[Order]:
        place = (watch_request.epoch, watch_request.after)
        async for order in self.hub.stream("orders", after=place):
            yield order


def serve(port: int) -> None:
    streamkit.Server([Orders()], port=port, access="access.toml", access_log="-").run()


async def place(port: int, item: str) -> None:
    async with streamkit.Channel(f"localhost:{port}") as channel:
        await OrdersStub(channel, metadata=AUTHORIZATION).place(Order(item=item))


async def watch(port: int) -> None:
    async with streamkit.Channel(f"localhost:{port}") as channel:
        orders = OrdersStub(channel, metadata=AUTHORIZATION)
        watching = streamkit.resume(orders.watch, WatchRequest(), position="epoch,number")
        async for order in watching:
            print(order.number, order.item, flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["place", port, item]:
            asyncio.run(place(int(port), item))
        case ["watch", port]:
            asyncio.run(watch(int(port)))
