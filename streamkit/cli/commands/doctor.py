"""doctor: what is wrong, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits, options
from streamkit.cli.commands.config import configured
from streamkit.cli.exits import value_of
from streamkit.cli.input.parsing import duration, size
from streamkit.cli.later import asyncio, json, ssl
from streamkit.cli.options import command
from streamkit.cli.session import Session

if TYPE_CHECKING:
    from streamkit.cli.checks import Finding

__all__ = ["register"]

_SIGNS = {"ok": "✓", "warn": "!", "fail": "✗"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    command(app, "doctor")(_doctor)


async def _doctor(
    session: Session,
    ctx: typer.Context,
    config: Annotated[
        str,
        typer.Option(
            "--config", metavar="FILE", envvar="STREAMKIT_CONFIG", help="Of a server on this host."
        ),
    ] = "",
    output: options.JsonOutput = "pretty",
) -> int:
    """Look at the server, and at this machine as one for a server, and say what to do.

    Exit code 1 when something is wrong; a warning (!) does not count.
    """
    options.one_of("-o", output, options.JSON_FORMATS)
    found = await _of_server(session)
    found += await asyncio.to_thread(_of_machine, session, configured(ctx, config))
    if output == "json":
        session.output.line(json.dumps([each._asdict() for each in found], indent=1))
    else:
        for each in found:
            if output == "jsonl":
                session.output.line(json.dumps(each._asdict()))
                continue
            session.output.line(f"{_SIGNS[each.state]} {each.check}: {each.text}")
            if each.state != "ok" and each.advice:
                session.output.line(f"    {each.advice}")
    session.output.flush()
    return exits.FAILED if any(each.state == "fail" for each in found) else exits.OK


async def _of_server(session: Session) -> list[Finding]:
    from streamkit.cli import checks
    from streamkit.errors import StreamkitError

    patience = value_of("--connect-timeout", duration, session.connect_timeout)
    try:
        async with asyncio.timeout(2 * patience), session.client() as client:
            asked = time.time()
            status = await client.status()
            answered = time.time()
    except (StreamkitError, TimeoutError) as error:
        text = f"{session.server}: {error if str(error) else 'it does not answer'}"
        advice = getattr(error, "hint", "") or "start it, or name another one by -s"
        return [checks.Finding("server", "fail", text, advice)]
    found = list(checks.of_status(status, asked, answered, _remembered(session, status.epoch)))
    tls = session.tls_context()
    if tls is not None:
        until = await _not_after(session.server.split(",")[0], tls)
        if until is not None:
            found.append(checks.of_certificate(until, time.time()))
    return found


async def _not_after(server: str, tls: ssl.SSLContext) -> float | None:
    """When the server's certificate ends."""
    host, _, port = server.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=tls)
    except (OSError, ValueError):
        return None  # the call before has told what is wrong
    try:
        certificate = writer.get_extra_info("peercert") or {}
    finally:
        writer.close()
    until = certificate.get("notAfter")
    return None if until is None else float(ssl.cert_time_to_seconds(until))


def _remembered(session: Session, epoch: str) -> str:
    """The epoch that a server had when it was asked before; the present one is kept instead."""
    import platformdirs

    path = platformdirs.user_state_path("streamkit", appauthor=False) / "epochs.json"
    try:
        known: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    before = known.get(session.server)
    known[session.server] = epoch
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(json.dumps(known))
    except OSError:
        pass  # it is only not known the next time
    return before if isinstance(before, str) else ""


def _of_machine(session: Session, serve: typer.Context) -> list[Finding]:
    import resource

    from streamkit.cli import checks
    from streamkit.cli.input.stores import default_store
    from streamkit.config import Retention

    found, now = [], time.time()
    if session.token_file:
        found.append(checks.of_token(session.token_file))
    asked = serve.params
    if asked["access"]:
        found += checks.of_access(asked["access"], now)
    store = asked["store"] or str(default_store())
    if store != ":memory:" and "://" not in store:
        path = str(Path(store).expanduser())
        folder = os.path.dirname(os.path.abspath(path))
        retention = Retention(
            max_age=value_of("--retain", duration, asked["retain"]),
            max_bytes=value_of("--max-bytes", size, asked["max_bytes"]),
        )
        found += [checks.of_store(path), checks.of_wal(path, retention)]
        if os.path.isdir(folder):
            found += [checks.of_disk(folder, path, retention.max_bytes), checks.of_fsync(folder)]
    found.append(checks.of_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
    found.append(checks.of_loop(importlib.util.find_spec("uvloop") is not None))
    return found
