"""gRPC over hardened HTTP/2: the only package that touches grpclib and h2 internals."""

from streamkit.transport._client_call import ClientCall
from streamkit.transport._client_interceptors import ClientInterceptor
from streamkit.transport.channel import Channel
from streamkit.transport.context import Context, ServerInterceptor, context
from streamkit.transport.framed import Framed
from streamkit.transport.loop import loop_factory, run
from streamkit.transport.server import GrpcServer
from streamkit.transport.tls import client_tls, server_tls

__all__ = [
    "Channel",
    "ClientCall",
    "ClientInterceptor",
    "Context",
    "Framed",
    "GrpcServer",
    "ServerInterceptor",
    "client_tls",
    "context",
    "loop_factory",
    "run",
    "server_tls",
]
