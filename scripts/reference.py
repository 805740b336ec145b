"""Write docs/reference/ from the program itself: `python scripts/reference.py [--check]`.

Commands come from the typer application, settings from the classes of `streamkit.config`, calls
from the descriptors of schema/ with their comments, names from what `streamkit` exports. The pages
are checked in; `--check` compares and exits 1 on a difference.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import streamkit
from streamkit import config, errors, testing
from streamkit.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py; `make generate` writes it anew. -->\n"


def main(arguments: list[str]) -> int:
    stale = 0
    for name, make in {
        "commands.md": _commands,
        "settings.md": _settings,
        "calls.md": _calls,
        "names.md": _names,
    }.items():
        path, text = PAGES / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        if "--check" in arguments:
            print(f"not up to date: docs/reference/{name} (run `make generate`)")
        else:
            PAGES.mkdir(exist_ok=True)
            path.write_text(text)
    print(f"docs/reference: {stale} file(s) changed")
    return int("--check" in arguments and bool(stale))


def _page(title: str, intro: str, parts: Iterator[str]) -> str:
    return "\n".join([NOTE, f"# {title}\n", intro + "\n", *parts]).rstrip() + "\n"


def _plain(text: str) -> str:
    """A docstring as one paragraph of Markdown: its code stays code, its markup is not ours."""
    words = " ".join(text.split())
    parts = words.split("`")
    return "`".join(
        part if place % 2 else re.sub(r"([*\[\]<>|]|(?<!\w)_|_(?!\w))", r"\\\1", part)
        for place, part in enumerate(parts)
    )


# ---- commands


def _commands() -> str:
    return _page(
        "Commands",
        "What each command and option means; `streamkit COMMAND --help` says the same. What holds "
        "for all of them, and the exit codes, are in [commands.md](../commands.md).",
        _command_parts(),
    )


def _command_parts() -> Iterator[str]:
    import typer.main

    group: Any = typer.main.get_command(app)
    yield "## streamkit\n"
    yield from _options(group)
    yield from _group(group, "streamkit")


def _group(group: Any, before: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        path = f"{before} {name}"
        if hasattr(command, "commands"):
            yield from _group(command, path)
            continue
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        usage = " ".join([path, "[OPTIONS]", *(_argument(p) for p in arguments)])
        yield f"## {path}\n\n```text\n{usage}\n```\n"
        for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(command.help or "")):
            yield _plain(re.sub(r"\[/?[a-z ]*\]", "", paragraph)) + "\n"
        told = [p for p in arguments if getattr(p, "help", None)]
        if told:
            yield "\n".join(f"- `{_argument(p)}`: {_plain(p.help)}" for p in told) + "\n"
        yield from _options(command)


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return f"{name}..." if parameter.nargs == -1 and not name.rstrip("]").endswith("...") else name


def _options(command: Any) -> Iterator[str]:
    shown = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    shown = [p for p in shown if not {"--install-completion", "--show-completion"} & set(p.opts)]
    if not shown:
        return
    rows = ["| option | meaning | default |", "|---|---|---|"]
    for p in shown:
        names = ", ".join(f"`{name}`" for name in [*p.opts, *p.secondary_opts])
        value = "" if p.is_flag or p.count else f" `{p.metavar or 'VALUE'}`".replace("|", "\\|")
        default = "" if p.default in (None, False, "", (), []) or callable(p.default) else p.default
        told = f"`{default}`" if not isinstance(default, str) or default else ""
        told = "" if str(default) in ("", "Sentinel.UNSET") else told
        rows.append(f"| {names}{value} | {_plain(p.help or '')} | {told} |")
    yield "\n".join(rows) + "\n"


# ---- settings


def _settings() -> str:
    return _page(
        "Settings",
        "The classes of `streamkit.config`: seconds and bytes throughout, and each default is safe "
        "for a server on a network. The options of `serve`, which may stand in a file, are in "
        "[commands.md](commands.md#streamkit-serve); what a peer is told at a bound is in "
        "[limits.md](../limits.md).",
        _setting_parts(),
    )


def _setting_parts() -> Iterator[str]:
    for name in config.__all__:
        kind = getattr(config, name)
        yield f"## {name}\n\n{_plain(inspect.getdoc(kind) or '')}\n"
        comments = _field_comments(kind)
        rows = ["| setting | default | meaning |", "|---|---|---|"]
        for field in fields(kind):
            default = "" if field.default is MISSING else _number(field.default)
            rows.append(f"| `{field.name}` | {default} | {_plain(comments.get(field.name, ''))} |")
        yield "\n".join(rows) + "\n"


def _number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"`{value!r}`"
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def _field_comments(kind: type) -> dict[str, str]:
    """The texts that stand under the fields of a class."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__[:-1]):
        try:
            tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(parent)))
        except (OSError, TypeError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for one, after in itertools.pairwise(body):
            named = isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
            text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if named and text:
                found[one.target.id] = str(after.value.value)  # type: ignore[attr-defined]  # the kind says so
    return found


# ---- calls


def _calls() -> str:
    return _page(
        "Calls",
        "Every method and message of streamkit's own services, from `schema/`. Fields 1 to 9 of "
        "the four streams are the plain contract; what has a higher number, and every other "
        "service, is there for those who ask for it.",
        _call_parts(),
    )


def _call_parts() -> Iterator[str]:
    from betterproto.lib.google.protobuf import FieldDescriptorProtoLabel, FileDescriptorProto

    from streamkit.scaffold.described import files_in

    raw = (ROOT / "streamkit" / "generated" / "descriptors.binpb").read_bytes()
    files = [FileDescriptorProto().parse(file) for file in files_in(raw)]
    ours = [file for file in files if file.package == "streamservice"]
    for part in ("services", "messages"):
        for file in ours:
            comments = {
                tuple(place.path): (place.leading_comments or place.trailing_comments)
                for place in file.source_code_info.location
            }
            if part == "services":
                for number, service in enumerate(file.service):
                    yield f"## {service.name}\n\n{_plain(comments.get((6, number), ''))}\n".replace(
                        "\n\n\n", "\n"
                    )
                    rows = ["| method | request | answer | what |", "|---|---|---|---|"]
                    for place, method in enumerate(service.method):
                        asked = ("stream " if method.client_streaming else "") + _short(
                            method.input_type
                        )
                        given = ("stream " if method.server_streaming else "") + _short(
                            method.output_type
                        )
                        said = _plain(comments.get((6, number, 2, place), ""))
                        rows.append(f"| `{method.name}` | {asked} | {given} | {said} |")
                    yield "\n".join(rows) + "\n"
                continue
            for number, message in enumerate(file.message_type):
                yield f"### {message.name}\n"
                if said := _plain(comments.get((4, number), "")):
                    yield said + "\n"
                rows = ["| field | number | type | what |", "|---|---|---|---|"]
                maps = {
                    f".{file.package}.{message.name}.{inner.name}": inner
                    for inner in message.nested_type
                    if inner.options.map_entry
                }
                for place, field in enumerate(message.field):
                    kind = _short(field.type_name) if field.type_name else _scalar(field.type)
                    if entry := maps.get(field.type_name):
                        first, second = entry.field
                        value = (
                            _short(second.type_name) if second.type_name else _scalar(second.type)
                        )
                        kind = f"map of {_scalar(first.type)} to {value}"
                    elif field.label == FieldDescriptorProtoLabel.LABEL_REPEATED:
                        kind = f"repeated {kind}"
                    said = _plain(comments.get((4, number, 2, place), ""))
                    rows.append(f"| `{field.name}` | {field.number} | {kind} | {said} |")
                if len(rows) > 2:
                    yield "\n".join(rows) + "\n"
                else:
                    yield "No fields.\n"


def _short(name: str) -> str:
    return name.removeprefix(".streamservice.").removeprefix(".")


def _scalar(kind: Any) -> str:
    return str(kind.name).removeprefix("TYPE_").lower()


# ---- names


def _names() -> str:
    return _page(
        "Names in Python",
        "Every name of the module `streamkit`, then those of `streamkit.errors` and "
        "`streamkit.testing`. Messages are in [calls.md](calls.md), settings in "
        "[settings.md](settings.md).",
        _name_parts(),
    )


def _name_parts() -> Iterator[str]:
    for title, module, names in (
        ("streamkit", streamkit, sorted(streamkit.__all__, key=str.lower)),
        ("streamkit.errors", errors, errors.__all__),
        ("streamkit.testing", testing, testing.__all__),
    ):
        yield f"## {title}\n"
        for name in names:
            if module is not streamkit and name in streamkit.__all__:
                continue
            if name.startswith("__"):
                continue
            yield from _name(name, getattr(module, name))


def _name(name: str, thing: Any) -> Iterator[str]:
    home = getattr(thing, "__module__", "")
    if home.startswith("streamkit.generated"):
        yield f"### {name}\n\nA message: [calls.md](calls.md#{name.lower()}).\n"
    elif name in config.__all__:
        yield f"### {name}\n\nSettings: [settings.md](settings.md#{name.lower()}).\n"
    elif inspect.isclass(thing):
        yield from _class(name, thing)
    elif inspect.isfunction(thing):
        yield f"### {name}\n\n```python\n{_signature(name, thing)}\n```\n"
        yield _paragraphs(thing)
    else:
        yield f"### {name}\n\nA type: `{_alias(thing)}`.\n"


def _class(name: str, thing: Any) -> Iterator[str]:
    public = {*streamkit.__all__, *errors.__all__, *testing.__all__}
    bases = [base.__name__ for base in thing.__bases__ if base.__name__ in public]
    yield f"### {name}\n"
    if bases:
        yield f"A kind of {', '.join(f'`{base}`' for base in bases)}.\n"
    documented = "__doc__" in vars(thing) and thing.__doc__
    if documented and not str(thing.__doc__).startswith(f"{name}("):
        yield _paragraphs(thing)
    own = [thing, *(b for b in thing.__mro__[1:] if b.__name__ not in public and _ours(b))]
    made = next((vars(kind)["__init__"] for kind in own if "__init__" in vars(kind)), None)
    ours = inspect.isfunction(made) and not is_dataclass(thing) and not name.startswith("Sync")
    if ours and not getattr(thing, "_is_protocol", False):
        yield f"```python\n{_signature(name, made)}\n```\n"
        if made.__doc__:
            yield _paragraphs(made)
    if is_dataclass(thing):
        comments = _field_comments(thing)  # type: ignore[arg-type]  # the kind says so
        for field in fields(thing):
            if not field.name.startswith("_"):
                said = _plain(comments.get(field.name, ""))
                yield f"- `{field.name}: {_annotation(field.type)}`" + (f": {said}" if said else "")
        yield ""
    members: dict[str, Any] = {}
    for kind in own:
        members = {**vars(kind), **members}
    for member, value in members.items():
        if member.startswith("_"):
            continue
        if isinstance(value, property) and value.fget is not None:
            kind = _annotation(value.fget.__annotations__.get("return", ""))
            yield f"- `.{member}: {kind}`: {_plain(inspect.getdoc(value) or '')}"
            continue
        function = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if inspect.isfunction(function):
            said = _plain(inspect.getdoc(function) or "")
            yield f"- `.{_signature(member, function, 10_000)}`" + (f": {said}" if said else "")
    yield ""


def _ours(kind: type) -> bool:
    return kind.__module__.startswith("streamkit")


def _paragraphs(thing: Any) -> str:
    """A docstring as Markdown; what stands indented in it is code."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", inspect.getdoc(thing) or ""):
        if paragraph.startswith("    "):
            parts.append(f"```text\n{textwrap.dedent(paragraph)}\n```")
        else:
            parts.append(_plain(paragraph))
    return "\n\n".join(parts) + "\n"


def _signature(name: str, function: Any, width: int = 90) -> str:
    shown = inspect.signature(function)
    parameters = []
    star = False
    for p in shown.parameters.values():
        if p.name in ("self", "cls"):
            continue
        if p.kind is p.KEYWORD_ONLY and not star:
            star = True
            parameters.append("*")
        text = p.name
        if p.kind is p.VAR_POSITIONAL:
            star, text = True, f"*{text}"
        elif p.kind is p.VAR_KEYWORD:
            text = f"**{text}"
        if p.annotation is not p.empty:
            text += f": {_annotation(p.annotation)}"
        if p.default is not p.empty:
            default = re.sub(r"<(?:object|function|.*) at 0x\w+>", "...", repr(p.default))
            text += f" = {default}" if ": " in text else f"={default}"
        parameters.append(text)
    given = "" if shown.return_annotation is shown.empty else _annotation(shown.return_annotation)
    asynchronous = "async " if inspect.iscoroutinefunction(function) else ""
    line = f"{asynchronous}{name}({', '.join(parameters)})" + (f" -> {given}" if given else "")
    if len(line) <= width:
        return line
    inner = "".join(f"    {text},\n" for text in parameters)
    return f"{asynchronous}{name}(\n{inner})" + (f" -> {given}" if given else "")


def _annotation(hint: Any) -> str:
    if isinstance(hint, str):
        return hint
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")


def _alias(thing: Any) -> str:
    return re.sub(r"\b(?:streamkit|typing|collections|datetime)\.(?:\w+\.)*", "", str(thing))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
