"""The options that several commands have, each said once, and how a command is made.

`command` registers a coroutine function as a typer command. The function takes a `Session` first;
its other parameters are its own options. The options of the connection are added here, so that
they are accepted by every command, anywhere on its line.

One meaning for each flag, whatever the command: -n how many of the newest, -f follow, -F a field,
-o the format, -l a level, -d a database, -q quiet, -s the server.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, cast

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from streamkit.cli.exits import UsageError
from streamkit.cli.output.records import TIME_STYLES
from streamkit.cli.session import run

__all__ = [
    "JSON_FORMATS",
    "RECORD_FORMATS",
    "All",
    "Command",
    "Count",
    "Database",
    "Fields",
    "FromSeq",
    "Group",
    "JsonOutput",
    "Latest",
    "Quiet",
    "RecordOutput",
    "Since",
    "TimeStyle",
    "Timeout",
    "Until",
    "command",
    "one_of",
]

PANEL = "Connection"
RECORD_FORMATS = ("pretty", "raw", "json", "jsonl")
JSON_FORMATS = ("pretty", "json", "jsonl")
Body = Callable[..., Coroutine[Any, Any, int | None]]

Timeout = Annotated[
    str, typer.Option("--timeout", metavar="TIME", help="Stop then; exit code 124.")
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Since 10m ago, today, ISO 8601.")
]
Until = Annotated[
    str, typer.Option("--until", metavar="TIME", help="Nothing later than that; stop there.")
]
All = Annotated[bool, typer.Option("--all", help="All that is still kept.")]
FromSeq = Annotated[
    int, typer.Option("--from-seq", metavar="N", min=0, help="From this sequence on.")
]
Count = Annotated[int, typer.Option("--count", metavar="N", min=0, help="Stop after N.")]
RecordOutput = Annotated[
    str, typer.Option("-o", "--output", metavar="|".join(RECORD_FORMATS), help="Output format.")
]
JsonOutput = Annotated[
    str, typer.Option("-o", "--output", metavar="|".join(JSON_FORMATS), help="Output format.")
]
TimeStyle = Annotated[
    str, typer.Option("--time", metavar="|".join(TIME_STYLES), help="Times in pretty.")
]
Latest = Annotated[bool, typer.Option("--latest", help="When slow, only the newest of each name.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only the data; no word besides.")]
Fields = Annotated[
    list[str] | None, typer.Option("-F", "--field", metavar="KEY=VALUE", help="For each line.")
]
Database = Annotated[
    str, typer.Option("-d", "--database", metavar="NAME", help="Else the server's own store.")
]


def one_of(option: str, text: str, allowed: Sequence[str], default: str = "") -> str:
    """The text of an option that has a few values; UsageError for another."""
    if not text and default:
        return default
    if text not in allowed:
        raise UsageError(f"{option}: {text!r} is not one of {', '.join(allowed)}")
    return text


class Command(TyperCommand):
    """A command whose flags need no word for their kind, and are made when they are asked for:
    `streamkit --help` shows forty commands and the flags of none."""

    params: Any
    callback: Any

    def __init__(self, *, make: Callable[[], TyperCommand], **settings: Any) -> None:
        self._make = make
        super().__init__(**settings)
        del self.params, self.callback

    def __getattr__(self, name: str) -> Any:
        if name not in ("params", "callback"):
            raise AttributeError(name)
        made = self._make()
        self.params, self.callback = made.params, made.callback
        return self.__dict__[name]

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _look_for_missing_values(ctx, self.get_params(ctx), args)
        return super().parse_args(ctx, args)


class Group(TyperGroup):
    """The commands, whose flags need none either."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _plain(super().get_params(ctx))


def _plain(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


def _look_for_missing_values(ctx: Any, params: list[Any], args: Sequence[str]) -> None:
    """Refuse `--access-log --port 80`: the parser would take `--port` for a file, and 80 amiss."""
    options = {name: param for param in params for name in param.opts if name.startswith("-")}
    for name, value in itertools.pairwise(args):
        if "--" in (name, value) or not (ctx.allow_interspersed_args or name.startswith("-")):
            return
        asked = options.get(name)
        if asked is not None and not asked.is_flag and value in options:
            ctx.fail(f"{name} needs {asked.metavar or 'a value'}; {value} is an option itself")


_CONNECTION: dict[str, tuple[object, Any]] = {
    "server": (
        Annotated[
            str,
            typer.Option(
                "-s",
                "--server",
                metavar="HOST:PORT",
                help="Server, unix:PATH, or several: a:1,b:2. Else $STREAMKIT_SERVER, else "
                "localhost:50051.",
                rich_help_panel=PANEL,
                show_default=False,
            ),
        ],
        "",
    ),
    "tls": (
        Annotated[bool, typer.Option("--tls", help="Connect with TLS.", rich_help_panel=PANEL)],
        False,
    ),
    "ca": (
        Annotated[
            str,
            typer.Option(
                "--ca", metavar="FILE", help="Trust this authority (PEM).", rich_help_panel=PANEL
            ),
        ],
        "",
    ),
    "cert": (
        Annotated[
            str,
            typer.Option(
                "--cert", metavar="FILE", help="Client certificate (PEM).", rich_help_panel=PANEL
            ),
        ],
        "",
    ),
    "key": (
        Annotated[
            str,
            typer.Option("--key", metavar="FILE", help="Its private key.", rich_help_panel=PANEL),
        ],
        "",
    ),
    "context": (
        Annotated[
            str,
            typer.Option(
                "--context",
                metavar="NAME",
                help="Use this connection of `streamkit context`. Else $STREAMKIT_CONTEXT.",
                rich_help_panel=PANEL,
            ),
        ],
        "",
    ),
    "token_file": (
        Annotated[
            str,
            typer.Option(
                "--token-file",
                metavar="FILE",
                help="Show the token in this file. Else that of $STREAMKIT_TOKEN, if there is one.",
                rich_help_panel=PANEL,
            ),
        ],
        "",
    ),
    "insecure": (
        Annotated[
            bool,
            typer.Option(
                "--insecure",
                help="Show a token to another machine without TLS, for all on the way to read.",
                rich_help_panel=PANEL,
            ),
        ],
        False,
    ),
    "connect_timeout": (
        Annotated[
            str,
            typer.Option(
                "--connect-timeout",
                metavar="TIME",
                help="Give up a connection attempt after so long.",
                rich_help_panel=PANEL,
            ),
        ],
        "5s",
    ),
}
_GENERAL: dict[str, tuple[object, Any]] = {
    "color": (
        Annotated[
            str,
            typer.Option(
                "--color", metavar="auto|always|never", help="Colour.", rich_help_panel="General"
            ),
        ],
        "auto",
    ),
    "no_color": (
        Annotated[
            bool,
            typer.Option("--no-color", help="As --color never.", rich_help_panel="General"),
        ],
        False,
    ),
    "debug": (
        Annotated[
            bool,
            typer.Option("--debug", help="Show tracebacks.", rich_help_panel="General"),
        ],
        False,
    ),
}


def command(app: typer.Typer, name: str, *, local: bool = False, **settings: Any) -> Any:
    """Decorate a coroutine function `(session, ...) -> exit code | None` as the command `name`.

    `local` commands are servers: they make no connection of their own, do not have its options,
    and run on the fastest event loop that is installed.
    """

    def register(body: Body) -> Body:
        def nothing_yet() -> None: ...

        nothing_yet.__doc__ = body.__doc__
        make = functools.partial(_made, body, local)
        kind: Any = functools.partial(Command, make=make)  # typer only calls it
        app.command(name, cls=kind, **settings)(nothing_yet)
        return body

    return register


def _made(body: Body, local: bool) -> TyperCommand:
    """What typer makes of a coroutine function and the options that are added to its own."""
    signature = inspect.signature(body, eval_str=True)
    own = list(signature.parameters.values())[1:]
    common = _GENERAL if local else _CONNECTION | _GENERAL
    added = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for key, (kind, default) in common.items()
    ]

    @functools.wraps(body)
    def invoke(**values: Any) -> int:
        given = {key: values.pop(key) for key in common}
        return run(given, lambda session: body(session, **values))

    invoke.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect reads it
        parameters=[parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        + added,
        return_annotation=int,
    )
    invoke.__annotations__ = {}
    alone = typer.Typer(add_completion=False)
    alone.command()(invoke)
    made: Any = typer.main.get_command(alone)
    return cast(TyperCommand, made)
