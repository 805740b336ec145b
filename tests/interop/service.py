"""The interoperability service, once on streamkit and once on grpcio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from streamkit.errors import InvalidArgumentError, Status, error_from_status
from streamkit.transport import context
from tests.interop.schema import Schema

ECHO_INITIAL = "x-grpc-test-echo-initial"
ECHO_TRAILING = "x-grpc-test-echo-trailing-bin"


def streamkit_service(schema: Schema) -> Any:
    """Return the service as a betterproto handler."""
    bp = schema.bp

    def begin() -> Any:
        ctx = context()
        if ECHO_INITIAL in ctx.metadata:
            ctx.set_initial_metadata({ECHO_INITIAL: ctx.metadata[ECHO_INITIAL]})
        if ECHO_TRAILING in ctx.metadata:
            ctx.set_trailing_metadata({ECHO_TRAILING: ctx.metadata[ECHO_TRAILING]})
        return ctx

    def check(request: Any) -> None:
        if request.response_status.code:
            status = Status(request.response_status.code)
            raise error_from_status(status, request.response_status.message)

    def payload(size: int) -> Any:
        return bp.Payload(body=bytes(size))

    class Service(bp.TestServiceBase):  # type: ignore[misc, name-defined]  # an untyped base
        async def empty_call(self, nothing: Any) -> Any:
            begin()
            return bp.Nothing()

        async def unary_call(self, request: Any) -> Any:
            ctx = begin()
            if request.expect_compressed and not ctx.message_compressed:
                raise InvalidArgumentError("the request should be compressed")
            check(request)
            if request.response_compressed:
                assert ctx.use_compression("gzip")
            return bp.UnaryReply(payload=payload(request.response_size))

        async def input_call(self, requests: AsyncIterator[Any]) -> Any:
            ctx = begin()
            total = 0
            async for request in requests:
                if request.expect_compressed and not ctx.message_compressed:
                    raise InvalidArgumentError("the request should be compressed")
                total += len(request.payload.body)
            return bp.InputReply(aggregated_size=total)

        async def output_call(self, request: Any) -> AsyncIterator[Any]:
            ctx = begin()
            if any(wanted.compressed for wanted in request.parameters):
                assert ctx.use_compression("gzip")
            for wanted in request.parameters:
                await asyncio.sleep(wanted.interval_us / 1e6)
                ctx.compress = wanted.compressed
                yield bp.OutputReply(payload=payload(wanted.size))
            check(request)

        async def duplex_call(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
            begin()
            async for request in requests:
                check(request)
                for wanted in request.parameters:
                    await asyncio.sleep(wanted.interval_us / 1e6)
                    yield bp.OutputReply(payload=payload(wanted.size))

    return Service()


def grpcio_servicer(schema: Schema) -> Any:
    """Return the service as a servicer of grpc.aio."""
    pb = schema.pb

    async def begin(ctx: Any) -> None:
        metadata = dict(ctx.invocation_metadata())
        if ECHO_TRAILING in metadata:
            ctx.set_trailing_metadata(((ECHO_TRAILING, metadata[ECHO_TRAILING]),))
        if ECHO_INITIAL in metadata:
            await ctx.send_initial_metadata(((ECHO_INITIAL, metadata[ECHO_INITIAL]),))

    async def check(request: Any, ctx: Any) -> None:
        if request.response_status.code:
            code = next(
                known for known in grpc.StatusCode if known.value[0] == request.response_status.code
            )
            await ctx.abort(code, request.response_status.message)

    def payload(size: int) -> Any:
        return pb.Payload(body=bytes(size))

    class Servicer(schema.grpc.TestServiceServicer):  # type: ignore[misc, name-defined]  # an untyped base
        async def EmptyCall(self, nothing: Any, ctx: Any) -> Any:
            await begin(ctx)
            return pb.Nothing()

        async def UnaryCall(self, request: Any, ctx: Any) -> Any:
            if request.response_compressed:
                ctx.set_compression(grpc.Compression.Gzip)
                # Announced with a unary reply it would be forgotten.
                await ctx.send_initial_metadata(())
            await begin(ctx)
            await check(request, ctx)
            return pb.UnaryReply(payload=payload(request.response_size))

        async def InputCall(self, requests: AsyncIterator[Any], ctx: Any) -> Any:
            await begin(ctx)
            sizes = [len(request.payload.body) async for request in requests]
            return pb.InputReply(aggregated_size=sum(sizes))

        async def OutputCall(self, request: Any, ctx: Any) -> AsyncIterator[Any]:
            if any(wanted.compressed for wanted in request.parameters):
                ctx.set_compression(grpc.Compression.Gzip)
            await begin(ctx)
            for wanted in request.parameters:
                await asyncio.sleep(wanted.interval_us / 1e6)
                if not wanted.compressed:
                    ctx.disable_next_message_compression()
                yield pb.OutputReply(payload=payload(wanted.size))
            await check(request, ctx)

        async def DuplexCall(self, requests: AsyncIterator[Any], ctx: Any) -> AsyncIterator[Any]:
            await begin(ctx)
            async for request in requests:
                await check(request, ctx)
                for wanted in request.parameters:
                    await asyncio.sleep(wanted.interval_us / 1e6)
                    yield pb.OutputReply(payload=payload(wanted.size))

    return Servicer()
