"""What docs/stability.md promises: what was written down at the last release is still there.

What goes, or gets another name or number, needs the time of warning that the page promises; then
UPDATE_STABLE=1 pytest tests/stable. What comes needs nothing, and is written down by the release.
Commands and flags are in tests/cli/help.txt.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from betterproto.lib.google.protobuf import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

import streamkit
from streamkit import config, dbapi, errors, pytest_plugin, testing
from streamkit.access.rules import parse_rules
from streamkit.cli import exits
from streamkit.cli.output.records import job_object, log_object, update_object
from streamkit.client import AsyncClient
from streamkit.errors import Status
from streamkit.generated.streamservice import JobProgress, LogEntry, Update
from streamkit.rights import Action
from streamkit.scaffold.described import files_in
from streamkit.server import Server

HERE = Path(__file__).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def names() -> Iterator[str]:
    """Every public name, with the members of classes."""
    for module in (streamkit, errors, config, testing, dbapi, pytest_plugin):
        for name in sorted(module.__all__):
            thing = getattr(module, name)
            if module is not streamkit and name in streamkit.__all__:
                continue
            where = f"{module.__name__}.{name}"
            yield where
            if not inspect.isclass(thing) or thing.__module__.startswith("streamkit.generated"):
                continue
            members = {member for member in dir(thing) if not member.startswith("_")}
            if is_dataclass(thing):
                members |= {field.name for field in fields(thing) if field.name[0] != "_"}
            if issubclass(thing, BaseException):
                members -= set(dir(Exception))
            yield from (f"{where}.{member}" for member in sorted(members))


def numbers() -> Iterator[str]:
    """Every method, field, number and type of the schema."""
    described = Path(streamkit.__file__).parent / "generated" / "descriptors.binpb"
    for raw in files_in(described.read_bytes()):
        file = FileDescriptorProto().parse(raw)
        if file.package != "streamservice":
            continue
        for service in file.service:
            for method in service.method:
                asked = "stream " * method.client_streaming + method.input_type
                given = "stream " * method.server_streaming + method.output_type
                yield f"{service.name}.{method.name}: {asked} -> {given}"
        for enum in file.enum_type:
            yield from (f"{enum.name}.{value.name} = {value.number}" for value in enum.value)
        for message in file.message_type:
            yield from _fields(message, message.name)


def _fields(message: DescriptorProto, name: str) -> Iterator[str]:
    for field in message.field:
        yield f"{name}.{field.name} = {field.number}: {_kind(field)}"
    for enum in message.enum_type:
        yield from (f"{name}.{enum.name}.{value.name} = {value.number}" for value in enum.value)
    for inner in message.nested_type:
        yield from _fields(inner, f"{name}.{inner.name}")


def _kind(field: FieldDescriptorProto) -> str:
    kind = field.type_name or str(field.type.name).removeprefix("TYPE_").lower()
    return f"{str(field.label.name).removeprefix('LABEL_').lower()} {kind}"


def codes() -> Iterator[str]:
    """Exit codes, and the status behind each error."""
    for name in sorted(name for name in exits.__all__ if name.isupper()):
        yield f"exit {name} = {getattr(exits, name)}"
    for status in Status:
        error = errors.error_from_status(status, "x") if status is not Status.OK else None
        ended = f" {type(error).__name__} exit {exits.exit_code(error)}" if error else ""
        yield f"{status.value} {status.name}{ended}"


def rules() -> Iterator[str]:
    """What an access file may say."""
    assert parse_rules("")
    yield from (f"role.{action.value}" for action in Action)
    yield from (f"role {name}" for name in sorted(parse_rules("").roles))


def keys() -> Iterator[str]:
    """The keys of JSON: of records on the command line."""
    update = Update(topic="a", sequence=1, timestamp=NOW, message="m", skipped=1)
    entry = LogEntry(timestamp=NOW, service="s", level="info", sequence=1, skipped=1)
    job = JobProgress(
        job_id="j", status="failed", percentage=1, current_step="s", updated_at=NOW, sequence=1,
        created_at=NOW, completed=1, total=2, service="s", error="e", exit_code=1, stalled=True,
        cancel_requested=True,
    )  # fmt: skip
    for kind, shown in (
        ("update", update_object(update)),
        ("log", log_object(entry)),
        ("job", job_object(job)),
    ):
        yield from (f"{kind}.{key}: {type(value).__name__}" for key, value in shown.items())


def compare(name: str, found: list[str]) -> None:
    path = HERE / f"{name}.txt"
    text = "\n".join(found) + "\n"
    if os.environ.get("UPDATE_STABLE"):
        path.write_text(text)
    gone = set(path.read_text().splitlines()) - set(found)
    assert gone == set(), "promised, and not there any more"


@pytest.mark.parametrize(
    ("name", "make"),
    [("names", names), ("numbers", numbers), ("codes", codes), ("rules", rules), ("keys", keys)],
)
def test_what_is_promised_is_what_is_there(name: str, make: Callable[[], Iterator[str]]) -> None:
    compare(name, list(make()))


async def test_metrics_and_the_access_log_keep_their_names(tmp_path: Path) -> None:
    import asyncio
    import urllib.request

    from prometheus_client.parser import text_string_to_metric_families

    log = tmp_path / "access.log"
    async with (
        Server(journal=":memory:", port=0, metrics="127.0.0.1:0", access_log=log) as server,
        AsyncClient(server.address) as client,
    ):
        await client.publish("a", "1")
        async with client.subscribe("a", start="all") as updates:
            await testing.expect(updates, 1)
        url = f"http://127.0.0.1:{server.metrics_port}/metrics"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    found = set()
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(("process_", "python_")):
            labels = {label for sample in family.samples for label in sample.labels}
            found.add(f"{family.name} {family.type} {' '.join(sorted(labels - {'le'}))}".rstrip())
    compare("metrics", sorted(found))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    streams = [line for line in lines if line["method"].endswith("SubscribeToUpdates")]
    compare("access_log", sorted({key for line in streams for key in line}))


def test_the_page_names_these_files() -> None:
    page = (HERE.parents[1] / "docs" / "stability.md").read_text()
    assert "tests/stable/" in page
