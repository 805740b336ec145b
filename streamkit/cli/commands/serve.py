"""serve."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits
from streamkit.cli.parsing import duration, size
from streamkit.cli.session import Session, UsageError, command, value_of

if TYPE_CHECKING:
    from streamkit.config import JournalOptions
    from streamkit.server import Server

_WITH_PASSWORD = re.compile(r"//[^/@:]*:[^@]+@|[?&](?:ssl)?password=.")

__all__ = ["default_store", "is_loopback", "register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "serve", local=True)(_serve)


async def _serve(
    session: Session,
    store: Annotated[
        str,
        typer.Option(
            "--store",
            metavar="PATH|:memory:",
            help="SQLite file, made if it is not there; :memory: is gone at the end. "
            "Default: in the user's data directory.",
            show_default=False,
        ),
    ] = "",
    databases: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--database",
            metavar="NAME=URL",
            help="A database for `query --database NAME`: a SQLite file, duckdb:///file, "
            "postgresql://...; or '$VARIABLE' whose value that is.",
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.", min=0)] = 50051,
    uds: Annotated[
        str, typer.Option("--uds", metavar="PATH", help="Listen on this Unix socket instead.")
    ] = "",
    retain: Annotated[
        str, typer.Option("--retain", metavar="TIME", help="How long records are kept; 0 for ever.")
    ] = "7d",
    max_bytes: Annotated[
        str, typer.Option("--max-bytes", metavar="SIZE", help="Of the store; 0 sets no bound.")
    ] = "2GB",
    durability: Annotated[
        str,
        typer.Option(
            "--durability",
            metavar="normal|full",
            help="What an acknowledged write survives: the process or the machine.",
        ),
    ] = "normal",
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="For open streams at the end.")
    ] = "5s",
    tls_cert: Annotated[
        str, typer.Option("--tls-cert", metavar="FILE", help="Serve with TLS (PEM).")
    ] = "",
    tls_key: Annotated[
        str, typer.Option("--tls-key", metavar="FILE", help="Its private key.")
    ] = "",
    tls_client_ca: Annotated[
        str,
        typer.Option("--tls-client-ca", metavar="FILE", help="Clients need a certificate of it."),
    ] = "",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve other machines without TLS.")
    ] = False,
) -> int:
    """Run the server. Ctrl-C ends it: streams are told to come back; a second one forces."""
    from streamkit.config import JournalOptions, Retention

    given_sources = [value_of("--database", _named, text) for text in databases or []]
    sources = {name: _url(session, name, url) for name, url in given_sources}
    options = JournalOptions(
        durability=_one_of("--durability", durability, ("normal", "full")),
        retention=Retention(
            max_age=value_of("--retain", duration, retain),
            max_bytes=value_of("--max-bytes", size, max_bytes),
        ),
    )
    given: dict[str, Any] = {"path": uds} if uds else {"host": host, "port": port}
    if tls_cert or tls_key or tls_client_ca:
        if not (tls_cert and tls_key):
            raise UsageError("TLS needs both --tls-cert and --tls-key")
        from streamkit.transport.tls import server_tls

        given["ssl"] = server_tls(tls_cert, tls_key, tls_client_ca or None)
    elif not uds and not is_loopback(host) and not insecure:
        raise UsageError(
            f"{host} is open to other machines: give --tls-cert and --tls-key, or --insecure"
        )
    await _run(session, store or str(default_store()), sources, options, grace, given)
    return exits.OK


async def _run(
    session: Session,
    store: str,
    sources: dict[str, str],
    options: JournalOptions,
    grace: str,
    given: dict[str, Any],
) -> None:
    from streamkit.server import Server, dedicate_process

    if store != ":memory:":
        store = _prepare(store)
    seconds = value_of("--grace", duration, grace)
    server = Server(
        journal=store, journal_options=options, databases=sources, grace=seconds, **given
    )
    async with server:
        dedicate_process()
        _greet(session, server, store)
        await server.serve()
    session.note("stopped")


def _named(text: str) -> tuple[str, str]:
    """The sides of NAME=URL. The message does not repeat what may hold a password."""
    name, sign, url = text.partition("=")
    if not sign or not name.strip() or set(name) & set(":/?@"):
        raise ValueError("give NAME=URL")
    return name.strip(), url


def _url(session: Session, name: str, url: str) -> str:
    """A URL, or the one that an environment variable holds: arguments are for all to read."""
    if url.startswith("$"):
        try:
            return os.environ[url[1:].strip("{}")]
        except KeyError:
            raise UsageError(f"--database: {name}: {url[1:]} is not in the environment") from None
    if _WITH_PASSWORD.search(url):
        session.note(
            f"the password of database {name!r} can be read in the list of processes;"
            f" give its URL as --database '{name}=$VARIABLE'"
        )
    return url


def _prepare(store: str) -> str:
    path = Path(store).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)


def _greet(session: Session, server: Server, store: str) -> None:
    note = session.output.note
    note(f"streamkit serves on {server.address}")
    note(f"store: {'in memory, gone at the end' if store == ':memory:' else store}")
    other = "" if server.address in ("localhost:50051", "127.0.0.1:50051") else server.address
    if other:
        note(f"  export STREAMKIT_SERVER={other}")
    note("next, in another terminal:")
    note("  streamkit run -- make test            any command as a job with its log")
    note("  streamkit logs -f                     what is logged, live")
    note('  streamkit query "SELECT * FROM jobs"  all of it as SQL')


def default_store() -> Path:
    """The store of a server that was not told where to keep it."""
    import platformdirs

    return Path(platformdirs.user_data_dir("streamkit", appauthor=False)) / "streamkit.db"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _one_of(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise UsageError(f"{name}: {text!r} is not {' or '.join(allowed)}")
    return text
