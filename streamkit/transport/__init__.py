"""gRPC over hardened HTTP/2: the only package that touches grpclib and h2 internals."""

from streamkit.framing import Framed
from streamkit.transport.client.call import Carrier, ClientCall, ClientInterceptor
from streamkit.transport.client.channel import Channel
from streamkit.transport.client.stubs import ServiceStub
from streamkit.transport.loop import loop_factory, run
from streamkit.transport.server.checking import Check
from streamkit.transport.server.context import Context, ServerInterceptor, context
from streamkit.transport.server.server import GrpcServer
from streamkit.transport.server.serving import Servable, Service
from streamkit.transport.server.stream import together
from streamkit.transport.server.web import Door, Guest, Visit, WebCall
from streamkit.transport.tls import client_tls, server_tls

__all__ = [
    "Carrier",
    "Channel",
    "Check",
    "ClientCall",
    "ClientInterceptor",
    "Context",
    "Door",
    "Framed",
    "GrpcServer",
    "Guest",
    "Servable",
    "ServerInterceptor",
    "Service",
    "ServiceStub",
    "Visit",
    "WebCall",
    "client_tls",
    "context",
    "loop_factory",
    "run",
    "server_tls",
    "together",
]
