"""The life of a server: what it says when it cannot start, and how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

import streamkit
from streamkit.codec import StreamkitCodec, encode
from streamkit.errors import (
    ConnectError,
    InvalidArgumentError,
    LimitError,
    PreconditionError,
    UnimplementedError,
)
from streamkit.generated.grpc.health.v1 import HealthCheckRequest, HealthCheckResponse
from streamkit.generated.streamservice import (
    AdminServiceBase,
    ListTablesReply,
    ListTablesRequest,
    PublishRequest,
    ServerStatus,
    StartFrom,
    StatusRequest,
    StreamServiceBase,
    SubscribeRequest,
    TableSchema,
    Update,
    WriteReply,
)
from streamkit.generated.streamservice import DescribeTableRequest as Describe
from streamkit.handlers import UpdatesHandler
from streamkit.journal import open_journal
from streamkit.server import Server
from streamkit.testing import serve
from streamkit.transport import Channel, context
from tests.handlers.calls import SERVICE, subscribe, take
from tests.processes import ServerProcess

ADMIN = "/streamservice.AdminService/"
CHECK = "/grpc.health.v1.Health/Check"
PUBLISH = "/streamservice.ProducerService/Publish"


@contextlib.asynccontextmanager
async def dial(address: str) -> AsyncIterator[Channel]:
    channel = Channel(address, codec=StreamkitCodec())
    try:
        yield channel
    finally:
        await channel.aclose()


async def publish(channel: Channel, topic: str, text: str) -> WriteReply:
    request = PublishRequest(updates=[Update(topic=topic, message=text)])
    return await channel.unary(PUBLISH, request, WriteReply)


# ---- what it serves ----


async def test_status_of_a_running_server(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    async with serve(journal=store) as address, dial(address) as channel:
        await publish(channel, "a", "b")
        async with subscribe(channel, "a") as call:
            await call.initial_metadata()
            status = await channel.unary(ADMIN + "GetStatus", StatusRequest(), ServerStatus)
    assert status.version
    assert status.epoch
    assert status.durability == "normal"
    assert status.store_bytes > 0
    assert str(tmp_path) in status.store
    assert not status.draining
    assert status.connections == 1
    figures = {s.name: (s.oldest, s.newest, s.subscribers) for s in status.streams}
    assert figures == {"updates": (1, 1, 1), "logs": (1, 0, 0), "jobs": (1, 0, 0)}


async def test_tables_of_the_store_and_of_a_database(tmp_path: Path) -> None:
    shop = tmp_path / "shop.db"
    with contextlib.closing(sqlite3.connect(shop)) as database:
        database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, total REAL NOT NULL)")

    async def tables(channel: Channel, database: str) -> list[str]:
        request = ListTablesRequest(database=database)
        reply = await channel.unary(ADMIN + "ListTables", request, ListTablesReply)
        return [table.name for table in reply.tables]

    async with serve(databases={"shop": str(shop)}) as address, dial(address) as channel:
        assert {"updates", "logs", "jobs"} <= set(await tables(channel, ""))
        assert await tables(channel, "shop") == ["orders"]
        request = Describe(database="shop", table="orders")
        schema = await channel.unary(ADMIN + "DescribeTable", request, TableSchema)
        assert [(c.name, c.type, c.nullable) for c in schema.columns] == [
            ("id", "INTEGER", False),
            ("total", "REAL", False),
        ]
        status = await channel.unary(ADMIN + "GetStatus", StatusRequest(), ServerStatus)
        assert status.databases == ["shop"]


async def test_a_memory_store_is_private_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with serve(journal=":memory:") as address, dial(address) as channel:
        await publish(channel, "a", "b")
        [folder] = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


async def test_a_users_handler_beside_ours_and_instead_of_ours() -> None:
    class Mine(AdminServiceBase):
        async def get_status(self, status_request: StatusRequest) -> ServerStatus:
            return ServerStatus(version="mine")

    async with serve(Mine(), journal=None) as address, dial(address) as channel:
        status = await channel.unary(ADMIN + "GetStatus", StatusRequest(), ServerStatus)
        assert status.version == "mine"
        with pytest.raises(UnimplementedError):
            await publish(channel, "a", "b")

    async with await open_journal(":memory:") as journal:
        only_updates = UpdatesHandler(journal=journal)
        async with (
            serve(only_updates, journal=None) as address,
            dial(address) as channel,
            subscribe(channel, "a") as call,
        ):
            await call.initial_metadata()
            await journal.append_updates([Update(topic="a")])
            assert len(await take(call, 1)) == 1


async def test_a_server_starts_once() -> None:
    server = Server(port=0)
    async with server:
        pass
    with pytest.raises(PreconditionError):
        await server.start()


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serve(path=path) as address, dial(address) as channel:
        assert address == f"unix:{path}"
        assert (await publish(channel, "a", "b")).updates.first == 1
        with pytest.raises(ConnectError, match="in use"):
            async with serve(path=path):
                pass
        assert (await publish(channel, "a", "b")).updates.first == 2
    assert not path.exists()


async def test_a_dead_servers_socket_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    async with serve(path=path) as address, dial(address) as channel:
        await publish(channel, "a", "b")


async def test_what_is_stored_fits_into_a_stock_client() -> None:
    """Its limit is 4 MiB: a record that only just fits into a request arrives all the same."""
    async with serve() as address, dial(address) as channel:
        around = len(encode(PublishRequest(updates=[Update(topic="a", message="x" * 3_000_000)])))
        fits = 4 * 1024 * 1024 - 4096 - (around - 3_000_000)
        await publish(channel, "a", "x" * fits)
        with pytest.raises(LimitError):
            await publish(channel, "a", "x" * (fits + 1))
        async with grpc.aio.insecure_channel(address) as grpcio:
            method = grpcio.unary_stream(
                SERVICE + "SubscribeToUpdates",
                request_serializer=bytes,
                response_deserializer=Update.FromString,
            )
            call = method(SubscribeRequest(topics=["a"], start=StartFrom(all=True)))
            update = await call.read()
            assert len(update.message) == fits
            call.cancel()


# ---- what it says when it cannot ----


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "203.0.113.7"}, "203.0.113.7:0"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid:0: no such host"),
        ({"path": "/nowhere/at/all/socket"}, "unix:/nowhere/at/all/socket"),
    ],
)
async def test_addresses_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConnectError) as raised:
        async with serve(journal=None, **settings):
            pass
    assert words in raised.value.message
    assert "\n" not in raised.value.message


async def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    async with serve() as address:
        second = ServerProcess(journal=str(tmp_path / "s.db"), port=int(address.split(":")[1]))
        await second.start()
        code, errors = await second.outcome()
    assert (second.address, code) == ("", 3)
    assert errors.count("\n") == 1
    assert f"{address} is in use" in errors


async def test_a_locked_store_is_one_line(tmp_path: Path) -> None:
    store = str(tmp_path / "store.db")
    async with ServerProcess(journal=store):
        second = ServerProcess(journal=store)
        await second.start()
        code, errors = await second.outcome()
    assert (second.address, code) == ("", 3)
    assert errors.count("\n") == 1
    assert "in use" in errors or "locked" in errors


async def test_a_database_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="'shop'") as raised:
        async with serve(databases={"shop": str(tmp_path / "nothing.db")}):
            pass
    assert "\n" not in raised.value.message
    assert not (tmp_path / "nothing.db").exists()


def test_databases_without_a_journal_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="together with a journal"):
        Server(databases={"shop": "shop.db"})


async def test_a_store_of_a_newer_version_is_one_line(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    async with serve(journal=store):
        pass
    with contextlib.closing(sqlite3.connect(store)) as database:
        database.execute("PRAGMA user_version = 9999")
    server = ServerProcess(journal=str(store))
    await server.start()
    code, errors = await server.outcome()
    assert (server.address, code) == ("", 3)
    assert errors.count("\n") == 1
    assert "newer" in errors


# ---- how it goes ----


async def until_reset(call: Any) -> BaseException:
    """The error that ends a stream."""
    with pytest.raises(Exception) as raised:
        while await call.receive():
            pass
    return raised.value


async def test_sigterm_ends_every_live_stream_with_a_status(tmp_path: Path) -> None:
    """200 live streams of two kinds of clients; none ends without a status."""
    async with ServerProcess(journal=str(tmp_path / "store.db"), grace=10.0) as server:
        statuses: list[grpc.StatusCode | None] = []
        trailers: list[str | None] = []
        begun = asyncio.Semaphore(0)

        async def by_grpcio(channel: grpc.aio.Channel) -> None:
            method = channel.unary_stream(
                SERVICE + "SubscribeToUpdates",
                request_serializer=bytes,
                response_deserializer=Update.FromString,
            )
            call = method(SubscribeRequest(topics=["a"]))
            await call.initial_metadata()
            begun.release()
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError as error:
                statuses.append(error.code())
                trailers.append(dict(error.trailing_metadata()).get("streamkit-reconnect"))

        async def by_streamkit(channel: Channel) -> None:
            async with subscribe(channel, "a") as call:
                await call.initial_metadata()
                begun.release()
                error = await until_reset(call)
                assert isinstance(error, ConnectError), error
                statuses.append(grpc.StatusCode.UNAVAILABLE)
                assert call.trailing_metadata is not None
                trailers.append(str(call.trailing_metadata.get("streamkit-reconnect")))

        async with (
            grpc.aio.insecure_channel(server.address) as grpcio,
            dial(server.address) as channel,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(100):
                group.create_task(by_grpcio(grpcio))
                group.create_task(by_streamkit(channel))
            for _ in range(200):
                await begun.acquire()
            begin = time.monotonic()
            server.send(signal.SIGTERM)
        code, errors = await server.outcome()
        took = time.monotonic() - begin
    assert (code, errors) == (0, "")
    assert statuses == [grpc.StatusCode.UNAVAILABLE] * 200
    assert trailers == ["1"] * 200
    assert took < 10.0
    print(f"200 streams ended with a status in {took:.2f} s")


class Slow(StreamServiceBase):
    """A stream that ends by itself, but not soon."""

    async def subscribe_to_updates(
        self, subscribe_request: SubscribeRequest
    ) -> AsyncIterator[Update]:
        context().finite = True
        yield Update(topic="begun")
        await asyncio.sleep(3600)


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    program = tmp_path / "slow.py"
    program.write_text(
        "import asyncio, os\n"
        "from tests.test_server import Slow\n"
        "from streamkit.server import Server\n"
        "async def main():\n"
        "    server = Server([Slow()], port=0, grace=3600)\n"
        "    await server.start()\n"
        "    print(server.address, flush=True)\n"
        "    await server.serve()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(program),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        async with dial(address) as channel, subscribe(channel, "a") as call:
            await take(call, 1)
            process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectError):
                # Draining: no new connection is taken, while the old one still has its stream.
                while True:
                    async with dial(address) as other:
                        await other.unary(CHECK, HealthCheckRequest(), HealthCheckResponse)
            assert process.returncode is None
            assert not call.done
            process.send_signal(signal.SIGINT)
            error = await until_reset(call)
            assert isinstance(error, ConnectError)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    store = str(tmp_path / "store.db")
    async with ServerProcess(journal=store) as server:
        async with dial(server.address) as channel:
            for number in range(20):
                reply = await publish(channel, "a", str(number))
            server.send(signal.SIGKILL)
        await server.outcome()
    async with ServerProcess(journal=store) as server, dial(server.address) as channel:
        async with subscribe(channel, "a", start=StartFrom(all=True)) as call:
            metadata = await call.initial_metadata()
            assert metadata["streamkit-epoch"] == reply.epoch
            assert [update.message for update in await take(call, 20)] == [
                str(number) for number in range(20)
            ]
        server.send(signal.SIGTERM)
        code, _ = await server.outcome()
        assert code == 0


async def test_stop_from_within(tmp_path: Path) -> None:
    server = Server(journal=tmp_path / "store.db", port=0)
    await server.start()
    serving = asyncio.create_task(server.serve())
    async with dial(server.address) as channel:
        await publish(channel, "a", "b")
    await server.stop(grace=1)
    async with asyncio.timeout(5):
        await serving
    assert server.draining
    await server.stop()


def test_run_has_its_own_loop(tmp_path: Path) -> None:
    """`run()` ends on a signal; it is sent by the server's own interceptor."""

    async def leave(ctx: Any, call_next: Any) -> None:
        await call_next(ctx)
        os.kill(os.getpid(), signal.SIGTERM)

    server = Server(path=tmp_path / "socket", interceptors=[leave], grace=5)

    def client() -> None:
        while not (tmp_path / "socket").exists():
            time.sleep(0.01)
        with grpc.insecure_channel(f"unix:{tmp_path}/socket") as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            assert check(b"", timeout=10) == b"\x08\x01"

    thread = threading.Thread(target=client)
    thread.start()
    server.run()
    thread.join()
    assert server.draining


async def test_a_drain_lets_a_running_query_come_to_its_end(tmp_path: Path) -> None:
    rows = 200_000
    count = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows})"
    server = Server(journal=tmp_path / "store.db", port=0, grace=30.0)
    await server.start()
    async with (
        streamkit.AsyncClient(server.address) as client,
        client.query(f"{count} SELECT i FROM n") as query,
    ):
        seen, stopping = 0, None
        async for batch in query.batches():
            seen += len(batch.rows)
            if stopping is None:
                stopping = asyncio.create_task(server.stop())
        assert seen == rows
        assert stopping is not None
        await stopping


_PREPARED = """
import asyncio, sys
from streamkit.database.running.processes import NURSERY
from streamkit.testing import serve

async def main():
    async with serve():
        await asyncio.sleep(0.1)
    assert not NURSERY.has(["duckdb"])
    async with serve(databases={"shop": "duckdb:///" + sys.argv[1]}):
        pass  # it is waited for, however soon the server ends
    assert NURSERY.has(["pyarrow.compute", "duckdb"])
    assert not {"pyarrow", "duckdb"} & set(sys.modules)  # its queries run elsewhere

asyncio.run(main())
"""


async def test_what_a_first_query_needs_is_loaded_before_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PREPARED, str(tmp_path / "shop.duckdb")
    )
    assert await process.wait() == 0
