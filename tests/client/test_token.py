"""What a client does with its token: where it is shown, and where it must never be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamkit.client import AsyncClient, token_file
from streamkit.client.blocking.client import Client
from streamkit.client.token import Token
from streamkit.errors import ConnectError, InvalidArgumentError, PreconditionError
from streamkit.testing import serve
from streamkit.transport import Context, client_tls
from streamkit.transport.server.context import Next

SECRET = "sk_ci_" + "A" * 43


class Seen:
    """An interceptor that notes what callers show."""

    def __init__(self) -> None:
        self.tokens: list[object] = []

    async def __call__(self, ctx: Context, call_next: Next) -> None:
        self.tokens.append(ctx.metadata.get("authorization"))
        await call_next(ctx)


async def test_every_kind_of_call_shows_the_token() -> None:
    seen = Seen()
    asked = 0

    async def get() -> str:
        nonlocal asked
        asked += 1
        return f"{SECRET}{asked}"

    async with serve(interceptors=[seen]) as address, AsyncClient(address, token=get) as client:
        await client.publish("a", "b")
        async with client.publisher() as publisher:
            await publisher.send("a", "b")
        async with client.subscribe("a"):
            pass
        assert [row async for row in client.query("select 1")]
    assert len(seen.tokens) == 4
    assert seen.tokens == [f"Bearer {SECRET}{number}" for number in range(1, 5)]


async def test_a_token_comes_from_a_text_a_function_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    (tmp_path / "token").write_text(f" {SECRET}\n")
    async with serve(interceptors=[seen]) as address:
        for source in (SECRET, lambda: SECRET, token_file(tmp_path / "token")):
            async with AsyncClient(address, token=source) as client:
                await client.ping()
        monkeypatch.setenv("STREAMKIT_TOKEN", SECRET)
        async with AsyncClient(address) as client:
            await client.ping()
        async with AsyncClient(address, token="other") as client:
            await client.ping()
        monkeypatch.setenv("STREAMKIT_TOKEN", "")
        async with AsyncClient(address) as client:
            await client.ping()
    assert seen.tokens == [f"Bearer {SECRET}"] * 4 + ["Bearer other", None]


@pytest.mark.parametrize(
    ("address", "stays"),
    [
        ("localhost:1", True),
        ("127.0.0.1:1", True),
        ("[::1]:1", True),
        ("unix:/x", True),
        ("example.org:1", False),
        ("10.0.0.1:1", False),
        ("localhost:1, example.org:1", False),
        ("localhost.example.org:1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_a_token_does_not_leave_the_machine_in_the_clear(address: str, stays: bool) -> None:
    AsyncClient(address)
    AsyncClient(address, token=SECRET, insecure=True)
    AsyncClient(address, token=SECRET, ssl=client_tls())
    for kind in (AsyncClient, Client):
        if stays:
            kind(address, token=SECRET)
            continue
        with pytest.raises(PreconditionError, match="without TLS") as caught:
            made = kind(address, token=SECRET)
            if isinstance(made, Client):
                made.ping()
        assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\n", "ä"])
def test_what_is_no_token(token: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Token(token, "localhost:1", encrypted=False)
    assert not token or token not in str(caught.value)


async def test_a_source_that_fails_is_told_without_its_words(tmp_path: Path) -> None:
    async def fails() -> str:
        raise ValueError(f"cannot decode {SECRET}")

    client = AsyncClient("localhost:1", token=fails, reconnect=False)
    with pytest.raises(ConnectError, match="no token: ValueError") as caught:
        await client.ping()
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    absent = AsyncClient("localhost:1", token=token_file(tmp_path / "none"))
    with pytest.raises(PreconditionError, match="No such file"):
        await absent.ping()
    assert SECRET not in repr(Token(SECRET, "localhost:1", encrypted=False))
    assert SECRET not in repr(AsyncClient("localhost:1", token=SECRET))
