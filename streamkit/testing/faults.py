"""A relay between a client and its server that breaks connections on demand."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine
from typing import Any, Literal, Self

__all__ = ["Fault", "FaultProxy"]

Fault = Literal["cut", "half_close", "reset", "black_hole"]

_CHUNK = 65_536
_LINGER_ZERO = struct.pack("ii", 1, 0)


def _end(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.write_eof()


class _Link:
    """One relayed connection: a client on the near side, the target on the far side."""

    def __init__(
        self,
        near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.near_reader, self.near_writer = near
        self.far_reader, self.far_writer = far
        self.half_closed = False

    def cut(self) -> None:
        self.near_writer.close()
        self.far_writer.close()

    def half_close(self) -> None:
        self.half_closed = True
        _end(self.near_writer)

    def reset(self) -> None:
        for writer in (self.near_writer, self.far_writer):
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX and not writer.is_closing():
                # A linger of zero makes the kernel send RST instead of FIN.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            writer.transport.abort()


class FaultProxy:
    """Relays TCP connections on 127.0.0.1 to `target` and breaks them on demand.

        async with FaultProxy(server.address) as proxy:
            client = AsyncClient(proxy.address)
            proxy.reset()

    `target` is "host:port" or "unix:/path". The faults act on all live connections at once and
    none of them waits; `after(n, fault)` fires when exactly `n` more bytes went to the client.
    All methods are called on the loop that entered the context.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._port = 0
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._delay = 0.0
        self._piece = 0
        self._planned: tuple[int, Fault] | None = None
        self.accepted = 0
        """Connections taken since the start."""
        self.delivered = 0
        """Bytes passed to clients since the start."""

    @property
    def address(self) -> str:
        """Where clients connect; it stays the same for the proxy's life."""
        return f"127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """How many connections are relayed now."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._hang_up()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- faults ----

    def cut(self) -> None:
        """Close every connection orderly, in both directions."""
        for link in list(self._links):
            link.cut()

    def half_close(self) -> None:
        """End the direction to the client; what it sends is still relayed."""
        for link in list(self._links):
            link.half_close()

    def reset(self) -> None:
        """Break every connection with a TCP reset."""
        for link in list(self._links):
            link.reset()

    def black_hole(self) -> None:
        """Pass nothing from now on, in either direction; connections stay open."""
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Hold every chunk back for so long, in each direction."""
        self._delay = seconds

    def chop(self, size: int = 1) -> None:
        """Pass everything in writes of `size` bytes; 0 ends it."""
        self._piece = size

    async def refuse(self) -> None:
        """The server is away: refuse new connections and reset the live ones."""
        self._refusing = True
        await self._hang_up()
        self.reset()

    async def heal(self) -> None:
        """End refusing, black hole, delay, chopping and a planned fault."""
        self._delay = 0.0
        self._piece = 0
        self._planned = None
        self._flowing.set()
        if self._refusing:
            self._refusing = False
            await self._listen()

    def after(self, count: int, fault: Fault) -> None:
        """Commit `fault` once `count` more bytes went to clients. One plan at a time."""
        self._planned = (self.delivered + count, fault)

    def retarget(self, target: str) -> None:
        """Relay connections made from now on to another address."""
        self._target = target

    # ---- the relay ----

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _hang_up(self) -> None:
        if self._server is not None:
            # Not wait_closed(): it waits for the connections too, which may be live here.
            self._server.close()
            self._server = None
            await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._spawn(self._relay(reader, writer))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.startswith("unix:"):
            return await asyncio.open_unix_connection(self._target.removeprefix("unix:"))
        host, _, port = self._target.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._flowing.wait()
            far = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        link = _Link((reader, writer), far)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._to_server(link))
                group.create_task(self._to_client(link))
        except* OSError:
            pass  # a broken connection is this class's trade
        finally:
            self._links.discard(link)
            link.cut()
            for closed in (link.near_writer, link.far_writer):
                with contextlib.suppress(OSError):  # it was cut
                    await closed.wait_closed()

    async def _to_server(self, link: _Link) -> None:
        while data := await link.near_reader.read(_CHUNK):
            await self._pass()
            await self._write(link.far_writer, data)
        _end(link.far_writer)

    async def _to_client(self, link: _Link) -> None:
        while data := await link.far_reader.read(_CHUNK):
            await self._pass()
            while self._planned is not None and self.delivered + len(data) >= self._planned[0]:
                until, fault = self._planned
                room = max(0, until - self.delivered)
                await self._give(link, data[:room])
                data = data[room:]
                self._planned = None
                getattr(self, fault)()
                await self._flowing.wait()
            await self._give(link, data)
        _end(link.near_writer)

    async def _pass(self) -> None:
        if self._delay > 0:
            await asyncio.sleep(self._delay)
        await self._flowing.wait()

    async def _give(self, link: _Link, data: bytes) -> None:
        if not link.half_closed:
            await self._write(link.near_writer, data)
            self.delivered += len(data)

    async def _write(self, sink: asyncio.StreamWriter, data: bytes) -> None:
        step = self._piece or len(data) or 1
        for begin in range(0, len(data), step):
            if sink.is_closing():
                raise ConnectionResetError
            sink.write(data[begin : begin + step])
            await sink.drain()
            if self._piece:
                # Give the loop a turn, so that the pieces leave as single writes.
                await asyncio.sleep(0)
