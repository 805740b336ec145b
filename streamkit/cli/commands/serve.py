"""serve."""

from __future__ import annotations

import ipaddress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.greeting import greet
from streamkit.cli.input.apps import load_app
from streamkit.cli.input.configuration import load
from streamkit.cli.input.limits import query_limits
from streamkit.cli.input.parsing import duration, size, some
from streamkit.cli.input.retention import retention_rule
from streamkit.cli.input.stores import (
    WITH_PASSWORD,
    chosen_store,
    default_store,
    from_environment,
    made_ready,
)
from streamkit.cli.later import socket
from streamkit.cli.options import command
from streamkit.cli.output.log import LEVELS, log_to_stderr
from streamkit.cli.reconfiguring import reconfigure, reconfigured
from streamkit.cli.reloading import Child, supervise
from streamkit.cli.session import Session
from streamkit.cli.workers import inherited, serve_workers
from streamkit.supervision import given_listener, supervised

if TYPE_CHECKING:
    from streamkit.server import Server


_QUERIES = "Queries"
_WEB = "Browsers"

__all__ = ["is_loopback", "register", "settings_of"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    environment = {"auto_envvar_prefix": "STREAMKIT_SERVE"}
    command(app, "serve", local=True, context_settings=environment)(_serve)


async def _serve(
    session: Session,
    context: typer.Context,
    app: Annotated[
        str,
        typer.Argument(
            metavar="[MODULE:NAME]",
            help="Your own handlers, a streamkit.Server, or a function that returns them; without "
            "--store they are served alone.",
            show_default=False,
        ),
    ] = "",
    config: Annotated[
        str,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="STREAMKIT_CONFIG",
            help="These options from a file, see `streamkit config`. Else the user's, else "
            "/etc/streamkit/streamkit.toml.",
            show_default=False,
            is_eager=True,
            callback=load,
        ),
    ] = "",
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Start MODULE:NAME anew after every change of its folder."),
    ] = False,
    store: Annotated[
        str,
        typer.Option(
            "--store",
            metavar="PATH|:memory:|URL",
            help="SQLite file, made if it is not there; :memory: is gone at the end; "
            "postgresql://... or nats://HOST,HOST/NAME is shared by several servers, or "
            "'$VARIABLE' whose value that is. "
            "Default: in the user's data directory.",
            show_default=False,
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DIR",
            help="This server's copy of a store that is shared. Default: beside the default store.",
            show_default=False,
        ),
    ] = "",
    databases: Annotated[
        list[str] | None,
        typer.Option(
            "-d",
            "--database",
            metavar="NAME=URL",
            envvar="STREAMKIT_SERVE_DATABASE",
            show_envvar=False,
            help="A database for `query --database NAME`: a SQLite file, duckdb:///file, "
            "postgresql://...; or '$VARIABLE' whose value that is.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            metavar="N",
            help="Serve by so many processes, 0 for one a core; another one owns the store.",
            min=0,
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)
    ] = 50051,
    uds: Annotated[
        str, typer.Option("--uds", metavar="PATH", help="Listen on this Unix socket instead.")
    ] = "",
    retain: Annotated[
        str, typer.Option("--retain", metavar="TIME", help="How long records are kept; 0 for ever.")
    ] = "7d",
    max_bytes: Annotated[
        str, typer.Option("--max-bytes", metavar="SIZE", help="Of the store; 0 sets no bound.")
    ] = "2GB",
    retention: Annotated[
        list[str] | None,
        typer.Option(
            "--retention",
            metavar="RULE",
            help="Less of some: 'topics=metrics.>,age=1d,bytes=200MB,keep_last=1', or services=...;"
            " the first that means a topic decides. `streamkit prune --dry-run` tells.",
        ),
    ] = None,
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
    access: Annotated[
        str,
        typer.Option(
            "--access",
            metavar="FILE",
            envvar="STREAMKIT_ACCESS",
            help="Who may do what: tokens and roles, see `streamkit token`. Read again when it "
            "changes. Without it everybody may do everything.",
            show_default=False,
        ),
    ] = "",
    access_log: Annotated[
        str,
        typer.Option(
            "--access-log",
            metavar="FILE|-",
            help="A line of JSON for each call that ends; - is standard error.",
        ),
    ] = "",
    access_log_every: Annotated[
        str,
        typer.Option(
            "--access-log-every", metavar="TIME", help="And for each call that lasts longer."
        ),
    ] = "",
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="HOST:PORT",
            help="Figures for Prometheus, at /metrics there: whoever can connect may read them.",
        ),
    ] = "",
    log_format: Annotated[
        str,
        typer.Option("--log-format", metavar="text|json", help="Of the server's own log."),
    ] = "text",
    log_level: Annotated[
        str, typer.Option("--log-level", metavar="|".join(LEVELS), help="Of it, and above.")
    ] = "info",
    trace: Annotated[
        bool, typer.Option("--trace", help="Spans for OpenTelemetry, whose SDK is set up around.")
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Serve other machines without TLS or without --access."),
    ] = False,
    web: Annotated[
        bool,
        typer.Option(
            "--web", help="A page for browsers, and HTTP, on the same port.", rich_help_panel=_WEB
        ),
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="ORIGIN",
            help="Let the pages of https://app.example.com use gRPC-Web, Connect and events.",
            rich_help_panel=_WEB,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A name under which browsers reach this server, as that of a proxy.",
            rich_help_panel=_WEB,
        ),
    ] = None,
    query_timeout: Annotated[
        str,
        typer.Option(
            "--query-timeout",
            metavar="TIME",
            help="The most for one query, what its reader takes included.",
            rich_help_panel=_QUERIES,
        ),
    ] = "5m",
    max_queries: Annotated[
        int,
        typer.Option(
            "--max-queries",
            help="At a time; others wait their turn.",
            min=1,
            rich_help_panel=_QUERIES,
        ),
    ] = 8,
    query_memory: Annotated[
        str,
        typer.Option(
            "--query-memory",
            metavar="SIZE",
            help="For all queries on a DuckDB or PostgreSQL database together.",
            rich_help_panel=_QUERIES,
        ),
    ] = "512MB",
    query_rows: Annotated[
        int,
        typer.Option(
            "--query-rows",
            help="The most of one result; 0 sets no bound.",
            min=0,
            rich_help_panel=_QUERIES,
        ),
    ] = 0,
    query_bytes: Annotated[
        str,
        typer.Option(
            "--query-bytes",
            metavar="SIZE",
            help="The most of one result; 0 sets no bound.",
            rich_help_panel=_QUERIES,
        ),
    ] = "0",
) -> int:
    """Run the server, with services of your own or without. Ctrl-C ends it; a second one forces.

    Live streams are told to come back.
    """
    session.terminated = exits.OK
    member = inherited(context)
    app, workers = context.params["app"], context.params["workers"]
    if workers is not None:
        from streamkit.config import WorkerLimits  # here: help would wait for all settings

        if workers > WorkerLimits().most:
            raise UsageError(f"--workers: at most {WorkerLimits().most}")
    if reload and workers is not None:
        raise UsageError("--reload is for one process: leave --workers out")
    if reload and not app:
        raise UsageError("--reload is for a MODULE:NAME of your own")
    child = Child.inherited() if reload else None
    if reload and child is None:
        return await supervise(session, Path.cwd())
    if trace:
        from streamkit import tracing

        tracing.enable()
    given = settings_of(session, context)
    made_ready(given["journal"] or "")
    if app:
        server = load_app(app)
        server.configure(**_chosen(context, given))
    else:
        from streamkit.server import Server

        server = Server(**given)
    if member is not None:
        member.on_reload = partial(reconfigure, server)
        return exits.OK if await member.run(server) else exits.FAILED
    listener = given_listener()
    if listener is not None:
        if listener.family == socket.AF_UNIX:
            raise UsageError("the socket that was given is none of TCP; use --uds")
        if not insecure:
            _check_open(str(listener.getsockname()[0]), given)
        server.configure(listener=listener, path=None)
    store, rules = given["journal"] or "", given.get("access", "")
    hello = partial(greet, session, server, app, store, rules)
    if workers is not None:
        settings = partial(settings_of, session)
        return await serve_workers(session, context, server, workers, hello, settings)
    await _run(session, context, server, hello, child)
    return exits.OK


def settings_of(session: Session, context: typer.Context) -> dict[str, Any]:
    """What the options, wherever they come from, ask of a server. UsageError for what cannot be
    meant."""
    from streamkit.config import JournalOptions, Retention

    asked = SimpleNamespace(**context.params)
    given_sources = [value_of("--database", _named, text) for text in asked.databases or []]
    typed = _came_from(context, "databases", "COMMANDLINE")
    sources = {name: _url(session, name, url, typed) for name, url in given_sources}
    options = JournalOptions(
        durability=_one_of("--durability", asked.durability, ("normal", "full")),
        retention=Retention(
            max_age=value_of("--retain", duration, asked.retain),
            max_bytes=value_of("--max-bytes", size, asked.max_bytes),
            rules=tuple(
                value_of("--retention", retention_rule, text) for text in asked.retention or ()
            ),
        ),
    )
    given: dict[str, Any] = (
        {"path": asked.uds} if asked.uds else {"host": asked.host, "port": asked.port}
    )
    given["query_limits"] = query_limits(context.params)
    if asked.tls_cert or asked.tls_key or asked.tls_client_ca:
        if not (asked.tls_cert and asked.tls_key):
            raise UsageError("TLS needs both --tls-cert and --tls-key")
        from streamkit.transport.tls import server_tls

        given["ssl"] = server_tls(asked.tls_cert, asked.tls_key, asked.tls_client_ca or None)
    if asked.access:
        given["access"] = asked.access
    if asked.access_log:
        given["access_log"] = asked.access_log
        if asked.access_log_every:
            seconds = value_of("--access-log-every", some(duration), asked.access_log_every)
            given["access_log_every"] = seconds
    if asked.metrics:
        given["metrics"] = asked.metrics
    form = _one_of("--log-format", asked.log_format, ("text", "json"))
    log_to_stderr(form, _one_of("--log-level", asked.log_level, LEVELS))
    given |= {
        "web": asked.web,
        "allow_origins": asked.allow_origin or (),
        "allow_hosts": asked.allow_host or (),
    }
    if not asked.uds and not asked.insecure:
        _check_open(asked.host, given)
    store = asked.store or ("" if asked.app else str(default_store()))
    typed = _came_from(context, "store", "COMMANDLINE")
    store, given["data"] = chosen_store(store, asked.data, typed=typed)
    given |= {
        "journal": store or None,
        "journal_options": options,
        "databases": sources,
        "grace": value_of("--grace", duration, asked.grace),
    }
    return given


def _check_open(host: str, given: dict[str, Any]) -> None:
    if is_loopback(host):
        return
    missing = [] if "ssl" in given else ["--tls-cert and --tls-key"]
    missing += [] if "access" in given else ["--access"]
    if missing:
        needed = " and ".join(missing)
        raise UsageError(f"{host} is open to other machines: give {needed}, or --insecure")


async def _run(
    session: Session, context: typer.Context, server: Server, hello: Any, child: Child | None
) -> None:
    from streamkit.process import dedicate_process

    if child is not None:
        server.configure(listener=await child.listener(server))
    async with server:
        dedicate_process()
        if child is None or child.first:
            hello()
        async with (
            reconfigured(context, server, partial(settings_of, session)),
            supervised(f"serves on {server.address}", partial(setattr, server, "on_drain")),
        ):
            await server.serve()
    if child is None:
        session.note("stopped")


_OPTIONS = {
    "journal": ("store",),
    "data": ("store", "data"),
    "journal_options": ("retain", "max_bytes", "retention", "durability"),
    "query_limits": (
        *("query_timeout", "max_queries", "query_memory", "query_rows", "query_bytes"),
    ),
    "path": ("uds",),
    "ssl": ("tls_cert",),
    "allow_origins": ("allow_origin",),
    "allow_hosts": ("allow_host",),
}
"""Settings of a server that are called otherwise here, or are made of several options."""


def _chosen(context: typer.Context, given: dict[str, Any]) -> dict[str, Any]:
    """The settings that were asked for, here, in the environment or in a file: those of a server
    that was made in code stay what they are otherwise."""

    def asked(name: str) -> bool:
        return _came_from(context, name, "COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")

    found = {
        key: value for key, value in given.items() if any(map(asked, _OPTIONS.get(key, (key,))))
    }
    if {"host", "port"} & set(found):
        found["path"] = None
    return found


def _came_from(context: typer.Context, name: str, *sources: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name in sources


def _named(text: str) -> tuple[str, str]:
    """The sides of NAME=URL. The message does not repeat what may hold a password."""
    name, sign, url = text.partition("=")
    if not sign or not name.strip() or set(name) & set(":/?@"):
        raise ValueError("give NAME=URL")
    return name.strip(), url


def _url(session: Session, name: str, url: str, typed: bool) -> str:
    """A URL, or the one that an environment variable holds: arguments are for all to read."""
    if url.startswith("$"):
        return from_environment(f"--database: {name}", url)
    if typed and WITH_PASSWORD.search(url):
        session.note(
            f"the password of database {name!r} can be read in the list of processes;"
            f" give its URL as --database '{name}=$VARIABLE'"
        )
    return url


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
