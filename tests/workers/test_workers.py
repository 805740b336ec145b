"""A server of several processes is one server: everything of `serve`, over all of them."""

from __future__ import annotations

import asyncio
import re
import socket
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streamkit.client import AsyncClient
from streamkit.errors import ConnectError, NotFoundError
from tests.cli.tools import ServerProcess, invoke, streamkit
from tests.client.servers import QUICK
from tests.workers.serving import at_each, gone, kill, serving, whole
from tests.workers.test_proof import ordeal


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


METRICS = _free_port()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    store = tmp_path_factory.mktemp("workers") / "store.db"
    with serving(store, "--web", "--metrics", f"127.0.0.1:{METRICS}") as process:
        yield process
        assert process.stop() == 0
        assert process.greeting[-1] == "streamkit: stopped"


def figure(name: str, **labels: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, found)
    return found[0]


async def test_figures_tell_what_the_owner_does(server: ServerProcess) -> None:
    async with AsyncClient(server.address) as client:
        before = await asyncio.to_thread(figure, "streamkit_commit_seconds_count")
        await client.publish("figures.a", "text")
        assert await asyncio.to_thread(figure, "streamkit_commit_seconds_count") > before
        assert await asyncio.to_thread(figure, "streamkit_duplicates_total") == 0


async def test_status_tells_of_all(server: ServerProcess) -> None:
    async with at_each(server.address) as clients:
        streams = [client.subscribe("status.>") for client in clients]
        async with streams[0] as one, streams[1] as other:
            status = await clients[0].status()
            assert status.streams[0].subscribers == 2
            assert [w.number for w in status.workers] == [1, 2]
            assert status.connections == sum(w.connections for w in status.workers)
            assert all(worker.calls >= 1 for worker in status.workers)
            await clients[1].publish("status.a", "text")
            for stream in (one, other):
                assert [update.message for update in await stream.receive()] == ["text"]
    shown = streamkit("status", server=server.address).stdout
    assert len(re.findall(r"^worker [12] +process \d+, up for ", shown, re.M)) == 2, shown


async def test_what_one_has_written_the_others_tell_at_once(server: ServerProcess) -> None:
    async with at_each(server.address) as (one, other), one.log_writer("at-once") as writer:
        for number in range(10):
            writer.write(str(number))
            await writer.flush()
            async with other.logs("at-once", lines=1) as lines:
                assert [line.message async for line in lines] == [str(number)]
            async with one.job(f"job-{number}"):
                assert (await other.jobs(limit=1))[0].job_id == f"job-{number}"


async def test_calls_of_all_are_listed_and_ended(server: ServerProcess) -> None:
    async with at_each(server.address) as clients:
        streams = [client.subscribe("kick.a") for client in clients]
        async with streams[0] as one, streams[1] as other:
            listed = await clients[0].calls()
            assert all(a.id < b.id for a, b in pairwise(listed))
            found = [call.id for call in listed if call.resource == "kick.a"]
            assert len(found) == 2
            for call in found:
                assert (await clients[1].kick(call, "enough")).resource == "kick.a"
            for stream in (one, other):
                with pytest.raises(ConnectError, match="an administrator ended the call: enough"):
                    await stream.receive()
            with pytest.raises(NotFoundError, match="no call"):
                await clients[0].kick(found[0])


async def test_figures_are_sums_and_never_go_back(server: ServerProcess) -> None:
    publish = {"grpc_method": "streamservice.ProducerService/Publish"}
    name = "grpc_server_call_started_total"
    async with at_each(server.address) as clients:
        before = await asyncio.to_thread(figure, name, **publish)
        for client in clients:
            for _ in range(5):
                await client.publish("figures", "text")
        assert await asyncio.to_thread(figure, name, **publish) == before + 10
        status = await whole(clients[0])
        assert await asyncio.to_thread(figure, "streamkit_workers") == 2
        connections = await asyncio.to_thread(figure, "streamkit_connections")
        assert connections == status.connections
        newest = await asyncio.to_thread(
            figure, "streamkit_journal_sequence", stream="updates", end="newest"
        )
        assert newest == status.streams[0].newest
        kill(status.workers[1].pid)
        await clients[0].publish("figures", "text")
        assert (await whole(clients[0])).workers[1].pid != status.workers[1].pid
        assert await asyncio.to_thread(figure, name, **publish) >= before + 11
        restarts = await asyncio.to_thread(figure, "streamkit_worker_restarts_total", worker="2")
        assert restarts == 1


async def test_a_login_holds_at_every_worker(server: ServerProcess) -> None:
    """Each request is a connection of its own: some get one worker, some the other."""

    async def ask(path: str, cookie: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = [f"GET {path} HTTP/1.1", f"Host: {server.address}", "Connection: close"]
        lines += [f"Cookie: {cookie}"] if cookie else []
        writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await reader.read()).decode().partition("\r\n\r\n")[0]
        writer.close()
        given = re.search(r"set-cookie: ([^;]+);", head, re.I)
        return int(head.split()[1]), given[1] if given else ""

    (page,) = [line.split()[-1] for line in server.greeting if line.startswith("page: ")]
    code = page.partition("/?")[2]
    assert (await ask("/methods.json", ""))[0] == 401
    status, cookie = await ask(f"/?{code}", "")
    assert (status, bool(cookie)) == (303, True)
    assert (await ask(f"/?{code}", ""))[0] == 401, "a code is good once, wherever"
    asked = [await ask("/methods.json", cookie) for _ in range(8)]
    assert [status for status, _ in asked] == [200] * 8


async def test_queries_backup_and_health_work(server: ServerProcess, tmp_path: Path) -> None:
    async with at_each(server.address) as clients:
        counts = []
        for client in clients:
            query = client.query("SELECT count(*) AS n FROM updates")
            counts += [row["n"] async for row in query.rows()]
        assert counts[0] == counts[1]
    saved = streamkit("backup", str(tmp_path / "copy.db"), server=server.address)
    assert saved.returncode == 0, saved.stderr
    assert streamkit("health", server=server.address).returncode == 0


async def test_killed_workers_are_not_noticed(server: ServerProcess) -> None:
    """Two kills under readers and producers; the long form is in test_proof."""
    verdict = await ordeal(server, kills=2, readers=10, producers=4)
    assert verdict.faults() == 0, verdict
    assert verdict.delivered == 10 * verdict.stored > 0


async def test_the_death_of_the_owner_ends_all_with_one_line(tmp_path: Path) -> None:
    with serving(tmp_path / "store.db") as server:
        async with AsyncClient(server.address, backoff=QUICK) as client:
            pids = [worker.pid for worker in (await whole(client)).workers]
        server.kill()
        assert server.process.returncode == -9
        async with asyncio.timeout(20):
            while not all(map(gone, pids)):
                await asyncio.sleep(0.02)
        told = [line for line in server.greeting if line.startswith("streamkit: ")]
        assert told == [
            "streamkit: the process that owned the store is gone; its workers have ended"
        ]


def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    refused = invoke("serve", "app:app", "--workers", "2", "--reload")
    assert refused.returncode == 2
    assert refused.stderr == "streamkit: --reload is for one process: leave --workers out\n"
    # What a worker says is said once, however many there would be.
    missing = str(tmp_path / "missing.toml")
    broken = streamkit(
        "serve", "--workers", "2", "--store", ":memory:", "--port", "0", "--access", missing
    )
    assert broken.returncode == 1
    assert len(broken.stderr.splitlines()) == 1 and missing in broken.stderr, broken.stderr


def test_the_port_of_another_server_is_not_shared(server: ServerProcess) -> None:
    """Though the system would let two servers of one user divide it."""
    taken = ("--port", str(server.port), "--workers", "1")
    refused = streamkit("serve", "--store", ":memory:", *taken)
    assert refused.returncode == 1
    assert f"127.0.0.1:{server.port} is in use" in refused.stderr


def test_an_app_is_served_by_each_over_a_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(
        "import os\n"
        "from contextlib import asynccontextmanager\n"
        "from pathlib import Path\n"
        "from streamkit import Server\n"
        "@asynccontextmanager\n"
        "async def lifespan(server):\n"
        "    Path(f'began-{os.environ[\"STREAMKIT_WORKER\"]}').touch()\n"
        "    yield\n"
        "    Path(f'ended-{os.environ[\"STREAMKIT_WORKER\"]}').touch()\n"
        "app = Server(journal='own.db', lifespan=lifespan)\n"
    )
    monkeypatch.chdir(tmp_path)
    process = ServerProcess.of("own:app", "--workers", "2", "--uds", str(tmp_path / "socket"))
    assert process.address == f"unix:{tmp_path}/socket"
    assert streamkit("publish", "a", "b", server=process.address).stdout == "1\n"
    assert process.stop() == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"began-1", "began-2", "ended-1", "ended-2", "own.db"} <= names
    assert "socket" not in names
