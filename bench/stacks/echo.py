"""Calls on each stack, as server and as client: `echo serve|client STACK TASK ...`.

Every stack has the same server and the same client, and all clients run the same tasks.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.stacks import load

SECONDS = 1.5
KEYS = {f"x-key-{number}": f"value-{number}" * 3 for number in range(5)}
FOLDER = Path(os.environ["BENCH_SCHEMA"])
sys.path.insert(0, str(FOLDER))


class Stack:
    """What a client of a stack can do; a client opens `links` connections."""

    async def say(self, text: str, number: int, link: int = 0) -> int:
        """One call; returns the number that came back."""
        raise NotImplementedError

    async def say_own(self, number: int, timeout: float, key: str) -> int:
        """As `say`, with a deadline and an id of its own."""
        raise NotImplementedError

    async def fail(self) -> None:
        """One call that the server refuses."""
        raise NotImplementedError

    async def gather(self, count: int) -> int:
        """One call with a stream of requests; returns how many came."""
        raise NotImplementedError

    async def chat(self, notes: AsyncIterator[Any], got: Callable[[], None]) -> None:
        """One call with both streams; `got` is called for each answer."""
        raise NotImplementedError

    def note(self, text: str, number: int) -> Any:
        raise NotImplementedError


# streamkit, and grpclib with betterproto as they are installed -----------------------------------


def betterproto_service(echo: Any, refuse: Callable[[], Exception]) -> Any:
    class Service(echo.EchoBase):  # type: ignore[misc]  # an untyped base
        async def say(self, note: Any) -> Any:
            return echo.Note(note.text, note.number + 1, note.more)

        async def fail(self, note: Any) -> Any:
            raise refuse()

        async def gather(self, notes: AsyncIterator[Any]) -> Any:
            count = 0
            async for _ in notes:
                count += 1
            return echo.Note(number=count)

        async def chat(self, notes: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for note in notes:
                yield echo.Note(note.text, note.number + 1)

    return Service()


class BetterprotoClient(Stack):
    """A generated stub on a channel for each link."""

    def __init__(self, echo: Any, channels: list[Any], metadata: dict[str, str] | None) -> None:
        self._note = echo.Note
        self._stubs = [echo.EchoStub(channel, metadata=metadata) for channel in channels]

    def note(self, text: str, number: int) -> Any:
        return self._note(text, number)

    async def say(self, text: str, number: int, link: int = 0) -> int:
        return int((await self._stubs[link].say(self._note(text, number))).number)

    async def say_own(self, number: int, timeout: float, key: str) -> int:
        note, own = self._note("hello", number), {"x-request-id": key}
        return int((await self._stubs[0].say(note, timeout=timeout, metadata=own)).number)

    async def fail(self) -> None:
        try:
            await self._stubs[0].fail(self._note())
        except Exception as error:
            if "no such" not in str(error):
                raise

    async def gather(self, count: int) -> int:
        async def notes() -> AsyncIterator[Any]:
            for number in range(count):
                yield self._note("note", number)

        return int((await self._stubs[0].gather(notes())).number)

    async def chat(self, notes: AsyncIterator[Any], got: Callable[[], None]) -> None:
        async for _ in self._stubs[0].chat(notes):
            got()


def ours_server(port_of: Callable[[int], None], plain: bool, keyed: bool) -> None:
    from streamkit.codec import StreamkitCodec
    from streamkit.errors import NotFoundError
    from streamkit.transport import GrpcServer, run, server_tls

    echo = importlib.import_module("echo")

    async def interceptor(ctx: Any, call_next: Any) -> None:
        assert ctx.metadata["x-key-4"]
        await call_next(ctx)

    async def serve() -> None:
        secure = None if plain else server_tls(FOLDER / "chain.pem", FOLDER / "key.pem")
        server = GrpcServer(
            [betterproto_service(echo, lambda: NotFoundError("no such note"))],
            codec=StreamkitCodec(),
            interceptors=(interceptor,) if keyed else (),
            ssl=secure,
        )
        await server.start()
        port_of(server.port)
        await asyncio.to_thread(load.wait_for_the_end)
        await server.close()

    run(serve())


def ours_client(
    main: Callable[[Stack], Awaitable[None]], port: int, links: int, plain: bool, keyed: bool
) -> None:
    from streamkit.codec import StreamkitCodec
    from streamkit.transport import Channel, client_tls, run

    echo = importlib.import_module("echo")

    async def client() -> None:
        secure = None if plain else client_tls(ca=FOLDER / "ca.pem")
        target = f"localhost:{port}"
        channels = [Channel(target, codec=StreamkitCodec(), ssl=secure) for _ in range(links)]
        await main(BetterprotoClient(echo, channels, KEYS if keyed else None))
        for channel in channels:
            await channel.aclose()

    run(client())


def stock_server(port_of: Callable[[int], None], plain: bool, keyed: bool) -> None:
    import grpclib.events
    import grpclib.server
    from grpclib import GRPCError, Status

    sys.modules["betterproto_rust_codec"] = None  # type: ignore[assignment]  # plain betterproto
    echo = importlib.import_module("echo")

    async def listener(event: Any) -> None:
        assert event.metadata["x-key-4"]

    async def serve() -> None:
        service = betterproto_service(echo, lambda: GRPCError(Status.NOT_FOUND, "no such note"))
        server = grpclib.server.Server([service])
        if keyed:
            grpclib.events.listen(server, grpclib.events.RecvRequest, listener)
        await server.start("127.0.0.1", 0, ssl=None if plain else server_context())
        listening: Any = server._server
        port_of(listening.sockets[0].getsockname()[1])
        await asyncio.to_thread(load.wait_for_the_end)
        server.close()

    asyncio.run(serve())


def stock_client(
    main: Callable[[Stack], Awaitable[None]], port: int, links: int, plain: bool, keyed: bool
) -> None:
    import grpclib.client

    sys.modules["betterproto_rust_codec"] = None  # type: ignore[assignment]  # plain betterproto
    echo = importlib.import_module("echo")

    async def client() -> None:
        secure = None if plain else ssl.create_default_context(cafile=str(FOLDER / "ca.pem"))
        if secure is not None:
            secure.set_alpn_protocols(["h2"])
        channels = [grpclib.client.Channel("localhost", port, ssl=secure) for _ in range(links)]
        await main(BetterprotoClient(echo, channels, KEYS if keyed else None))
        for channel in channels:
            channel.close()

    asyncio.run(client())


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(FOLDER / "chain.pem", FOLDER / "key.pem")
    context.set_alpn_protocols(["h2"])
    return context


# grpcio, both ways -------------------------------------------------------------------------------


def aio_server(port_of: Callable[[int], None], plain: bool, keyed: bool) -> None:
    import grpc

    pb, rpc = importlib.import_module("echo_pb2"), importlib.import_module("echo_pb2_grpc")

    class Service(rpc.EchoServicer):  # type: ignore[misc, name-defined]  # an untyped base
        async def Say(self, note: Any, ctx: Any) -> Any:
            return pb.Note(text=note.text, number=note.number + 1, more=note.more)

        async def Fail(self, note: Any, ctx: Any) -> Any:
            await ctx.abort(grpc.StatusCode.NOT_FOUND, "no such note")

        async def Gather(self, notes: Any, ctx: Any) -> Any:
            count = 0
            async for _ in notes:
                count += 1
            return pb.Note(number=count)

        async def Chat(self, notes: Any, ctx: Any) -> Any:
            async for note in notes:
                yield pb.Note(text=note.text, number=note.number + 1)

    class Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # an untyped base
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            assert dict(details.invocation_metadata)["x-key-4"]
            return await continuation(details)

    async def serve() -> None:
        server = grpc.aio.server(interceptors=[Interceptor()] if keyed else [])
        rpc.add_EchoServicer_to_server(Service(), server)
        port_of(bound(server, plain))
        await server.start()
        await asyncio.to_thread(load.wait_for_the_end)
        await server.stop(None)

    asyncio.run(serve())


def bound(server: Any, plain: bool) -> int:
    import grpc

    if plain:
        return int(server.add_insecure_port("127.0.0.1:0"))
    pair = ((FOLDER / "key.pem").read_bytes(), (FOLDER / "chain.pem").read_bytes())
    return int(server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair])))


def aio_client(
    main: Callable[[Stack], Awaitable[None]], port: int, links: int, plain: bool, keyed: bool
) -> None:
    import grpc

    pb, rpc = importlib.import_module("echo_pb2"), importlib.import_module("echo_pb2_grpc")
    metadata = tuple(KEYS.items()) if keyed else None
    options = [("grpc.use_local_subchannel_pool", 1)]

    class Client(Stack):
        def __init__(self, channels: list[Any]) -> None:
            self._stubs = [rpc.EchoStub(channel) for channel in channels]

        def note(self, text: str, number: int) -> Any:
            return pb.Note(text=text, number=number)

        async def say(self, text: str, number: int, link: int = 0) -> int:
            note = pb.Note(text=text, number=number)
            return int((await self._stubs[link].Say(note, metadata=metadata)).number)

        async def say_own(self, number: int, timeout: float, key: str) -> int:
            note, own = pb.Note(text="hello", number=number), (("x-request-id", key),)
            return int((await self._stubs[0].Say(note, timeout=timeout, metadata=own)).number)

        async def fail(self) -> None:
            try:
                await self._stubs[0].Fail(pb.Note())
            except grpc.aio.AioRpcError as error:
                assert error.details() == "no such note"

        async def gather(self, count: int) -> int:
            async def notes() -> AsyncIterator[Any]:
                for number in range(count):
                    yield pb.Note(text="note", number=number)

            return int((await self._stubs[0].Gather(notes())).number)

        async def chat(self, notes: AsyncIterator[Any], got: Callable[[], None]) -> None:
            async for _ in self._stubs[0].Chat(notes):
                got()

    async def client() -> None:
        target = f"localhost:{port}"
        if plain:
            channels = [grpc.aio.insecure_channel(target, options) for _ in range(links)]
        else:
            trusted = grpc.ssl_channel_credentials((FOLDER / "ca.pem").read_bytes())
            channels = [grpc.aio.secure_channel(target, trusted, options) for _ in range(links)]
        await main(Client(channels))
        for channel in channels:
            await channel.close()

    asyncio.run(client())


def sync_server(port_of: Callable[[int], None], plain: bool, keyed: bool) -> None:
    import grpc

    pb, rpc = importlib.import_module("echo_pb2"), importlib.import_module("echo_pb2_grpc")

    class Service(rpc.EchoServicer):  # type: ignore[misc, name-defined]  # an untyped base
        def Say(self, note: Any, ctx: Any) -> Any:
            return pb.Note(text=note.text, number=note.number + 1, more=note.more)

        def Fail(self, note: Any, ctx: Any) -> Any:
            ctx.abort(grpc.StatusCode.NOT_FOUND, "no such note")

        def Gather(self, notes: Any, ctx: Any) -> Any:
            return pb.Note(number=sum(1 for _ in notes))

        def Chat(self, notes: Any, ctx: Any) -> Iterator[Any]:
            for note in notes:
                yield pb.Note(text=note.text, number=note.number + 1)

    server = grpc.server(ThreadPoolExecutor(16))
    rpc.add_EchoServicer_to_server(Service(), server)
    port_of(bound(server, plain))
    server.start()
    load.wait_for_the_end()
    server.stop(None)


# Others, which are installed with the group "bench" ---------------------------------------------


def connect_client(
    main: Callable[[Stack], Awaitable[None]], port: int, links: int, plain: bool, keyed: bool
) -> None:
    connect = importlib.import_module("bench.stacks.echo_connect")
    asyncio.run(connect.run_client(main, port, Stack))


def prepared_client(
    main: Callable[[Stack], Awaitable[None]], port: int, links: int, plain: bool, keyed: bool
) -> None:
    """Knows one task: 64 calls at once."""
    importlib.import_module("bench.stacks.echo_prepared").ask(port)


# The tasks ---------------------------------------------------------------------------------------


async def measured(calls: Callable[[int], Awaitable[None]], first: int) -> None:
    """Print the rate of `calls(count)`, over a run that is long enough, and our CPU time a call."""
    await calls(first)
    count = total = first
    while True:
        total += count
        cpu, start = time.process_time(), time.perf_counter()
        await calls(count)
        elapsed = time.perf_counter() - start
        if elapsed > 0.7 * SECONDS:
            spent = time.process_time() - cpu
            load.report(rate=count / elapsed, cpu=spent / count, total=total)
            return
        count = max(count + 1, int(count * min(10.0, SECONDS / elapsed)))


async def perform(task: str, stack: Stack, links: int) -> None:
    texts = {"kib": "x" * 4096, "mib": "x" * 1024 * 1024}
    text = texts.get(task.partition("-")[0], "hello")

    async def at_once(width: int, count: int, call: Callable[[int, int], Awaitable[None]]) -> None:
        numbers = iter(range(count))

        async def some(link: int) -> None:
            for number in numbers:
                await call(number, link % links)

        await asyncio.gather(*(some(link) for link in range(width)))

    async def say(number: int, link: int) -> None:
        assert await stack.say(text, number, link) == number + 1

    async def fail(number: int, link: int) -> None:
        await stack.fail()

    async def say_own(number: int, link: int) -> None:
        timeout = 5 + number % 1000 / 37
        assert await stack.say_own(number, timeout, f"{number:032x}") == number + 1

    if task in ("many", "links", "kib", "tls", "keys"):
        await measured(lambda count: at_once(64, count, say), 500)
    elif task == "own":
        await measured(lambda count: at_once(64, count, say_own), 500)
    elif task == "mib":
        await measured(lambda count: at_once(4, count, say), 8)
    elif task == "failing":
        await measured(lambda count: at_once(64, count, fail), 300)
    elif task == "one":
        micros: list[float] = []

        async def in_turn(count: int) -> None:
            for number in range(count):
                start = time.perf_counter()
                await say(number, 0)
                micros.append((time.perf_counter() - start) * 1e6)

        cpu, start = time.process_time(), time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            await in_turn(50)
        elapsed, spent = time.perf_counter() - start, time.process_time() - cpu
        count = len(micros)
        figures = load.latencies(micros)
        load.report(rate=count / elapsed, cpu=spent / count, total=count, **figures)
    elif task == "paced":
        micros = []
        for number in range(250):
            start = time.perf_counter()
            await say(number, 0)
            micros.append((time.perf_counter() - start) * 1e6)
            await asyncio.sleep(max(0.0, 0.01 - (time.perf_counter() - start)))
        load.report(rate=100, cpu=0, total=250, **load.latencies(micros))
    elif task == "upload":

        async def upload(count: int) -> None:
            assert await stack.gather(count) == count

        await measured(upload, 500)
    elif task in ("ping", "piped"):

        async def chat(count: int) -> None:
            turn = asyncio.Semaphore(1 if task == "ping" else 1 << 30)
            got = 0

            def answered() -> None:
                nonlocal got
                got += 1
                turn.release()

            async def notes() -> AsyncIterator[Any]:
                for number in range(count):
                    if task == "ping":
                        await turn.acquire()
                    yield stack.note("note", number)

            await stack.chat(notes(), answered)
            assert got == count

        await measured(chat, 300)
    else:
        raise SystemExit(f"no task {task}")


SERVERS: dict[str, Callable[..., None]] = {
    "ours": ours_server,
    "stock": stock_server,
    "aio": aio_server,
    "sync": sync_server,
}
CLIENTS: dict[str, Callable[..., None]] = {
    "ours": ours_client,
    "stock": stock_client,
    "aio": aio_client,
    "connect": connect_client,
    "prepared": prepared_client,
}


def main() -> None:
    # The words come in the order of the other stacks: role first.
    role, stack, task, *rest = sys.argv[1:]
    plain, keyed = task != "tls", task == "keys"
    if role == "serve":
        SERVERS[stack](load.announce, plain, keyed)
        return
    links = 64 if task == "links" else 1
    CLIENTS[stack](lambda found: perform(task, found, links), int(rest[0]), links, plain, keyed)


if __name__ == "__main__":
    main()
