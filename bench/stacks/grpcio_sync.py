"""grpcio with its threads, as server and as client; the client also single-threaded."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import grpc.experimental

from bench.stacks import load

pb = load.schema()


class Service:
    """The same streams as ours."""

    def subscribe(self, request: Any, ctx: Any) -> Iterator[Any]:
        what = request.topics[0]
        number = int(request.client_id or 0)
        if what == "count":
            for _ in range(number):
                yield pb.Update(topic=load.TOPIC, message=load.TEXT)
        elif what == "pace":
            for _ in range(number):
                time.sleep(load.PACE)
                yield pb.Update(topic=load.stamp(), message=load.TEXT)
        elif what == "big":
            for _ in range(number):
                yield pb.Update(message=load.BIG)


def serve() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    handler = grpc.unary_stream_rpc_method_handler(
        Service().subscribe,
        request_deserializer=pb.SubscribeRequest.FromString,
        response_serializer=pb.Update.SerializeToString,
    )
    _, service, method = load.SUBSCRIBE.split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    load.announce(port)
    load.wait_for_the_end()
    server.stop(None)


def client(task: str, port: int, number: int) -> None:
    options = [("grpc.max_receive_message_length", 8 * 1024 * 1024)]
    if task == "single":
        single = grpc.experimental.ChannelOptions.SingleThreadedUnaryStream
        options.append((single, 1))
        task = "count"
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        subscribe = channel.unary_stream(
            load.SUBSCRIBE,
            request_serializer=pb.SubscribeRequest.SerializeToString,
            response_deserializer=pb.Update.FromString,
        )
        if task == "latency":
            request = pb.SubscribeRequest(topics=["pace"], client_id=str(number))
            micros = [load.since(update.topic) for update in subscribe(request)]
            load.report(**load.latencies(micros))
            return

        def receive(count: int) -> None:
            request = pb.SubscribeRequest(topics=[task], client_id=str(count))
            got = sum(1 for _ in subscribe(request))
            assert got == count

        measure = load.payload_rate if task == "big" else load.rate
        load.report(**measure(receive))


def main() -> None:
    threading.stack_size(256 * 1024)
    if sys.argv[1] == "serve":
        serve()
    else:
        client(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))


if __name__ == "__main__":
    main()
