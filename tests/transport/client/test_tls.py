"""TLS: names and authorities checked on both sides, HTTP/2 agreed on, files reloaded."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from streamkit.codec import StreamkitCodec
from streamkit.errors import ConnectError, PreconditionError
from streamkit.generated.streamservice import JobProgress, JobRequest, StreamServiceBase
from streamkit.transport import GrpcServer, client_tls, context, server_tls
from tests.transport.client.calls import listening, unary
from tests.transport.client.conftest import NewChannel
from tests.transport.client.raw_server import Peer, raw_server
from tests.transport.inside import pool_of


class Service(StreamServiceBase):
    """Says who calls."""

    async def watch_job_progress(self, request: JobRequest) -> AsyncIterator[JobProgress]:
        certificate: Any = context().peer_certificate
        names = certificate["subjectAltName"] if certificate else ()
        yield JobProgress(job_id=request.job_id, status=",".join(name for _, name in names))
        if request.job_id == "twice":
            await asyncio.sleep(0.1)
            yield JobProgress(job_id="again")


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    server = GrpcServer([Service()], codec=StreamkitCodec(), ssl=tls)
    await server.start("127.0.0.1", 0)
    try:
        yield server.port
    finally:
        await server.close()


class Files:
    """An authority and what it has issued, as PEM files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.ca = folder / "ca.pem"
        self.cert = folder / "server.pem"
        self.key = folder / "server.key"
        self.client_cert = folder / "client.pem"
        self.client_key = folder / "client.key"
        self.issue()

    def issue(self, *names: str) -> None:
        """A new authority and new certificates, into the same files."""
        authority = trustme.CA()
        self._write(self.ca, authority.cert_pem)
        server = authority.issue_cert(*(names or ("localhost", "127.0.0.1")))
        self._write(self.cert, *server.cert_chain_pems)
        self._write(self.key, server.private_key_pem)
        client = authority.issue_cert("someone@example.org")
        self._write(self.client_cert, *client.cert_chain_pems)
        self._write(self.client_key, client.private_key_pem)

    @staticmethod
    def _write(path: Path, *blobs: trustme.Blob) -> None:
        # By renaming, as renewal programs do it.
        fresh = path.with_suffix(".new")
        fresh.write_bytes(b"".join(blob.bytes() for blob in blobs))
        os.replace(fresh, path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "own")


async def refusal(connect: NewChannel, target: str, tls: ssl.SSLContext | None) -> ConnectError:
    channel = connect(target, ssl=tls, connect_timeout=2)
    with pytest.raises(ConnectError) as caught:
        await unary(channel)
    await channel.aclose()
    return caught.value


async def test_a_call_over_tls(connect: NewChannel, files: Files) -> None:
    async with serving(server_tls(files.cert, files.key)) as port:
        channel = connect(f"localhost:{port}", ssl=client_tls(files.ca))
        await unary(channel)
        protocol = pool_of(channel).connection
        assert protocol is not None
        tls = protocol.connection.transport.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "h2"
        assert tls.version() in ("TLSv1.2", "TLSv1.3")
        await channel.aclose()


async def test_true_stands_for_the_authorities_of_the_system(
    connect: NewChannel, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    async with serving(server_tls(files.cert, files.key)) as port:
        channel = connect(f"localhost:{port}", ssl=True)
        await unary(channel)
        await channel.aclose()


async def test_the_name_follows_the_connection(connect: NewChannel, files: Files) -> None:
    """Of several addresses each has the name that its certificate must have."""
    files.issue("localhost")
    async with serving(server_tls(files.cert, files.key)) as port:
        channel = connect(f"127.0.0.1:{port},localhost:{port}", ssl=client_tls(files.ca))
        await unary(channel)
        await channel.aclose()


async def test_mutual_tls(connect: NewChannel, files: Files, tmp_path: Path) -> None:
    stranger = Files(tmp_path / "stranger")
    async with serving(server_tls(files.cert, files.key, files.ca)) as port:
        target = f"localhost:{port}"
        known = client_tls(files.ca, files.client_cert, files.client_key)
        channel = connect(target, ssl=known)
        reply = await channel.unary(
            "/streamservice.StreamService/WatchJobProgress", JobRequest(), JobProgress
        )
        assert reply.status == "someone@example.org"
        await refusal(connect, target, client_tls(files.ca))
        unknown = client_tls(files.ca, stranger.client_cert, stranger.client_key)
        await refusal(connect, target, unknown)
        await channel.aclose()


async def test_a_wrong_authority_and_a_wrong_name(
    connect: NewChannel, files: Files, tmp_path: Path
) -> None:
    stranger = Files(tmp_path / "stranger")
    async with serving(server_tls(files.cert, files.key)) as port:
        error = await refusal(connect, f"localhost:{port}", client_tls(stranger.ca))
        assert "certificate is not accepted" in error.message
    files.issue("elsewhere.example.org")
    async with serving(server_tls(files.cert, files.key)) as port:
        error = await refusal(connect, f"localhost:{port}", client_tls(files.ca))
        assert "certificate is not accepted" in error.message
        channel = connect(
            f"localhost:{port}", ssl=client_tls(files.ca), server_name="elsewhere.example.org"
        )
        await unary(channel)
        await channel.aclose()


async def test_one_side_without_tls(connect: NewChannel, files: Files) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hang()

    async with serving(server_tls(files.cert, files.key)) as port:
        error = await refusal(connect, f"localhost:{port}", None)
        assert error.hint == "perhaps it expects TLS"
    with pytest.raises(AssertionError):  # the preface that the raw server did not get
        async with raw_server(script) as server:
            error = await refusal(connect, server.target, client_tls(files.ca))
            assert "TLS" in error.message


async def test_a_server_without_http2(connect: NewChannel, files: Files) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.cert, files.key)

    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(web, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        error = await refusal(connect, f"localhost:{port}", client_tls(files.ca))
        assert error.message == "the server does not speak HTTP/2 over TLS"
        await asyncio.sleep(0.01)


async def test_renewed_files_serve_the_next_connection(
    connect: NewChannel, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    tls = server_tls(files.cert, files.key)
    trust = client_tls(files.ca)
    async with serving(tls) as port:
        old_trust = ssl.create_default_context(cafile=files.ca)
        old_trust.set_alpn_protocols(["h2"])
        old = connect(f"localhost:{port}", ssl=old_trust)
        async with listening(old, request=JobRequest(job_id="twice")) as call:
            await call.receive()
            files.issue()
            # The client's context reloads as well: the same object trusts the new authority.
            new = connect(f"localhost:{port}", ssl=trust)
            await unary(new)
            await refusal(connect, f"localhost:{port}", old_trust)
            assert len(await call.receive()) == 1  # the old connection lives on
        await new.aclose()

        # Files that do not fit leave the former ones in use, and are reported once.
        files.key.write_text("nonsense")
        for _ in range(3):
            again = connect(f"localhost:{port}", ssl=client_tls(files.ca))
            await unary(again)
            await again.aclose()
        assert [record.levelno for record in caplog.records].count(logging.WARNING) == 1
        files.issue()
        await unary(connect(f"localhost:{port}", ssl=client_tls(files.ca)))


async def test_a_renewed_authority_of_clients_replaces_the_old(
    connect: NewChannel, files: Files, tmp_path: Path
) -> None:
    clients = Files(tmp_path / "clients")
    async with serving(server_tls(files.cert, files.key, clients.ca)) as port:
        target = f"localhost:{port}"
        former = client_tls(files.ca)
        former.load_cert_chain(clients.client_cert, clients.client_key)
        known = ssl.create_default_context(cafile=files.ca)
        known.set_alpn_protocols(["h2"])
        known.load_cert_chain(clients.client_cert, clients.client_key)
        await unary(connect(target, ssl=known))
        clients.issue()
        await refusal(connect, target, known)
        renewed = client_tls(files.ca, clients.client_cert, clients.client_key)
        await unary(connect(target, ssl=renewed))


def test_files_that_are_not_there(files: Files, tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match=r"nothing\.pem"):
        server_tls(tmp_path / "nothing.pem", files.key)
    with pytest.raises(PreconditionError):
        server_tls(files.cert, files.client_key)
    with pytest.raises(PreconditionError):
        client_tls(tmp_path / "nothing.pem")
    with pytest.raises(PreconditionError, match="key"):
        client_tls(files.ca, files.client_cert)


def test_what_the_contexts_insist_on(files: Files) -> None:
    for tls in (server_tls(files.cert, files.key, files.ca), client_tls(files.ca)):
        assert tls.verify_mode is ssl.CERT_REQUIRED
    assert client_tls(files.ca).check_hostname
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    server = server_tls(files.cert, files.key)
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = old.wrap_bio(theirs, ours)
    server_side = server.wrap_bio(ours, theirs, server_side=True)
    with pytest.raises(ssl.SSLError):
        for _ in range(3):
            for side in (client_side, server_side):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        raise AssertionError("the handshake went through")
