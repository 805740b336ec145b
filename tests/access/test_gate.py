"""The gate on live calls: what a change of the file ends, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from streamkit.access.file import add_token, remove_token
from streamkit.access.gate import Gate
from streamkit.client import AsyncClient
from streamkit.errors import AuthError, Status
from streamkit.generated.streamservice import JobProgress, WatchJobsRequest
from streamkit.transport import Channel
from tests.access.servers import ROLES, client_of, serve
from tests.cli.tools import ServerProcess


async def collect(client: AsyncClient, topic: str, into: list[str], ready: asyncio.Event) -> None:
    async with client.subscribe(topic) as updates:
        ready.set()
        async for update in updates:
            into.append(update.message)  # noqa: PERF401  # seen while it grows


@pytest.fixture
def others(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many processes that want all of the machine."""
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(request.param)
    ]
    yield len(busy)
    for process in busy:
        process.kill()
        process.wait()


@asynccontextmanager
async def serving(file: Path, log: Path, *, apart: bool) -> AsyncIterator[str]:
    """The address of a server; `apart`: in a process of its own, which then has its own share of
    a machine that is busy."""
    if not apart:
        async with serve(access=file, access_log=log) as address:
            yield address
        return
    options = "--access", str(file), "--access-log", str(log)
    process = await asyncio.to_thread(ServerProcess, ":memory:", *options)
    try:
        yield process.address
    finally:
        assert await asyncio.to_thread(process.stop) == 0


@pytest.mark.parametrize(
    ("count", "others"),
    [
        (100, 0),
        *(pytest.param(1_000, others, marks=pytest.mark.soak) for others in (0, 2, 4)),
    ],
    indirect=["others"],
)
@pytest.mark.timeout(300)
async def test_half_of_the_streams_are_revoked_and_the_other_half_miss_nothing(
    file: Path, count: int, others: int, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    if count == 100:  # a file that is too large to be read between two other things
        with file.open("a") as text:
            text.write(f"# {'x' * 20_000}\n")
    tokens = {name: add_token(file, name, ["reader"]) for name in ("kept", "lost")}
    writer = add_token(file, "writer", ["writer"])
    received: dict[str, list[list[str]]] = {"kept": [], "lost": []}
    loop = asyncio.get_running_loop()
    async with (
        serving(file, log, apart=count == 1_000) as address,
        client_of(address, tokens["kept"]) as kept,
        client_of(address, tokens["lost"]) as lost,
        client_of(address, writer) as publishing,
    ):
        tasks: dict[str, list[asyncio.Task[None]]] = {"kept": [], "lost": []}
        for name, client in (("kept", kept), ("lost", lost)):
            for _ in range(count // 2):
                got: list[str] = []
                ready = asyncio.Event()
                received[name].append(got)
                tasks[name].append(loop.create_task(collect(client, "orders.>", got, ready)))
                await ready.wait()
        stop = asyncio.Event()
        sent = 0

        async def publish() -> None:
            nonlocal sent
            while not stop.is_set():
                await publishing.publish("orders.eu", str(sent))
                sent += 1
                await asyncio.sleep(0.05)

        publisher = loop.create_task(publish())
        async with asyncio.timeout(30):
            while any(len(got) < 3 for got in received["lost"]):
                await asyncio.sleep(0.02)
        began, changed = loop.time(), time.time()
        await asyncio.to_thread(remove_token, file, "lost")
        ends = await asyncio.wait_for(
            asyncio.gather(*tasks["lost"], return_exceptions=True), timeout=10
        )
        seconds = loop.time() - began
        until = sent + 3
        while sent < until:
            await asyncio.sleep(0.02)
        stop.set()
        await publisher
        expected = [str(number) for number in range(sent)]
        async with asyncio.timeout(10):
            while any(got != expected for got in received["kept"]):
                await asyncio.sleep(0.02)
        assert not any(task.done() for task in tasks["kept"])
        for task in tasks["kept"]:
            task.cancel()
        await asyncio.gather(*tasks["kept"], return_exceptions=True)
    assert all(
        isinstance(end, AuthError)
        and end.status is Status.PERMISSION_DENIED
        and "access was withdrawn" in str(end)
        for end in ends
    )
    lines = map(json.loads, log.read_text().splitlines())
    ended = [line["time"] for line in lines if line.get("reason") == "revoked"]
    last = max(map(datetime.fromisoformat, ended)).timestamp() - changed
    print(
        f"{len(ended)} of {count} streams had ended {last:.2f} s after the change, and their"
        f" clients knew after {seconds:.2f} s, {others} other processes being busy"
    )
    assert len(ended) == count // 2 and last < 1
    assert others or seconds < 1  # their clients are one process, to which little is left


async def test_a_narrower_role_ends_what_it_does_not_allow(file: Path) -> None:
    token, writing = add_token(file, "shop", ["shop"]), add_token(file, "writer", ["writer"])
    async with serve(access=file) as address, client_of(address, token) as client:
        lost = client.subscribe("orders.>")
        kept = client.subscribe("orders.eu")
        async with lost, kept:
            text = file.read_text().replace('subscribe = ["orders.>"]', 'subscribe = ["orders.eu"]')
            file.write_text(text)
            with pytest.raises(AuthError, match=r"withdrawn: not allowed to subscribe to 'orders"):
                await asyncio.wait_for(anext(aiter(lost)), 5)
            # The same decision has left the other one alone: it still gets what comes.
            async with client_of(address, writing) as writer:
                await writer.publish("orders.eu", "after")
            assert (await asyncio.wait_for(anext(aiter(kept)), 10)).message == "after"


async def test_following_all_jobs_ends_when_all_becomes_some(file: Path) -> None:
    file.write_text('[role.jobs]\njobs = ["*"]\n')
    token = add_token(file, "jobs", ["jobs"])
    path = "/streamservice.ProducerService/WatchJobs"
    headers = {"authorization": f"Bearer {token}"}
    async with serve(access=file) as address, Channel(address) as channel:
        calls = [
            channel.stream(path, WatchJobsRequest, JobProgress, request=request, metadata=headers)
            for request in (WatchJobsRequest(), WatchJobsRequest(jobs=["build-1"]))
        ]
        async with calls[0] as everything, calls[1] as one:
            for call in calls:
                await call.initial_metadata()
            file.write_text(file.read_text().replace('jobs = ["*"]', 'jobs = ["build-*"]'))
            with pytest.raises(AuthError, match="withdrawn"):
                await asyncio.wait_for(everything.receive(), 5)
            assert not one.done


async def test_what_is_given_back_resumes_without_a_gap(file: Path) -> None:
    token = add_token(file, "reader", ["reader"])
    writing = add_token(file, "writer", ["writer"])
    async with (
        serve(access=file) as address,
        client_of(address, token) as client,
        client_of(address, writing) as writer,
    ):
        await writer.publish("orders.eu", "0")
        stream = client.subscribe("orders.>")
        got = []
        async with stream:
            await writer.publish("orders.eu", "1")
            got.append((await anext(aiter(stream))).message)
            position = stream.position
            before = file.read_text()
            await asyncio.to_thread(remove_token, file, "reader")
            with pytest.raises(AuthError):
                await asyncio.wait_for(anext(aiter(stream)), 5)
        await writer.publish("orders.eu", "2")
        file.write_text(before)
        assert position is not None
        from streamkit.client import after

        for _ in range(100):
            try:
                async with client.subscribe("orders.>", start=after(position)) as again:
                    await writer.publish("orders.eu", "3")
                    async for update in again:
                        got.append(update.message)
                        if update.message == "3":
                            break
                break
            except AuthError:
                await asyncio.sleep(0.05)
    assert got == ["1", "2", "3"]


async def test_a_token_is_good_from_its_first_moment_on(file: Path) -> None:
    async with serve(access=file) as address:
        for number in range(20):
            token = add_token(file, f"t{number}", ["reader"])
            async with client_of(address, token, reconnect=False) as client:
                assert await client.jobs() == []


async def test_a_file_that_does_not_load_leaves_the_rules_in_force(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = add_token(file, "reader", ["reader"])
    gate = Gate(file)
    rules = gate.rules
    task = asyncio.create_task(gate.watch())
    mistakes: tuple[Callable[[], object], ...] = (
        partial(file.write_text, "[role.x"),
        partial(file.chmod, 0o644),
        file.unlink,
    )
    for told, spoil in enumerate(mistakes, 1):
        spoil()
        async with asyncio.timeout(10):
            while caplog.text.count("keeping the former rules") < told:
                await asyncio.sleep(0.01)
        assert gate.rules is rules and not task.done()
    assert caplog.text.count("keeping the former rules") == 3
    assert token not in caplog.text
    file.write_text(ROLES)
    file.chmod(0o600)
    async with asyncio.timeout(5):
        while gate.rules is rules:
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await gate.close()


async def test_a_file_that_is_being_written_takes_nothing_away(file: Path) -> None:
    token = add_token(file, "reader", ["reader"])
    text = file.read_text()
    async with (
        serve(access=file) as address,
        client_of(address, token, reconnect=False) as client,
        client_of(address, "sk_late_" + "A" * 43, reconnect=False) as stranger,
        client.subscribe("orders"),
    ):
        file.write_text("")  # as an editor does that writes in place
        with pytest.raises(AuthError):
            await stranger.jobs()  # an unknown token makes the server look at once
        assert await client.jobs() == []
        file.write_text(text + "\n")
        assert await client.jobs() == []
