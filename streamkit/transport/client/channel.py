"""The channel: a server's address, the connections to it, and the calls made on them."""

from __future__ import annotations

import asyncio
import dataclasses
import platform
import ssl as _ssl
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar, cast

import grpclib.client
from grpclib.const import Cardinality
from grpclib.encoding.base import CodecBase
from grpclib.metadata import Deadline
from multidict import MultiDict

import streamkit.transport.client.stubs  # noqa: F401  # takes over the client half of stubs
from streamkit.codec import StreamkitCodec
from streamkit.config import TransportLimits
from streamkit.errors import InvalidArgumentError, internal
from streamkit.terms import VERSION
from streamkit.transport.client.addresses import parse_target
from streamkit.transport.client.call import CallSettings, Carrier, ClientCall, ClientInterceptor
from streamkit.transport.client.pool import Pool
from streamkit.transport.client.service_config import ServiceConfig
from streamkit.transport.client.stub import StubStream
from streamkit.transport.grpc.compression import ACCEPTED
from streamkit.transport.grpc.deadline import checked_seconds, served
from streamkit.transport.grpc.metadata import MetadataLike
from streamkit.transport.tls import client_tls

__all__ = ["Channel"]

Request = TypeVar("Request")
Reply = TypeVar("Reply")

_FOREVER = 1e6  # seconds: eleven days, and no number that a clock or a socket cannot take
_USER_AGENT = f"grpc-python-streamkit/{VERSION} ({platform.system().lower()})"


class Channel(grpclib.client.Channel):
    """Calls to one server.

    `target` is "host:port", "[ipv6]:port", "unix:/path", or "dns:///name:port" for a name that is
    several servers; or several of these with commas between. Of several, in an order drawn once,
    the first that answers is taken; the next is tried after 250 ms, and one that refused or went
    away is tried last for 10 s. Nothing is dialled before the first
    call; a connection that was lost, or that the server sends away, is replaced at the next one,
    while the calls on the old one go on. `connect_timeout` bounds the wait for a connection and for
    a free stream on it. After `keepalive` seconds of silence (`limits.keepalive_time` unless given)
    the server is asked for a sign of life, and a dead connection is aborted. `ssl` is a context
    (see `client_tls`), or True for one with the system's authorities. With `compression` ("gzip")
    requests are compressed unless a call says otherwise. `service_config` is gRPC's (JSON, or what
    it becomes): deadlines, and retries of calls whose response has not begun. A `carrier` takes the
    place of connections altogether (see `streamkit.testing`).

    Generated stubs and grpclib's own methods run on it unchanged; their failures are
    StreamkitErrors, not GRPCErrors. Must be created where an event loop runs, and closed.
    """

    def __init__(
        self,
        target: str,
        *,
        codec: CodecBase | None = None,
        limits: TransportLimits | None = None,
        interceptors: Sequence[ClientInterceptor] = (),
        ssl: _ssl.SSLContext | bool | None = None,
        keepalive: float | None = None,
        connect_timeout: float = 20.0,
        compression: str = "",
        server_name: str | None = None,
        service_config: str | Mapping[str, Any] | None = None,
        carrier: Carrier | None = None,
    ) -> None:
        config = ServiceConfig.parse(service_config)
        codec = StreamkitCodec() if codec is None else codec
        limits = TransportLimits() if limits is None else limits
        if keepalive is not None:
            silence = checked_seconds(keepalive, "keepalive")
            limits = dataclasses.replace(limits, keepalive_time=silence or _FOREVER)
        address = parse_target(target)[0]
        patience = checked_seconds(connect_timeout, "connect_timeout")
        patience = _FOREVER if patience is None else patience
        tls = client_tls() if ssl is True else ssl or None
        # The base class is there for isinstance() and for the attributes that its users read.
        super().__init__(address.host or None, address.port, codec=codec, ssl=tls)
        self._path = address.path  # grpclib's
        self._pool = carrier or Pool(
            target,
            limits=limits,
            tls=tls,
            connect_timeout=patience,
            server_name=server_name,
        )
        self._service_config = config
        self._compression = _checked_compression(compression)
        subtype = codec.__content_subtype__
        base = [
            (":method", "POST"),
            (":scheme", self._scheme),
            ("te", "trailers"),
            (
                "content-type",
                "application/grpc" if subtype == "proto" else f"application/grpc+{subtype}",
            ),
            ("user-agent", _USER_AGENT),
            ("grpc-accept-encoding", ACCEPTED),
        ]
        self._settings = CallSettings(self._pool, codec, base, tuple(interceptors), limits)

    def __repr__(self) -> str:
        return f"Channel({self.target!r})"

    @property
    def target(self) -> str:
        """The address as it was given."""
        return self._pool.target

    @property
    def closing(self) -> asyncio.Event:
        """Set when the channel is closed: whoever would try again ends instead."""
        return self._pool.closing

    async def unary(
        self,
        path: str,
        request: Request,
        reply_type: type[Reply],
        *,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        compression: str | None = None,
    ) -> Reply:
        """Make a call with one request and one reply. Raises only StreamkitErrors."""
        async with self.new_call(
            path,
            type(request),
            reply_type,
            request=request,
            timeout=timeout,
            metadata=metadata,
            compression=compression,
        ) as call:
            return await call.reply()

    def stream(
        self,
        path: str,
        request_type: type[Request],
        reply_type: type[Reply],
        *,
        request: Request | None = None,
        timeout: float | None = None,
        metadata: MetadataLike | None = None,
        compression: str | None = None,
        decoder: Callable[[bytes], Reply] | None = None,
    ) -> ClientCall[Request, Reply]:
        """Return a call to be entered with `async with`.

        With `request` it is the only one and the sending side is ended; without it, messages are
        sent through the call. `timeout` is for the whole call, in seconds; inside a handler the
        handler's own deadline holds as well.

        A `decoder` takes the place of the codec's, for large messages: it is given each one as
        bytes, or as a read-only memoryview of where it was received, to be kept without a copy.
        """
        return self.new_call(
            path,
            request_type,
            reply_type,
            request=request,
            timeout=timeout,
            metadata=metadata,
            compression=compression,
            decoder=decoder,
        )

    def new_call(
        self,
        path: str,
        request_type: type[Request],
        reply_type: type[Reply],
        *,
        request: Request | None,
        timeout: float | None,
        metadata: MetadataLike | None,
        compression: str | None = None,
        decoder: Callable[[bytes], Reply] | None = None,
    ) -> ClientCall[Request, Reply]:
        if not (path.isascii() and path.isprintable()):
            raise internal(InvalidArgumentError(f"{path!a} is not the path of a method"))
        timeout = checked_seconds(timeout)
        config = self._service_config.of(path)
        if config.timeout is not None:
            timeout = config.timeout if timeout is None else min(timeout, config.timeout)
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        return ClientCall(
            self._settings,
            path,
            request_type,
            reply_type,
            request=request,
            metadata=MultiDict() if metadata is None else MultiDict(_pairs(metadata)),
            deadline=deadline,
            served=served(),
            retrying=self._service_config.retrying(config),
            compression=self._compression
            if compression is None
            else _checked_compression(compression),
            decoder=decoder,
        )

    def request(
        self,
        name: str,
        cardinality: Cardinality,
        request_type: type[Request],
        reply_type: type[Reply],
        *,
        timeout: float | None = None,
        deadline: Deadline | None = None,
        metadata: Any = None,
    ) -> StubStream[Request, Reply]:
        """What stubs call; grpclib's signature."""
        timeout = checked_seconds(timeout)
        if timeout is not None:
            own = Deadline.from_timeout(timeout)
            deadline = own if deadline is None else min(own, deadline)
        return StubStream(
            self.new_call,
            self.peer,
            name,
            cast(Any, MultiDict(_pairs(metadata))),
            cardinality,
            request_type,
            reply_type,
            codec=self._codec,
            status_details_codec=None,
            dispatch=self.__dispatch__,
            deadline=deadline,
        )

    def peer(self) -> Any:
        """The server's address and certificate, while there is a connection."""
        return self._pool.peer()

    async def reset(self) -> None:
        """Abort the connections; their calls end with ConnectError, the next call dials anew."""
        self._pool.reset("given up here")

    async def aclose(self) -> None:
        """Close the connections; calls that still run end with ConnectError."""
        await self._pool.close()

    def close(self) -> None:
        """As `aclose`, for code that cannot wait."""
        self._pool.close_now()

    def __del__(self) -> None:
        pool = getattr(self, "_pool", None)
        if pool is not None and pool.peer() is not None and not self._loop.is_closed():
            pool.close_now()

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _pairs(metadata: MetadataLike | None) -> list[tuple[str, str | bytes]]:
    if metadata is None:
        return []
    return list(metadata.items() if isinstance(metadata, Mapping) else metadata)


def _checked_compression(name: str) -> str:
    if name not in ("", "identity", "gzip", "deflate"):
        raise internal(InvalidArgumentError(f"compression {name!r} is unknown", hint="use gzip"))
    return "" if name == "identity" else name
