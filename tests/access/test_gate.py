"""The gate on live calls: identities of every kind, changes of the file, quotas."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streamkit.access.file import add_token, read_rules, remove_token
from streamkit.access.gate import Gate
from streamkit.access.rules import Rules, parse_rules
from streamkit.client import AsyncClient
from streamkit.errors import AuthError, InvalidArgumentError, LimitError, Status
from streamkit.generated.streamservice import JobProgress, Update, WatchJobsRequest
from streamkit.transport import Channel
from tests.access.servers import ROLES, client_of, serve
from tests.cli.tools import ServerProcess


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "access.toml"
    path.write_text(ROLES)
    path.chmod(0o600)
    return path


# ---- who ----


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


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
async def test_another_user_is_told_from_this_one(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent != Path("/") and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o055)
    path = tmp_path / "socket"
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


# ---- live ----


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


# ---- how much ----

QUOTAS = """
[role.few]
subscribe = [">"]
publish = [">"]
query = ["*"]
streams = 2
publish_per_second = 200
queries = 1
"""


@pytest.fixture
async def limited(file: Path) -> AsyncIterator[tuple[str, str]]:
    file.write_text(ROLES + QUOTAS)
    token = add_token(file, "few", ["few"])
    assert read_rules(file).roles["few"].quota.streams == 2
    async with serve(access=file) as address:
        yield address, token


async def test_streams_beyond_the_quota_wait_for_their_turn(limited: tuple[str, str]) -> None:
    address, token = limited
    async with (
        client_of(address, token, reconnect=False) as hasty,
        client_of(address, token) as client,
    ):
        async with client.subscribe("a"), client.subscribe("b"):
            with pytest.raises(LimitError, match="token:few has 2 streams"):
                async with hasty.subscribe("c"):
                    pass
            third = client.subscribe("c")
            waiting = asyncio.create_task(third.__aenter__())
            # Half of what it is told to wait, so it was refused and has not come back.
            done, _ = await asyncio.wait([waiting], timeout=0.1)
            assert not done
        await asyncio.wait_for(waiting, 10)
        await third.close()


async def test_publishing_beyond_the_quota_is_slowed_and_loses_nothing(
    limited: tuple[str, str],
) -> None:
    address, token = limited
    loop = asyncio.get_running_loop()
    async with (
        client_of(address, token, reconnect=False) as hasty,
        client_of(address, token) as client,
    ):
        # A second's worth may come at once; what is beyond it is told when to come back.
        began = loop.time()
        await hasty.publish_many([Update("orders", "x")] * 300)
        with pytest.raises(LimitError, match="200 records a second"):
            await hasty.publish("orders", "y")
        await client.publish("orders", "z")
        # A writer's stream is read more slowly; nothing is refused, nothing is lost.
        async with client.publisher() as publisher:
            for number in range(150):
                await publisher.send("orders", str(number))
                if number % 25 == 24:
                    await publisher.flush()  # several requests, not one
        # All but a second's worth at the beginning and the last request at the end took its time.
        assert (300 + 1 + 125 - 200) / 200 <= loop.time() - began < 20
        rows = [row async for row in client.query("select count(*) as n from updates")]
        assert rows[0]["n"] == 300 + 1 + 150


async def test_queries_beyond_the_quota_are_told_to_come_back(limited: tuple[str, str]) -> None:
    address, token = limited
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
    async with (
        client_of(address, token, reconnect=False) as hasty,
        client_of(address, token) as client,
    ):
        first = client.query(endless)
        async for _ in first:
            break
        with pytest.raises(LimitError, match="1 queries"):
            async for _ in hasty.query("select 1"):
                pass
        await first.close()
        assert [row async for row in client.query("select 1 as one")]


@pytest.mark.soak
async def test_a_noisy_identity_leaves_a_quiet_one_alone(file: Path) -> None:
    file.write_text('[role.noisy]\npublish = [">"]\npublish_per_second = 100\n')
    tokens = {"noisy": add_token(file, "noisy", ["noisy"])}
    tokens["quiet"] = add_token(file, "quiet", ["writer"])
    loop = asyncio.get_running_loop()

    async def p99(client: AsyncClient) -> float:
        spent = []
        for _ in range(400):
            began = loop.time()
            await client.publish("quiet", "x")
            spent.append(loop.time() - began)
            await asyncio.sleep(0.005)
        return sorted(spent)[-4]

    async def shout(client: AsyncClient) -> None:
        async with client.publisher() as publisher:
            while True:
                await publisher.send("noisy", "x" * 100)

    async def repeat(client: AsyncClient) -> None:
        while True:
            await client.publish("noisy", "x")

    async with (
        serve(access=file) as address,
        client_of(address, tokens["quiet"]) as quiet,
        client_of(address, tokens["noisy"]) as noisy,
    ):
        alone = [await p99(quiet)]
        shouting = [asyncio.create_task(work(noisy)) for work in (shout, repeat) for _ in range(4)]
        await asyncio.sleep(1)
        beside = await p99(quiet)
        for task in shouting:
            task.cancel()
        await asyncio.gather(*shouting, return_exceptions=True)
        alone.append(await p99(quiet))
    print(f"p99 of a quiet writer {max(alone) * 1e3:.1f} ms, beside a noisy one {beside * 1e3:.1f}")
    assert beside < 3 * max(alone)
