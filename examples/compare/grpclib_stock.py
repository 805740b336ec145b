"""grpclib, as it comes.

$ pip install grpclib protobuf grpcio-tools
$ python -m grpc_tools.protoc -I. --python_out=. --grpclib_python_out=. orders.proto
$ python grpclib_stock.py serve 50051
"""

import asyncio
import os
import random
import sys

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.events import RecvRequest, SendTrailingMetadata, listen
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.server import Server
from grpclib.utils import graceful_exit
from hub import Hub
from orders_grpc import OrdersBase, OrdersStub
from orders_pb2 import Order, WatchRequest

AUTHORIZATION = {"authorization": f"Bearer {os.environ['TOKEN']}"}
AGAIN = (Status.UNAVAILABLE, Status.CANCELLED, Status.INTERNAL)


class Orders(OrdersBase):
    def __init__(self):
        self.hub = Hub()

    async def Place(self, stream):
        request = await stream.recv_message()
        number = await self.hub.publish(request.item)
        await stream.send_message(Order(epoch=self.hub.epoch, number=number, item=request.item))

    async def Watch(self, stream):
        request = await stream.recv_message()
        async for number, item in self.hub.stream(request.epoch, request.after):
            await stream.send_message(Order(epoch=self.hub.epoch, number=number, item=item))


async def guard(event):
    if event.metadata.get("authorization") != AUTHORIZATION["authorization"]:
        raise GRPCError(Status.UNAUTHENTICATED, "not authenticated")

    handler, method, peer = event.method_func, event.method_name, event.peer.addr()

    async def logged(stream):
        status = "CANCELLED"
        try:
            await handler(stream)
            status = "OK"
        except Exception:
            status = "UNKNOWN"
            raise
        finally:
            print(method, status, peer, file=sys.stderr, flush=True)

    event.method_func = logged


async def told(event):
    if event.status is Status.UNAUTHENTICATED:
        print("a call", event.status.name, file=sys.stderr, flush=True)


async def serve(port):
    server = Server([Orders()])
    listen(server, RecvRequest, guard)
    listen(server, SendTrailingMetadata, told)
    with graceful_exit([server]):
        await server.start("127.0.0.1", port)
        await server.wait_closed()


async def place(port, item):
    async with Channel("127.0.0.1", port) as channel:
        await OrdersStub(channel).Place(Order(item=item), metadata=AUTHORIZATION, timeout=10)


async def watch(port):
    epoch, after, delay = "", 0, 0.2
    async with Channel("127.0.0.1", port) as channel:
        orders = OrdersStub(channel)
        while True:
            request = WatchRequest(epoch=epoch, after=after)
            try:
                async with orders.Watch.open(metadata=AUTHORIZATION) as stream:
                    await stream.send_message(request, end=True)
                    async for order in stream:
                        epoch, after, delay = order.epoch, order.number, 0.2
                        print(order.number, order.item, flush=True)
            except GRPCError as error:
                if error.status not in AGAIN:
                    raise
            except (StreamTerminatedError, OSError):
                pass  # the connection went, or was not there
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 1.6, 30)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", port]:
            asyncio.run(serve(int(port)))
        case ["place", port, item]:
            asyncio.run(place(int(port), item))
        case ["watch", port]:
            asyncio.run(watch(int(port)))
