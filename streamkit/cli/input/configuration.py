"""The configuration file: the options of a command, written down.

    [serve]
    port = 50051
    retain = "30d"
    tls-cert = "/etc/streamkit/cert.pem"

    [serve.database]
    shop = { env = "SHOP_URL" }

    [[serve.retention]]
    topics = "metrics.>"
    age = "1d"

A flag outranks the environment (STREAMKIT_SERVE_PORT), which outranks the file, which outranks the
default. Every text may be `{ file = PATH }`, `{ env = NAME }` or `{ credential = NAME }` (a file in
$CREDENTIALS_DIRECTORY); what holds a password must be. Keys that nobody knows are an error: a
setting with a slip in it would otherwise be silently another one.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from streamkit.cli.later import tomllib

__all__ = ["NOT_IN_FILE", "Configuration", "ConfigurationError", "configuration", "load", "places"]

_KEY = "streamkit.configuration"
_SYSTEM = Path("/etc/streamkit/streamkit.toml")
_MOST = 1024 * 1024
_LONGEST_SECRET = 64 * 1024
NOT_IN_FILE = frozenset({"config", "reload", "help", "color", "no_color", "debug"})
"""What is about one start rather than about a server."""
_WITH_PASSWORD = re.compile(r"//[^/@:]*:[^@]+@|[?&](?:ssl)?password=.")


class ConfigurationError(Exception):
    """The file says something that cannot be meant. Shaped as a usage error."""

    def __init__(self, text: str, context: Any = None) -> None:
        super().__init__(text)
        self.ctx = context

    def format_message(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Configuration:
    """What a file says for one command."""

    path: Path | None = None
    """None: there is no file."""
    values: dict[str, Any] = field(default_factory=dict)
    """By the names of the command's parameters; secrets are resolved."""
    shown: dict[str, Any] = field(default_factory=dict)
    """The same as it is written, for people."""


def places() -> list[Path]:
    """Where a file is looked for when nobody names one; the first that is there counts."""
    import platformdirs

    folder = platformdirs.user_config_dir("streamkit", appauthor=False)
    return [Path(folder) / "streamkit.toml", _SYSTEM]


def load(context: typer.Context, value: str) -> str:
    """The callback of --config: what the file says becomes the default of the other options."""
    if context.resilient_parsing:
        return value
    try:
        found = _read(context, value)
    except ConfigurationError as error:
        error.ctx = context
        raise
    context.meta[_KEY] = found
    context.default_map = found.values
    return value


def configuration(context: typer.Context) -> Configuration:
    """What was loaded for a command."""
    found: Configuration = context.meta.get(_KEY, Configuration())
    return found


def _read(context: typer.Context, value: str) -> Configuration:
    if value:
        path = Path(value).expanduser()
    else:
        there = [place for place in places() if place.is_file()]
        if not there:
            return Configuration()
        path = there[0]
    try:
        with path.open("rb") as file:
            data = file.read(_MOST + 1)
        if len(data) > _MOST:
            raise ConfigurationError(f"{path} is larger than 1 MiB")
        tables = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigurationError(f"{path}: {error}") from None
    command = str(context.info_name)
    _known(path, "", tables, [command])
    table = tables.get(command, {})
    if not isinstance(table, dict):
        raise ConfigurationError(f"{path}: {command} is a table: [{command}]")
    options = {_key(param): param for param in context.command.params if _in_file(param)}
    given = {key.replace("_", "-"): item for key, item in table.items()}
    _known(path, f"{command}.", given, options)
    found = Configuration(path)
    for key, item in given.items():
        name = str(options[key].name)
        if item == []:  # as `config init` writes what is not set
            continue
        try:
            found.values[name] = _value(options[key], item)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {command}.{key}: {error}") from None
        found.shown[name] = item
    return found


def _key(param: Any) -> str:
    return str(max(param.opts, key=len)).removeprefix("--")


def _in_file(param: Any) -> bool:
    return param.param_type_name == "option" and param.name not in NOT_IN_FILE


def _known(path: Path, before: str, given: Mapping[str, Any], known: Any) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), 1, 0.5)
            hint = f"; did you mean {before}{near[0]}?" if near else ""
            raise ConfigurationError(f"{path}: there is no {before}{key}{hint}")


def _value(param: Any, item: Any) -> Any:
    if getattr(param, "is_flag", False):
        if not isinstance(item, bool):
            raise ConfigurationError("give true or false")
        return item
    if getattr(param, "multiple", False):
        if isinstance(item, dict):
            return [f"{name}={_checked(_text(part))}" for name, part in item.items()]
        if not isinstance(item, list):
            raise ConfigurationError("give a list")
        return [_checked(_entry(part)) for part in item]
    if isinstance(param.default, int) or param.get_runtime_param().annotation is int:
        if not isinstance(item, int) or isinstance(item, bool):
            raise ConfigurationError("give a whole number")
        return item
    return _checked(_text(item))


def _entry(item: Any) -> str:
    """One item of a list. A table that names no other place for it is what an option of several
    parts says: `[[serve.retention]]`."""
    if isinstance(item, dict) and not item.keys() <= {"env", "file", "credential"}:
        return ",".join(shlex.quote(f"{key}={_checked(_text(part))}") for key, part in item.items())
    return _text(item)


class _Secret(str):
    """A text that is kept elsewhere."""

    __slots__ = ()


def _checked(text: str) -> str:
    if not isinstance(text, _Secret) and _WITH_PASSWORD.search(text):
        raise ConfigurationError(
            "a password does not belong into this file: give { file = ... } or { env = ... }"
        )
    return text


def _text(item: Any) -> str:
    if isinstance(item, dict):
        return _Secret(_elsewhere(item))
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        raise ConfigurationError("give a text")
    return str(item)


def _elsewhere(item: dict[str, Any]) -> str:
    match item:
        case {"env": str(name), **rest} if not rest:
            text = os.environ.get(name)
            if text is None:
                raise ConfigurationError(f"{name} is not in the environment")
            return text
        case {"file": str(path), **rest} if not rest:
            return _content(Path(path).expanduser())
        case {"credential": str(name), **rest} if not rest:
            folder = os.environ.get("CREDENTIALS_DIRECTORY")
            if not folder or "/" in name:
                raise ConfigurationError(f"there is no credential {name!r}")
            return _content(Path(folder) / name)
    raise ConfigurationError("give a text, { file = ... }, { env = ... } or { credential = ... }")


def _content(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST_SECRET + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"{path} is no text") from None
    if len(text) > _LONGEST_SECRET:
        raise ConfigurationError(f"{path} is too long")
    return text.strip("\r\n")
