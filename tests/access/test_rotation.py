"""Tokens that run out under live streams: the clients fetch the next one, and nobody notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from streamkit.access.file import add_token, remove_token
from streamkit.client import AsyncClient, token_file
from streamkit.errors import AuthError, Status
from tests.access.servers import serve


class Issuer:
    """Puts a new token into the access file at half the life of one, and takes the old ones out."""

    def __init__(self, file: Path, life: float) -> None:
        self.file = file
        self.life = life
        self.token = ""
        self.made = 0

    def make(self) -> None:
        self.made += 1
        name = f"t{self.made}"
        self.token = add_token(
            self.file, name, ["reader", "writer"], expires=time.time() + self.life
        )
        if self.made > 4:
            remove_token(self.file, f"t{self.made - 4}")

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self.make)
            await asyncio.sleep(self.life / 2)

    async def get(self) -> str:
        return self.token


@pytest.mark.parametrize(
    ("life", "seconds", "publishers", "readers"),
    [
        pytest.param(1, 2, 3, 10),
        pytest.param(2, 60, 8, 50, marks=[pytest.mark.soak, pytest.mark.timeout(300)]),
    ],
)
async def test_tokens_that_run_out_lose_nothing(
    tmp_path: Path, life: float, seconds: float, publishers: int, readers: int
) -> None:
    issuer = Issuer(tmp_path / "access.toml", life)
    issuer.make()
    issuing = asyncio.create_task(issuer.run())
    loop = asyncio.get_running_loop()
    sent: dict[str, int] = {}
    got: list[dict[str, list[int]]] = [{} for _ in range(readers)]
    resumed = 0

    def on_event(event: object) -> None:
        nonlocal resumed
        resumed += getattr(event, "kind", "") == "resumed"

    async with serve(access=issuer.file) as address:

        async def publish(number: int, until: float) -> None:
            topic = f"numbers.{number}"
            async with AsyncClient(address, token=issuer.get) as client:
                if number == 0:  # one by single calls, the others by pipelines
                    while loop.time() < until:
                        await client.publish(topic, sent.get(topic, 0))
                        sent[topic] = sent.get(topic, 0) + 1
                        await asyncio.sleep(0.01)
                    return
                async with client.publisher() as publisher:
                    while loop.time() < until:
                        await publisher.send(topic, sent.get(topic, 0))
                        sent[topic] = sent.get(topic, 0) + 1
                        await asyncio.sleep(0.01)

        async def read(into: dict[str, list[int]], ready: asyncio.Event) -> None:
            async with (
                AsyncClient(address, token=issuer.get, on_event=on_event) as client,
                client.subscribe("numbers.*") as updates,
            ):
                ready.set()
                async for update in updates:
                    into.setdefault(update.topic, []).append(int(update.message))

        ready = [asyncio.Event() for _ in range(readers)]
        reading = [asyncio.create_task(read(*each)) for each in zip(got, ready, strict=True)]
        await asyncio.gather(*(event.wait() for event in ready))
        until = loop.time() + seconds
        await asyncio.gather(*(publish(number, until) for number in range(publishers)))
        expected = {topic: list(range(count)) for topic, count in sent.items()}
        async with asyncio.timeout(30):
            while any(each != expected for each in got):
                failed = [task.exception() for task in reading if task.done()]
                assert not failed, failed
                await asyncio.sleep(0.02)
        for task in [*reading, issuing]:
            task.cancel()
        await asyncio.gather(*reading, issuing, return_exceptions=True)
    print(
        f"{seconds:g} s, {issuer.made} tokens, {sum(sent.values())} records to {readers} readers,"
        f" {resumed} resumes: lost 0, twice 0, errors 0"
    )
    assert resumed >= readers * (seconds / life) / 2


async def subscribed(client: AsyncClient) -> None:
    async with client.subscribe("x"):
        pass


async def asked(client: AsyncClient) -> None:
    assert await client.jobs() == []


async def queried(client: AsyncClient) -> None:
    assert [row async for row in client.query("select 1 as one")] == [{"one": 1}]


async def published(client: AsyncClient) -> None:
    async with client.publisher() as publisher:
        await publisher.send("x", "1")


@pytest.mark.parametrize("use", [subscribed, asked, queried, published])
async def test_a_token_that_ran_out_on_its_way_is_followed_by_the_next(
    use: Callable[[AsyncClient], Awaitable[None]], tmp_path: Path
) -> None:
    file = tmp_path / "access.toml"
    old, new = (add_token(file, name, ["admin"]) for name in ("old", "new"))
    remove_token(file, "old")
    shown: list[str] = []

    def source() -> str:
        shown.append(new if shown else old)
        return shown[-1]

    async with serve(access=file) as address, AsyncClient(address, token=source) as client:
        await use(client)
    assert shown[:2] == [old, new]


async def test_a_fixed_token_that_runs_out_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    token = add_token(file, "short", ["reader"], expires=time.time() + 0.5)
    async with serve(access=file) as address, AsyncClient(address, token=token) as client:
        with pytest.raises(AuthError) as caught:
            async with client.subscribe("x") as updates:
                async for _ in updates:
                    pass
    assert caught.value.status is Status.UNAUTHENTICATED


async def test_a_token_file_is_read_again_for_every_call(tmp_path: Path) -> None:
    file, kept = tmp_path / "access.toml", tmp_path / "token"
    kept.write_text(add_token(file, "one", ["reader"]) + "\n")
    async with (
        serve(access=file) as address,
        AsyncClient(address, token=token_file(kept)) as client,
    ):
        assert await client.jobs() == []
        kept.write_text("wrong")
        began = time.monotonic()
        with pytest.raises(AuthError):
            await client.jobs()
        # It is asked for once more in case that a newer one arrives; no longer than that.
        assert time.monotonic() - began < 20
        kept.write_text(add_token(file, "two", ["reader"]))
        assert await client.jobs() == []
