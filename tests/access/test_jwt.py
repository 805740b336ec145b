"""Signed tokens of somebody else: what is believed, and what is not."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from streamkit.access.jwt import JwtVerifier
from streamkit.access.rules import JwtRules, parse_rules
from streamkit.client import AsyncClient, ClientEvent
from streamkit.errors import AuthError, Status
from tests.access.servers import serve

RULES = JwtRules(issuer="https://issuer", audience="streamkit", jwks_file="unused", leeway=0)
RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, tuple[str, Any, Any]] = {
    "rsa": ("RS256", RSA, jwt.algorithms.RSAAlgorithm),
    "ec": ("ES256", ec.generate_private_key(ec.SECP256R1()), jwt.algorithms.ECAlgorithm),
    "ed": ("EdDSA", ed25519.Ed25519PrivateKey.generate(), jwt.algorithms.OKPAlgorithm),
}


def key_set() -> bytes:
    keys = []
    for kid, (_, key, kind) in KEYS.items():
        keys.append(json.loads(kind.to_jwk(key.public_key())) | {"kid": kid})
    keys.append({"kty": "oct", "k": "AAAA", "kid": "shared"})
    return json.dumps({"keys": keys}).encode()


def claims(**more: Any) -> dict[str, Any]:
    return {
        "sub": "ann",
        "iss": RULES.issuer,
        "aud": RULES.audience,
        "exp": time.time() + 60,
        "roles": ["reader"],
    } | more


def signed(kid: str = "rsa", **more: Any) -> str:
    algorithm, key, _ = KEYS[kid]
    return jwt.encode(claims(**more), key, algorithm, headers={"kid": kid})


def verifier() -> JwtVerifier:
    return JwtVerifier(RULES, lambda _: key_set())


@pytest.mark.parametrize("kid", KEYS)
async def test_a_signed_token_names_its_holder(kid: str) -> None:
    one = verifier()
    token = signed(kid)
    for _ in range(2):
        identity = await one.holder(token)
        assert identity is not None
        assert (identity.name, identity.roles) == ("jwt:ann", ("reader",))
        assert identity.expires is not None and 58 < identity.expires - time.time() <= 60


def public_pem() -> bytes:
    return RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def by_hand(header: dict[str, Any], key: bytes = b"") -> str:
    """A token whose signature is an HMAC with what everybody knows, or none at all."""
    import base64
    import hashlib
    import hmac

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    body = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims()).encode())}"
    return f"{body}.{part(hmac.digest(key, body.encode(), hashlib.sha256)) if key else ''}"


@pytest.mark.parametrize(
    "token",
    [
        by_hand({"alg": "none", "kid": "rsa"}),
        by_hand({"alg": "HS256", "kid": "rsa"}, public_pem()),
        by_hand({"alg": "HS256", "kid": "shared"}, b"\0\0\0"),
        signed()[:-4] + "AAAA",
        signed(exp=time.time() - 1),
        signed(nbf=time.time() + 60),
        signed(iss="https://other"),
        signed(aud="other"),
        signed(roles={"reader": True}),
        jwt.encode(claims(), RSA, "RS256", headers={"kid": "ec"}),
        jwt.encode(claims(), RSA, "RS256", headers={"kid": "new"}),
        jwt.encode(claims(), RSA, "RS256"),
        jwt.encode(claims(), RSA, "PS256", headers={"kid": "rsa"}),
        jwt.encode(
            {key: value for key, value in claims().items() if key != "exp"},
            RSA,
            "RS256",
            headers={"kid": "rsa"},
        ),
        "a.b.c",
        "x" * 1_000_000,
    ],
)
async def test_what_is_not_believed(token: str) -> None:
    assert await verifier().holder(token) is None


async def test_keys_that_cannot_be_fetched_leave_the_former_ones(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("streamkit.access.jwt.time.monotonic", lambda: now)
    fetches = 0

    def fetch(_: JwtRules) -> bytes:
        nonlocal fetches
        fetches += 1
        if fetches > 1:
            raise OSError("the issuer is away")
        return key_set()

    one = JwtVerifier(RULES, fetch)
    for minute in range(61):
        now += 60 if minute else 0
        assert await one.holder(signed()) is not None
        if one._fetching is not None:
            await one._fetching
    assert 10 <= fetches <= 13  # an hour, at most once in five minutes
    assert "keeping the former keys" in caplog.text
    await one.close()


class _Redirecting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "/keys")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(key_set())

    def log_message(self, *_: Any) -> None:
        pass


async def test_keys_come_from_where_the_rules_say_and_nowhere_else() -> None:
    with HTTPServer(("127.0.0.1", 0), _Redirecting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for path, believed in (("/keys", True), ("/moved", False)):
            rules = JwtRules(issuer=RULES.issuer, audience="streamkit", jwks_url=url + path)
            identity = await JwtVerifier(rules).holder(signed())
            assert (identity is not None) is believed
        server.shutdown()


async def test_a_server_believes_a_signed_token_until_it_runs_out(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(key_set())
    rules = parse_rules(
        f'[jwt]\nissuer = "{RULES.issuer}"\naudience = "streamkit"\nleeway = 0\n'
        f'jwks_file = "{tmp_path / "keys"}"\nroles_claim = "groups"\n'
    )
    made = 0

    async def fresh() -> str:
        nonlocal made
        made += 1
        return signed("ed", groups=["reader", "of another kind"], exp=int(time.time()) + 2)

    async with serve(access=rules) as address, AsyncClient(address, token=fresh) as client:
        assert await client.jobs() == []
        with pytest.raises(AuthError, match="not allowed to publish"):
            await client.publish("orders", "x")
        before = made
        resumed = asyncio.Event()

        def on_event(event: ClientEvent) -> None:
            if event.kind == "resumed":
                resumed.set()

        events = AsyncClient(address, token=fresh, on_event=on_event)
        async with events, events.subscribe("orders") as updates:
            reading = asyncio.create_task(anext(aiter(updates)))
            await asyncio.wait_for(resumed.wait(), 15)
            assert not reading.done()
            reading.cancel()
        assert made > before + 1
        wrong = signed("ed", groups=["admin"], aud="another")
        async with AsyncClient(address, token=wrong, reconnect=False) as stranger:
            with pytest.raises(AuthError) as caught:
                await stranger.jobs()
        assert caught.value.status is Status.UNAUTHENTICATED


async def test_other_terms_end_what_the_former_ones_let_in(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(key_set())
    file = tmp_path / "access.toml"
    text = (
        f'[jwt]\nissuer = "{RULES.issuer}"\naudience = "streamkit"\njwks_file = "{tmp_path}/keys"\n'
    )
    file.write_text(text)
    file.chmod(0o600)
    async with (
        serve(access=file) as address,
        AsyncClient(address, token=signed()) as client,
        client.subscribe("orders") as updates,
    ):
        file.write_text(text.replace('"streamkit"', '"another"'))
        with pytest.raises(AuthError, match="access was withdrawn"):
            await asyncio.wait_for(anext(aiter(updates)), 10)
