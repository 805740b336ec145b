"""TLS as the server sees it: ALPN, the caller's certificate, peers that do not shake hands."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme

from streamkit.generated.streamservice import SubscribeRequest, Update
from streamkit.transport import context
from tests.transport.conftest import Dial, Serve
from tests.transport.services import Streams, ask

AUTHORITY = trustme.CA()
SERVER = AUTHORITY.issue_cert("localhost")
CALLER = AUTHORITY.issue_cert("caller@example.org", common_name="the caller")


def server_context(*, ask_certificate: bool = False) -> ssl.SSLContext:
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SERVER.configure_cert(secure)
    if ask_certificate:
        AUTHORITY.configure_trust(secure)
        secure.verify_mode = ssl.CERT_REQUIRED
    return secure


def client_context(*protocols: str, certificate: bool = False) -> ssl.SSLContext:
    secure = ssl.create_default_context()
    AUTHORITY.configure_trust(secure)
    if protocols:
        secure.set_alpn_protocols(list(protocols))
    if certificate:
        CALLER.configure_cert(secure)
    return secure


async def test_a_call_over_tls(serve: Serve, dial: Dial) -> None:
    client = await dial(await serve(ssl=server_context()), tls=client_context("h2"))
    answer = await client.ended(client.call(ask("count:3")))
    assert (answer.status, len(answer.messages)) == (0, 3)


async def test_the_certificate_of_the_caller_is_in_the_context(serve: Serve, dial: Dial) -> None:
    seen: list[object] = []

    class Who(Streams):
        async def subscribe_to_updates(
            self, subscribe_request: SubscribeRequest
        ) -> AsyncIterator[Update]:
            certificate = context().peer_certificate
            assert certificate is not None
            seen.append(certificate["subject"])
            yield Update()

    server = await serve(Who(), ssl=server_context(ask_certificate=True))
    client = await dial(server, tls=client_context("h2", certificate=True))
    assert (await client.ended(client.call(ask("x")))).status == 0
    assert "the caller" in str(seen[0])


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)], ids=["no ALPN", "HTTP/1.1"])
async def test_tls_without_http2_is_refused(
    protocols: tuple[str, ...], serve: Serve, dial: Dial
) -> None:
    server = await serve(ssl=server_context())
    client = await dial(server, tls=client_context(*protocols))
    await client.gone()
    assert not client.frames
    assert server.connections == 0


async def test_a_caller_without_a_certificate_is_refused(serve: Serve, dial: Dial) -> None:
    server = await serve(ssl=server_context(ask_certificate=True))
    try:
        client = await dial(server, tls=client_context("h2"))
        await client.gone()
    except (ssl.SSLError, ConnectionError):
        pass
    assert server.connections == 0


async def test_a_peer_that_does_not_shake_hands_is_dropped(serve: Serve) -> None:
    server = await serve(ssl=server_context(), handshake_timeout=0.2)
    host, _, port = server.addresses[0].rpartition(":")
    for first in (b"", b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(first)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 8)  # ten seconds where nothing else is said
        writer.close()
    assert server.connections == 0


async def test_large_messages_over_tls(serve: Serve, dial: Dial) -> None:
    server = await serve(ssl=server_context())
    client = await dial(server, {4: 1 << 24, 5: 1 << 20}, tls=client_context("h2"))
    client.send(client.window(0, 1 << 24))
    answer = await client.ended(client.call(ask("big:3000000")), 20)
    assert (answer.status, len(answer.messages[0])) == (0, 3_000_008)
