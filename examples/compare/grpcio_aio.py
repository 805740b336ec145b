"""grpcio, its asyncio API.

$ pip install grpcio grpcio-tools
$ python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. orders.proto
$ python grpcio_aio.py serve 50051
"""

import asyncio
import os
import random
import signal
import sys
import time

import grpc
from hub import Hub
from orders_pb2 import Order, WatchRequest
from orders_pb2_grpc import OrdersServicer, OrdersStub, add_OrdersServicer_to_server

AUTHORIZATION = ("authorization", f"Bearer {os.environ['TOKEN']}")
AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)


class Orders(OrdersServicer):
    def __init__(self):
        self.hub = Hub()

    async def Place(self, request, context):
        number = await self.hub.publish(request.item)
        return Order(epoch=self.hub.epoch, number=number, item=request.item)

    async def Watch(self, request, context):
        async for number, item in self.hub.stream(request.epoch, request.after):
            yield Order(epoch=self.hub.epoch, number=number, item=item)


class Guard(grpc.aio.ServerInterceptor):
    """Asks for the token, and writes a line for each call that ends."""

    async def intercept_service(self, continuation, details):
        handler = await continuation(details)
        if handler is None:
            return None
        if AUTHORIZATION not in details.invocation_metadata:

            async def refuse(request, context):
                self.log(details, context, time.monotonic(), "UNAUTHENTICATED")
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "not authenticated")

            if handler.response_streaming:
                return handler._replace(unary_stream=refuse)
            return handler._replace(unary_unary=refuse)

        async def unary(request, context):
            began, status = time.monotonic(), "UNKNOWN"
            try:
                reply = await handler.unary_unary(request, context)
                status = "OK"
                return reply
            finally:
                self.log(details, context, began, status)

        async def stream(request, context):
            began, status = time.monotonic(), "CANCELLED"
            try:
                async for reply in handler.unary_stream(request, context):
                    yield reply
                status = "OK"
            finally:
                self.log(details, context, began, status)

        if handler.response_streaming:
            return handler._replace(unary_stream=stream)
        return handler._replace(unary_unary=unary)

    def log(self, details, context, began, status):
        seconds = time.monotonic() - began
        print(details.method, status, context.peer(), f"{seconds:.3f}", file=sys.stderr, flush=True)


async def serve(port):
    server = grpc.aio.server(interceptors=[Guard()])
    add_OrdersServicer_to_server(Orders(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    await server.stop(grace=1)


async def place(port, item):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await OrdersStub(channel).Place(Order(item=item), metadata=[AUTHORIZATION], timeout=10)


async def watch(port):
    epoch, after, delay = "", 0, 0.2
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        orders = OrdersStub(channel)
        while True:
            request = WatchRequest(epoch=epoch, after=after)
            try:
                async for order in orders.Watch(request, metadata=[AUTHORIZATION]):
                    epoch, after, delay = order.epoch, order.number, 0.2
                    print(order.number, order.item, flush=True)
            except grpc.aio.AioRpcError as error:
                if error.code() not in AGAIN:
                    raise
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
