"""config show, check, init: the file that holds the options of `serve`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from streamkit.cli import exits
from streamkit.cli.commands.serve import settings_of
from streamkit.cli.exits import UsageError
from streamkit.cli.input.configuration import NOT_IN_FILE, configuration, places
from streamkit.cli.later import json
from streamkit.cli.options import Group, command
from streamkit.cli.session import Session

__all__ = ["configured", "register"]

_FILE = typer.Option(
    "--config", metavar="FILE", envvar="STREAMKIT_CONFIG", help="Instead of the usual places."
)
_PASSWORD = re.compile(r"(//[^/@:]*:)[^@]+@|([?&](?:ssl)?password=)[^&]*")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(
        name="config",
        cls=Group,
        help="Show, check and begin the file that holds the options of `serve`.",
        no_args_is_help=True,
    )
    for name, body in (("show", _show), ("check", _check), ("init", _init)):
        command(group, name, local=True)(body)
    app.add_typer(group)


async def _show(
    session: Session, context: typer.Context, config: Annotated[str, _FILE] = ""
) -> int:
    """Show each option of `serve` with its value and where that comes from. No password is."""
    serve = configured(context, config)
    found = configuration(serve)
    line = session.output.line
    line(f"# {found.path or 'no file'}")
    line("[serve]")
    for param in _options(serve):
        source = serve.get_parameter_source(param.name)
        kind = "DEFAULT" if source is None else source.name
        value = serve.params[param.name]
        if kind == "DEFAULT_MAP":
            value, kind = found.shown[param.name], "file"
        elif kind == "ENVIRONMENT":
            kind = f"${_variable(param)}"
        written = f"{_key(param)} = {_toml(value)}"
        line(f"{written:<40}  # {'default' if kind == 'DEFAULT' else kind}")
    return exits.OK


async def _check(
    session: Session, context: typer.Context, config: Annotated[str, _FILE] = ""
) -> int:
    """Check the file, and the files it names, without starting a server."""
    serve = configured(context, config)
    given = settings_of(session, serve)
    if "access" in given:
        from streamkit.access.file import read_rules

        read_rules(given["access"])
    session.note(f"{configuration(serve).path or 'no file, the defaults'}: in order")
    return exits.OK


async def _init(
    session: Session,
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(metavar="[FILE]", help="- is standard output.", show_default=False),
    ] = "",
) -> int:
    """Write a file with every option, its meaning and its default, all commented out."""
    text = "\n".join(_lines(configured(context, "", read=False))) + "\n"
    if file == "-":
        session.output.line(text.rstrip("\n"))
        return exits.OK
    path = Path(file) if file else places()[0]
    _write(path, text)
    session.note(f"wrote {path}")
    return exits.OK


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} is there already") from None


def configured(context: typer.Context, config: str, *, read: bool = True) -> typer.Context:
    """The command `serve` as it would start with the file, the environment and no flag."""
    found: Any = context.find_root().command
    serve = found.commands["serve"]
    arguments = ["--config", config] if config else []
    try:
        made: typer.Context = serve.make_context(
            "serve", arguments, parent=context.find_root(), resilient_parsing=not read
        )
    except Exception as error:
        say = getattr(error, "format_message", None)  # a usage error's; the classes move
        if say is None:
            raise
        raise UsageError(say()) from None
    return made


def _options(serve: typer.Context) -> Iterator[Any]:
    for param in serve.command.params:
        if param.param_type_name == "option" and param.name not in NOT_IN_FILE:
            yield param


def _lines(serve: typer.Context) -> Iterator[str]:
    yield "# Options of `streamkit serve`. A flag or a variable of the environment"
    yield "# (STREAMKIT_SERVE_PORT) outranks what stands here. Passwords stand elsewhere:"
    yield '# { file = "PATH" }, { env = "NAME" } or { credential = "NAME" } instead of a text.'
    yield ""
    yield "[serve]"
    for param in _options(serve):
        yield ""
        yield f"## {param.help}"
        yield f"# {_key(param)} = {_toml(param.get_default(serve))}"


def _key(param: Any) -> str:
    return str(max(param.opts, key=len)).removeprefix("--")


def _variable(param: Any) -> str:
    return str(param.envvar or f"STREAMKIT_SERVE_{str(param.name).upper()}")


def _toml(value: Any) -> str:
    match value:
        case None:
            return "[]"
        case bool():
            return "true" if value else "false"
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case int() | float():
            return str(value)
    hidden = _PASSWORD.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", str(value))
    return json.dumps(hidden, ensure_ascii=False)
