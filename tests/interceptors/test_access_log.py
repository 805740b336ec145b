"""The access log: a line for every call, with the reason of its end."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from streamkit.access.file import add_token, remove_token
from streamkit.client import AsyncClient, after
from streamkit.config import TransportLimits
from streamkit.errors import PreconditionError, StreamkitError
from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    SubscribeRequest,
    Update,
)
from streamkit.interceptors.lines import LineWriter
from streamkit.server import Server
from streamkit.transport import Channel, Context
from streamkit.transport.server.context import Next
from tests.access.servers import bearer
from tests.doors.http import ask

SUBSCRIBE = "/streamservice.StreamService/SubscribeToUpdates"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def fail(ctx: Context, call_next: Next) -> None:
    """An interceptor that has a fault for who asks for it."""
    if "fault" in ctx.metadata:
        raise RuntimeError("a fault")
    await call_next(ctx)


async def test_each_reason_is_found_once(tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "access.toml"
    file.write_text('[role.few]\nsubscribe = ["first", "limit"]\nstreams = 1\n')
    file.chmod(0o600)
    tokens = {name: add_token(file, name, ["admin"]) for name in ("ops", "revoked")}
    tokens["few"] = add_token(file, "few", ["few"])
    server = Server(
        journal=":memory:",
        port=0,
        access=file,
        access_log=log,
        interceptors=[fail],
        web=True,
        limits=TransportLimits(stall_timeout=0.5),
    )
    async with server, Channel(server.address) as channel:

        def subscribe(topic: str, token: str = "ops", **more: Any) -> Any:
            request = SubscribeRequest([topic])
            metadata = bearer(tokens.get(token, token)) | more.pop("metadata", {})
            return channel.stream(
                SUBSCRIBE, SubscribeRequest, Update, request=request, metadata=metadata, **more
            )

        async def ends(call: Any) -> None:
            with suppress(StreamkitError):
                async with call:
                    while await call.receive():
                        pass

        async with subscribe("client") as call:
            await call.initial_metadata()
        # Our own client would have gone at its deadline; this one waits for the server's.
        body = bytes(SubscribeRequest(["deadline"]))
        headers = {"content_type": "application/grpc-web+proto", "grpc_timeout": "200m"}
        frame = b"\0" + len(body).to_bytes(4, "big") + body
        headers |= bearer(tokens["ops"])
        async with ask(server.address, "POST", SUBSCRIBE, frame, **headers) as reply:
            assert b"grpc-status" in await reply.body()
        await ends(subscribe("unauthenticated", "wrong"))
        await ends(subscribe("denied", "few", metadata={"x": "y"}))
        await ends(subscribe("error", metadata={"fault": "1"}))
        async with subscribe("first", "few") as call:
            await call.initial_metadata()
            await ends(subscribe("limit", "few"))
        tokens["expired"] = add_token(file, "expired", ["reader"], expires=time.time() + 3)
        kicked = asyncio.create_task(ends(subscribe("kicked")))
        expired = asyncio.create_task(ends(subscribe("expired", "expired")))
        revoked = asyncio.create_task(ends(subscribe("revoked", "revoked")))
        async with asyncio.timeout(3):
            while len(server.calls) < 3:
                await asyncio.sleep(0.02)
        await asyncio.to_thread(remove_token, file, "revoked")
        [record] = [each for each in server.calls if each.resource == "kicked"]
        server.calls.kick(record.id)
        await asyncio.gather(kicked, expired, revoked)
        async with AsyncClient(server.address, metadata=bearer(tokens["ops"])) as client:
            slow = subscribe("slow")
            async with slow:
                await slow.initial_metadata()
                for _ in range(64):
                    await client.publish("slow", "x" * 1_000_000)
                await asyncio.sleep(1.5)
            assert await client.jobs() == []  # "done"
        draining = asyncio.create_task(ends(subscribe("drain")))
        async with asyncio.timeout(10):
            while not len(server.calls):
                await asyncio.sleep(0.02)
        await server.stop()
        await draining
    found = {line["resource"]: line for line in lines_of(log) if line["method"] == SUBSCRIBE}
    for reason in ("client", "deadline", "kicked", "expired", "revoked", "slow", "drain"):
        assert found[reason]["reason"] == reason, found[reason]
    reasons = [line["reason"] for line in lines_of(log)]
    for reason in ("unauthenticated", "denied", "limit", "error"):
        assert reasons.count(reason) == 1, (reason, reasons)
    [refused] = [line for line in lines_of(log) if line["reason"] == "denied"]
    assert refused["identity"] == "token:few"
    line = found["kicked"]
    assert line["identity"] == "token:ops" and line["status"] == "UNAVAILABLE"
    assert line["peer"].startswith("ipv4:127.0.0.1:") and line["carrier"] == "grpc"
    assert not any(secret in log.read_text() for secret in tokens.values())


async def test_a_line_says_what_went_over_the_wire(tmp_path: Path) -> None:
    log = tmp_path / "log"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with (
        Server(journal=":memory:", port=0, access_log=log) as server,
        AsyncClient(server.address, metadata={"traceparent": trace}) as client,
    ):
        for number in range(5):
            await client.publish("orders.eu", str(number))
        async with client.subscribe("orders.*", start=after(server_position(server, 2))) as got:
            seen = 0
            async for _ in got:
                seen += 1
                if seen == 3:
                    break
    [line] = [line for line in lines_of(log) if line["method"] == SUBSCRIBE]
    epoch = line["resumed_from"].partition(":")[0]
    assert line["resumed_from"] == f"{epoch}:2" and line["position"] == f"{epoch}:5"
    assert (line["resource"], line["received"], line["sent"]) == ("orders.*", 1, 3)
    assert line["bytes_sent"] > 0 and line["bytes_received"] > 0 and line["seconds"] > 0
    assert line["trace_id"] == trace.split("-")[1] and line["identity"] == ""


def server_position(server: Server, sequence: int) -> Any:
    from streamkit.client import Position

    assert server.journal is not None
    return Position(server.journal.epoch, sequence)


async def test_long_calls_have_lines_of_their_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with (
        Server(journal=":memory:", port=0, access_log=log, access_log_every=0.2) as server,
        AsyncClient(server.address) as client,
        client.subscribe("orders"),
        asyncio.timeout(10),
    ):
        while log.read_text().count('"open": true') < 3:
            await asyncio.sleep(0.05)
    first, *_, last = [line for line in lines_of(log) if line["method"] == SUBSCRIBE]
    assert first["open"] and "status" not in first
    assert "open" not in last and last["reason"] == "client"
    assert first["call"] == last["call"] and first["seconds"] < last["seconds"]


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_as_many_lines_as_calls(tmp_path: Path, count: int) -> None:
    log = tmp_path / "log"
    path = "/streamservice.StreamService/WatchJobProgress"
    async with Server(journal=":memory:", port=0, access_log=log) as server:
        async with Channel(server.address) as channel:
            turns = asyncio.Semaphore(100)

            async def one(number: int) -> None:
                async with turns:
                    with suppress(StreamkitError):
                        async with channel.stream(
                            path, JobRequest, JobProgress, request=JobRequest(f"j{number}")
                        ) as call:
                            await call.receive()

            await asyncio.gather(*(one(number) for number in range(count)))
        assert len(server.calls) == 0
    found = [line["resource"] for line in lines_of(log)]
    assert sorted(found) == sorted(f"j{number}" for number in range(count))


def test_a_file_that_is_moved_away_is_made_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    writer: LineWriter[str] = LineWriter(log)
    writer.write("first")
    wait_for(lambda: log.read_text() == "first\n")
    os.rename(log, tmp_path / "log.1")
    wait_for(log.exists)
    writer.write("second")
    writer.close()
    assert (tmp_path / "log.1").read_text() == "first\n"
    assert log.read_text() == "second\n" and log.stat().st_mode & 0o007 == 0


def test_lines_beyond_the_bound_are_counted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer: LineWriter[str] = LineWriter(tmp_path / "pipe")
    began = time.thread_time()
    for _ in range(30_000):  # nobody reads: the pipe is full after 64 KiB
        writer.write("x" * 100)
    assert time.thread_time() - began < 5
    assert writer.dropped >= 30_000 - 2 * 10_000 - 1_000
    os.close(reader)
    writer.close()


def test_lines_are_formed_elsewhere_and_a_faulty_one_alone_is_lost(tmp_path: Path) -> None:
    threads: set[int] = set()

    def form(number: int) -> str:
        threads.add(threading.get_ident())
        return str(60 // number)

    log = tmp_path / "log"
    writer = LineWriter(log, form)
    for number in (1, 0, 2, *[3] * 200):
        writer.write(number)
    writer.close()
    assert log.read_text().split() == ["60", "30", *["20"] * 200]
    assert writer.dropped == 1
    assert threading.get_ident() not in threads


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="cannot write"):
        LineWriter(tmp_path / "none" / "log")


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
