"""The service of `echo` on connectrpc and pyvoy (Envoy), and its client."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any

from connectrpc.client import ConnectClient
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_codecs
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from connectrpc.server import ConnectASGIApplication, Endpoint
from pyqwest import Client, HTTPTransport, HTTPVersion

__all__ = ["app", "run_client"]

sys.path.insert(0, os.environ["BENCH_SCHEMA"])
pb = import_module("echo_pb2")
SERVICE = "echo.Echo"


def method(name: str, kind: StreamType) -> MethodInfo[Any, Any]:
    return MethodInfo(
        name=name,
        service_name=SERVICE,
        input=pb.Note,
        output=pb.Note,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=kind,
    )


SAY, FAIL = method("Say", StreamType.UNARY), method("Fail", StreamType.UNARY)
GATHER = method("Gather", StreamType.CLIENT_STREAM)
CHAT = method("Chat", StreamType.BIDI_STREAM)


class Service:
    """As the others'."""

    async def say(self, note: Any, ctx: Any) -> Any:
        return pb.Note(text=note.text, number=note.number + 1, more=note.more)

    async def fail(self, note: Any, ctx: Any) -> Any:
        raise ConnectError(Code.NOT_FOUND, "no such note")

    async def gather(self, notes: AsyncIterator[Any], ctx: Any) -> Any:
        count = 0
        async for _ in notes:
            count += 1
        return pb.Note(number=count)

    async def chat(self, notes: AsyncIterator[Any], ctx: Any) -> AsyncIterator[Any]:
        async for note in notes:
            yield pb.Note(text=note.text, number=note.number + 1)


def endpoints(service: Service) -> Mapping[str, Any]:
    return {
        f"/{SERVICE}/Say": Endpoint.unary(SAY, service.say),
        f"/{SERVICE}/Fail": Endpoint.unary(FAIL, service.fail),
        f"/{SERVICE}/Gather": Endpoint.client_stream(GATHER, service.gather),
        f"/{SERVICE}/Chat": Endpoint.bidi_stream(CHAT, service.chat),
    }


class Application(ConnectASGIApplication[Service]):  # type: ignore[misc, unused-ignore]  # untyped
    """What pyvoy serves."""

    path = f"/{SERVICE}"


app = Application(
    service=Service(), endpoints=endpoints, compressions=(), codecs=google_protobuf_codecs()
)


async def run_client(main: Callable[[Any], Awaitable[None]], port: int, stack: Any) -> None:
    """`main` with a client of this stack; `stack` is the base of clients."""
    transport = HTTPTransport(http_version=HTTPVersion.HTTP2, enable_otel=False)
    client = ConnectClient(
        f"http://127.0.0.1:{port}",
        codec=google_protobuf_binary_codec(),
        protocol=ProtocolType.GRPC,
        send_compression=None,
        accept_compression=(),
        http_client=Client(transport),
    )

    class Calls(stack):  # type: ignore[misc]  # given by the caller
        def note(self, text: str, number: int) -> Any:
            return pb.Note(text=text, number=number)

        async def say(self, text: str, number: int, link: int = 0) -> int:
            note = pb.Note(text=text, number=number)
            return int((await client.execute_unary(request=note, method=SAY)).number)

        async def fail(self) -> None:
            try:
                await client.execute_unary(request=pb.Note(), method=FAIL)
            except ConnectError as error:
                if error.message != "no such note":
                    raise

        async def say_own(self, number: int, timeout: float, key: str) -> int:
            reply = await client.execute_unary(
                request=pb.Note(text="hello", number=number),
                method=SAY,
                headers={"x-request-id": key},
                timeout_ms=int(timeout * 1000),
            )
            return int(reply.number)

        async def gather(self, count: int) -> int:
            async def notes() -> AsyncIterator[Any]:
                for number in range(count):
                    yield pb.Note(text="note", number=number)

            reply = await client.execute_client_stream(request=notes(), method=GATHER)
            return int(reply.number)

        async def chat(self, notes: AsyncIterator[Any], got: Callable[[], None]) -> None:
            async for _ in client.execute_bidi_stream(request=notes, method=CHAT):
                got()

    await main(Calls())
