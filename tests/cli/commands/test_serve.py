"""serve: what it says, what it refuses, how it ends."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from streamkit.access.file import add_token
from streamkit.cli.commands.serve import is_loopback
from streamkit.cli.exits import UsageError
from streamkit.cli.input.stores import chosen_store, shown
from tests.cli.tools import ServerProcess, Terminal, invoke, streamkit
from tests.database.engines import Postgres

Start = Callable[..., ServerProcess]


def test_greeting_names_address_store_and_next_commands(
    start_server: Start, tmp_path: Path
) -> None:
    server = start_server(tmp_path / "new" / "directory" / "events.db")
    said = "\n".join(server.greeting)
    assert f"store: {tmp_path}/new/directory/events.db" in said
    assert f"export STREAMKIT_SERVER={server.address}" in said
    assert streamkit("status", server=server.address).returncode == 0
    assert server.stop(signal.SIGINT) == 0
    assert server.greeting[-1] == "streamkit: stopped"


def test_the_default_store_is_in_the_users_directory(tmp_path: Path) -> None:
    with Terminal(
        "serve", "--port", "0", env={"HOME": str(tmp_path), "XDG_DATA_HOME": ""}
    ) as terminal:
        terminal.wait_for("serves on", "next, in another terminal")
        stores = list(tmp_path.rglob("streamkit.db"))
        assert len(stores) == 1 and "streamkit" in stores[0].parent.name
        terminal.interrupt()
        assert terminal.wait() == 0


def test_a_password_stays_out_of_sight(start_server: Start, tmp_path: Path) -> None:
    url = "postgresql://bob:hunter2@127.0.0.1:1/x"
    for wrong in (url, f"{url}?sslmode=require", f"={url}"):
        refused = invoke("serve", "--store", ":memory:", "--port", "0", "--database", wrong)
        assert refused.returncode == 2
        assert refused.stderr == "streamkit: --database: give NAME=URL\n"
    missing = invoke("serve", "--store", ":memory:", "--port", "0", "-d", "pg=$NOT_THERE")
    assert missing.stderr == "streamkit: --database: pg: NOT_THERE is not in the environment\n"

    server = start_server(tmp_path / "a.db", "-d", f"pg={url}")
    told = "streamkit: the password of database 'pg' can be read in the list of processes;"
    assert server.greeting[0].startswith(told)
    refused = invoke("query", "SELECT 1", "-d", "pg", server=server.address)
    assert refused.returncode == 1
    assert refused.stderr == "streamkit: database 'pg': connection refused\n"
    shown = invoke("status", "-o", "json", server=server.address).stdout
    server.stop()
    assert "hunter2" not in "\n".join(server.greeting) + shown


def test_a_database_url_from_the_environment(
    start_server: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute("CREATE TABLE items(id)")
    monkeypatch.setenv("SHOP", f"sqlite:///{tmp_path}/shop.db")
    for given in ("shop=$SHOP", "shop=${SHOP}"):
        server = start_server(tmp_path / "a.db", "-d", given)
        assert "items" in invoke("tables", "-d", "shop", server=server.address).stdout
        server.stop()


def test_memory_store_leaves_nothing(start_server: Start, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    server = start_server(":memory:")
    address = server.address
    assert invoke("publish", "a", "x", server=address).stdout == "1\n"
    counted = invoke("query", "SELECT count(*) AS n FROM updates", server=address)
    assert counted.stdout == "n\n1\n"
    assert server.stop() == 0
    assert set(tmp_path.iterdir()) == before


def test_unix_socket(tmp_path: Path, start_server: Start) -> None:
    path = tmp_path / "s"
    server = start_server(tmp_path / "store.db", "--uds", str(path))
    assert server.address == f"unix:{path}"
    assert invoke("publish", "a", "x", "-s", server.address).returncode == 0
    server.stop()
    assert not path.exists()


def test_port_taken(start_server: Start, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = streamkit("serve", "--store", str(tmp_path / "x.db"), "--port", port)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and port in done.stderr and "in use" in done.stderr


def test_it_is_said_what_the_next_commands_need(start_server: Start, tmp_path: Path) -> None:
    def next_of(server: ServerProcess) -> str:
        return next(line for line in server.greeting if line.startswith("next"))

    assert next_of(start_server(tmp_path / "a.db")) == "next, in another terminal:"
    add_token(tmp_path / "access.toml", "ops", ["admin"])
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    both = str(tmp_path / "both.pem")
    options = ("--access", str(tmp_path / "access.toml"), "--tls-cert", both, "--tls-key", both)
    said = next_of(start_server(tmp_path / "b.db", *options))
    assert said.startswith("next, in another terminal, with --ca FILE ")
    assert said.endswith(" and --token-file FILE:")


def test_store_in_use(start_server: Start, tmp_path: Path) -> None:
    start_server(tmp_path / "x.db")
    done = streamkit("serve", "--store", str(tmp_path / "x.db"), "--port", "0")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "x.db" in done.stderr, done.stderr


def test_store_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is not a database, it is a text of some length" * 100)
    done = streamkit("serve", "--store", str(tmp_path / "x.db"), "--port", "0")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr


def test_store_of_a_newer_version(start_server: Start, tmp_path: Path) -> None:
    start_server(tmp_path / "x.db").stop()
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection, connection:
        connection.execute("PRAGMA user_version = 999999")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name='meta'").fetchone():
            connection.execute("UPDATE meta SET value = '999999' WHERE key LIKE '%version%'")
    done = streamkit("serve", "--store", str(tmp_path / "x.db"), "--port", "0")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1 and "newer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "--insecure"),
        (["--host", "::"], "--insecure"),
        (["--host", "0.0.0.0", "--access", "x.toml"], "give --tls-cert and --tls-key, or"),
        (["--access", "/nothing"], "cannot read /nothing"),
        (["--tls-cert", "x.pem"], "both --tls-cert and --tls-key"),
        (["--tls-cert", "/nothing", "--tls-key", "/nothing"], "/nothing"),
        (["--retain", "soon"], "--retain"),
        (["--max-bytes", "much"], "--max-bytes"),
        (["--durability", "maybe"], "--durability"),
        (["--query-timeout", "0"], "--query-timeout: must be more than 0"),
        (["--query-memory", "lots"], "--query-memory"),
        (["--query-bytes", "lots"], "--query-bytes"),
        (["--query-rows", "-1"], "query-rows"),
        (["--max-queries", "0"], "max-queries"),
        (["--database", "nothing"], "NAME=URL"),
        (["--grace", "x"], "--grace"),
        (["--port", "-1"], "port"),
        (["extra"], "extra"),
    ],
)
def test_what_it_refuses(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = invoke("serve", "--store", str(tmp_path / "x.db"), "--port", "0", *arguments)
    assert done.returncode in (1, 2) and said in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--query-rows", "10"], 1, "more than 10 rows"),
        (["--query-bytes", "1K"], 1, "larger than 1024 bytes"),
        (["--query-timeout", "300ms"], 124, "longer than 0.3 s"),
    ],
)
def test_what_a_query_may_cost(
    start_server: Start, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    server = start_server(tmp_path / "x.db", *arguments)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    if "timeout" in arguments[0]:
        endless = endless.replace("SELECT i FROM n", "SELECT max(i) FROM n")
    done = invoke("query", "-s", f"localhost:{server.port}", endless)
    assert "reconnecting" not in done.stderr, "asked again, it would be too much again"
    assert done.returncode == code and said in done.stderr, done.stderr


def test_insecure_serves_everybody(start_server: Start, tmp_path: Path) -> None:
    server = start_server(tmp_path / "x.db", "--host", "0.0.0.0", "--insecure")
    assert invoke("status", "-s", f"localhost:{server.port}").returncode == 0


def test_is_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org")))


def test_a_password_in_the_arguments_is_refused() -> None:
    urls = (
        "postgresql://me:s3cret@db/x",
        "nats://me:s3cret@a,b/x",
        "postgresql://x?password=s3cret",
    )
    for url in urls:
        with pytest.raises(UsageError, match="list of processes") as told:
            chosen_store(url, "", typed=True)
        assert "s3cret" not in str(told.value)
        assert chosen_store(url, "d", typed=False) == (url, "d")
        assert "s3cret" not in shown(url)
    refused = streamkit("serve", "--store", urls[0])
    assert refused.returncode == 2 and "s3cret" not in refused.stderr


def test_a_shared_store_and_its_copy(
    start_server: Start, postgres: Postgres, tmp_path: Path
) -> None:
    environment = {"STORE": f"{postgres.superuser_url}&log=served&password=s3cret"}
    with (
        Terminal(*_SHARED, "--data", f"{tmp_path}/a", env=environment) as a,
        Terminal(*_SHARED, "--data", f"{tmp_path}/b", env=environment) as b,
    ):
        a.wait_for("serves on", "next, in another terminal")
        b.wait_for("serves on", "next, in another terminal")
        first, second = (re.findall(r"serves on (\S+)", t.text)[0] for t in (a, b))
        assert "s3cret" not in a.text and "log=served" in a.text
        assert streamkit("publish", "t", "hello", server=first).returncode == 0
        read = streamkit("subscribe", "t", "--last", "1", "-e", server=second)
        assert "hello" in read.stdout
        for terminal in (a, b):
            terminal.interrupt()
            assert terminal.wait() == 0


_SHARED = ("serve", "--port", "0", "--store", "$STORE")
