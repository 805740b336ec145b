"""Who calls: the user of a socket, a name in a certificate, a token."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.access.rules import Rules, parse_rules
from streamkit.client import AsyncClient
from streamkit.errors import AuthError, InvalidArgumentError, Status
from tests.access.servers import client_of, serve


async def test_the_user_of_a_unix_socket_is_an_identity(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for uid, known in ((os.getuid(), True), (os.getuid() + 1, False)):
        rules = parse_rules(f'[[peer]]\nuid = {uid}\nroles = ["reader"]')
        async with (
            serve(access=rules, path=path) as address,
            AsyncClient(address, reconnect=False) as client,
        ):
            if known:
                assert await client.jobs() == []
                with pytest.raises(AuthError, match="not allowed to publish"):
                    await client.publish("orders", "x")
            else:
                with pytest.raises(AuthError) as caught:
                    await client.jobs()
                assert caught.value.status is Status.UNAUTHENTICATED


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user may enter: those of pytest are closed by every run that begins."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
async def test_another_user_is_told_from_this_one(open_to_all: Path) -> None:
    path = open_to_all / "socket"
    rules = parse_rules('[[peer]]\nuid = 0\nroles = ["admin"]')
    seen: list[int | None] = []

    async def look(ctx: Any, call_next: Any) -> None:
        seen.append(ctx.peer_uid)
        await call_next(ctx)

    async with serve(access=rules, path=path, interceptors=[look]) as address:
        path.chmod(0o777)
        async with AsyncClient(address) as client:
            await client.jobs()
        child = await asyncio.create_subprocess_exec(
            "python3",
            "-c",
            "import os, socket, sys; os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(os.getuid())",
            str(path),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await child.communicate()
        assert out.strip() == b"65534"
    assert seen == [0]


@pytest.mark.parametrize(
    ("sans", "known"),
    [(["spiffe://shop/worker"], True), (["spiffe://shop/other"], False), ([], False)],
)
async def test_a_name_in_a_client_certificate_is_an_identity(
    tmp_path: Path, sans: list[str], known: bool
) -> None:
    import trustme

    from streamkit.transport import client_tls, server_tls

    authority = trustme.CA()
    paths = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key", "mine", "mykey")}
    authority.cert_pem.write_to_path(paths["ca"])
    server = authority.issue_cert("localhost")
    server.cert_chain_pems[0].write_to_path(paths["cert"])
    server.private_key_pem.write_to_path(paths["key"])
    # The common name says what the certificate's names do not: nobody may believe it.
    mine = _certificate(authority, sans, common_name="spiffe://shop/worker")
    paths["mine"].write_bytes(mine[0])
    paths["mykey"].write_bytes(mine[1])
    rules = parse_rules('[[certificate]]\nsan = "spiffe://shop/worker"\nroles = ["reader"]')
    ssl = server_tls(paths["cert"], paths["key"], paths["ca"])
    async with serve(access=rules, host="localhost", ssl=ssl) as address:
        tls = client_tls(paths["ca"], paths["mine"], paths["mykey"])
        async with AsyncClient(address, ssl=tls, reconnect=False) as client:
            if known:
                assert await client.jobs() == []
            else:
                with pytest.raises(AuthError) as caught:
                    await client.jobs()
                assert caught.value.status is Status.UNAUTHENTICATED


def _certificate(authority: Any, sans: list[str], common_name: str) -> tuple[bytes, bytes]:
    """A client certificate with these URIs (trustme makes none) and this common name."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    signer: Any = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if sans:
        names = [x509.UniformResourceIdentifier(san) for san in sans]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


async def test_a_wrong_token_is_not_mended_by_another_proof(tmp_path: Path) -> None:
    rules = parse_rules(f'[[peer]]\nuid = {os.getuid()}\nroles = ["admin"]')
    async with (
        serve(access=rules, path=tmp_path / "socket") as address,
        client_of(address, "sk_x_" + "A" * 43, reconnect=False) as client,
    ):
        with pytest.raises(AuthError) as caught:
            await client.jobs()
    assert caught.value.status is Status.UNAUTHENTICATED


async def test_a_database_cannot_take_the_name_of_the_store(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="own store"):
        async with serve(access=Rules(), databases={"store": str(tmp_path / "x.db")}):
            pass
