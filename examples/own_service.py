"""A service of your own in one file, its messages written in Python: no schema, no generated code.

python own_service.py          serves it, calls it, and shows what a stream brings
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import betterproto
from betterproto.grpc.grpclib_server import ServiceBase
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

import streamkit

PATH = "/shop.Counter/Count"


@dataclass(eq=False, repr=False)
class Range(betterproto.Message):
    after: int = betterproto.uint64_field(1)
    until: int = betterproto.uint64_field(2)


@dataclass(eq=False, repr=False)
class Number(betterproto.Message):
    number: int = betterproto.uint64_field(1)


class Counter(ServiceBase):
    async def count(self, wanted: Range) -> AsyncIterator[Number]:
        for number in range(wanted.after + 1, wanted.until + 1):
            yield Number(number)

    async def _count(self, stream: Stream[Range, Number]) -> None:
        await self._call_rpc_handler_server_stream(self.count, stream, await stream.recv_message())

    def __mapping__(self) -> dict[str, Handler]:
        return {PATH: Handler(self._count, Cardinality.UNARY_STREAM, Range, Number)}


class CounterStub(streamkit.ServiceStub):
    async def count(self, wanted: Range) -> AsyncIterator[Number]:
        async for number in self._unary_stream(PATH, wanted, Number):
            yield number


async def main() -> None:
    async with (
        streamkit.Server([Counter()], port=0) as server,
        streamkit.Channel(server.address) as channel,
    ):
        async for found in CounterStub(channel).count(Range(after=2, until=5)):
            print(found.number)


asyncio.run(main())
