"""The three ways between a client and a server, and the credentials for both libraries."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import trustme

from streamkit.transport import GrpcServer, client_tls, server_tls


@dataclass(frozen=True)
class Certificates:
    """PEM files of one authority, one server and one client."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def make_certificates(folder: Path) -> Certificates:
    """Issue certificates for localhost."""
    authority = trustme.CA()
    found = Certificates(
        ca=folder / "ca.pem",
        server_cert=folder / "server.pem",
        server_key=folder / "server.key",
        client_cert=folder / "client.pem",
        client_key=folder / "client.key",
    )
    authority.cert_pem.write_to_path(str(found.ca))
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_pem.write_to_path(str(found.server_key))
    write_chain(server, found.server_cert)
    client = authority.issue_cert("client@localhost")
    client.private_key_pem.write_to_path(str(found.client_key))
    write_chain(client, found.client_cert)
    return found


def write_chain(issued: trustme.LeafCert, path: Path) -> None:
    """Write a certificate with its chain."""
    path.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))


class Link:
    """How the two sides of one test meet."""

    def __init__(self, kind: str, certificates: Certificates, folder: Path) -> None:
        self.kind = kind
        self._certificates = certificates
        self._path = folder / "socket"
        self._port = 0

    @property
    def target(self) -> str:
        if self.kind == "unix":
            return f"unix:{self._path}"
        return f"localhost:{self._port}" if self.kind == "tls" else f"127.0.0.1:{self._port}"

    # streamkit's side

    @property
    def server_ssl(self) -> ssl.SSLContext | None:
        found = self._certificates
        return server_tls(found.server_cert, found.server_key) if self.kind == "tls" else None

    @property
    def client_ssl(self) -> ssl.SSLContext | None:
        return client_tls(self._certificates.ca) if self.kind == "tls" else None

    async def start(self, server: GrpcServer) -> None:
        if self.kind == "unix":
            await server.start(path=str(self._path))
        else:
            await server.start("127.0.0.1", 0)
            self._port = server.port

    # grpcio's side

    def bind(self, server: grpc.aio.Server) -> None:
        if self.kind == "unix":
            server.add_insecure_port(self.target)
        elif self.kind == "tls":
            found = self._certificates
            pair = (found.server_key.read_bytes(), found.server_cert.read_bytes())
            credentials = grpc.ssl_server_credentials([pair])
            self._port = server.add_secure_port("127.0.0.1:0", credentials)
        else:
            self._port = server.add_insecure_port("127.0.0.1:0")

    def channel(self, **options: object) -> grpc.aio.Channel:
        if self.kind == "tls":
            return grpc.aio.secure_channel(self.target, self._credentials(), **options)
        return grpc.aio.insecure_channel(self.target, **options)

    def blocking_channel(self) -> grpc.Channel:
        """For use in a thread."""
        if self.kind == "tls":
            return grpc.secure_channel(self.target, self._credentials())
        return grpc.insecure_channel(self.target)

    def _credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self._certificates.ca.read_bytes())
