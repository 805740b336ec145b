"""gRPC over hardened HTTP/2: the only package that touches grpclib and h2 internals."""

from streamkit.transport.context import Context, ServerInterceptor, context
from streamkit.transport.framed import Framed
from streamkit.transport.server import GrpcServer

__all__ = ["Context", "Framed", "GrpcServer", "ServerInterceptor", "context"]
