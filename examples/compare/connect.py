"""connectrpc, its own protocol over HTTP/1.1 by uvicorn (gRPC needs another server).

$ pip install connectrpc uvicorn grpcio-tools protoc-gen-py protoc-gen-connectrpc
$ python -m grpc_tools.protoc -I. --py_out=gen --connectrpc_out=gen orders.proto
$ python connect.py serve 50051
"""

import asyncio
import os
import random
import sys

import uvicorn
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from gen.orders_connect import OrdersASGIApplication, OrdersClient
from gen.orders_pb import Order, WatchRequest
from hub import Hub

AUTHORIZATION = {"authorization": f"Bearer {os.environ['TOKEN']}"}
AGAIN = (Code.UNAVAILABLE, Code.CANCELED, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS)


class Orders:
    def __init__(self):
        self.hub = Hub()

    async def place(self, request, ctx):
        number = await self.hub.publish(request.item)
        return Order(epoch=self.hub.epoch, number=number, item=request.item)

    async def watch(self, request, ctx):
        async for number, item in self.hub.stream(request.epoch, request.after):
            yield Order(epoch=self.hub.epoch, number=number, item=item)


class Guard:
    """Asks for the token, and writes a line for each call that ends."""

    async def on_start(self, ctx):
        if ctx.request_headers.get("authorization") != AUTHORIZATION["authorization"]:
            self.log(ctx, "unauthenticated")
            raise ConnectError(Code.UNAUTHENTICATED, "not authenticated")

    async def on_end(self, token, ctx, error=None):
        self.log(ctx, "ok" if error is None else str(error))

    def log(self, ctx, status):
        print(ctx.method.name, status, ctx.client_address, file=sys.stderr, flush=True)


def serve(port):
    app = OrdersASGIApplication(Orders(), interceptors=[Guard()])
    uvicorn.run(app, port=port, log_level="warning", timeout_graceful_shutdown=1)


async def place(port, item):
    async with OrdersClient(f"http://127.0.0.1:{port}") as orders:
        await orders.place(Order(item=item), headers=AUTHORIZATION, timeout_ms=10_000)


async def watch(port):
    epoch, after, delay = "", 0, 0.2
    async with OrdersClient(f"http://127.0.0.1:{port}") as orders:
        while True:
            request = WatchRequest(epoch=epoch, after=after)
            try:
                async for order in orders.watch(request, headers=AUTHORIZATION):
                    epoch, after, delay = order.epoch, order.number, 0.2
                    print(order.number, order.item, flush=True)
            except ConnectError as error:
                if error.code not in AGAIN:
                    raise
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 1.6, 30)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            serve(int(port))
        case ["place", port, item]:
            asyncio.run(place(int(port), item))
        case ["watch", port]:
            asyncio.run(watch(int(port)))
