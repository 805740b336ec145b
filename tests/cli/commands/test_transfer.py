"""prune, export, import: less of a store, and a store as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamkit.client import AsyncClient
from streamkit.config import JournalOptions, Retention, RetentionRule
from streamkit.generated.streamservice import Update
from streamkit.server import Server
from streamkit.testing import serve
from tests.cli.tools import invoke


async def run(*arguments: str, server: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """As `invoke`, in a thread: the server of the test has the loop."""
    import asyncio

    done = await asyncio.to_thread(invoke, *arguments, server=server, stdin=stdin)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[str]:
    """A server with records of all kinds."""
    async with serve(journal=tmp_path / "from.db") as address, AsyncClient(address) as client:
        await client.publish_many(
            [Update(f"t.{n % 3}", f"message {n}", metadata={"n": str(n)}) for n in range(500)]
        )
        async with client.log_writer("api") as log:
            for n in range(50):
                log.write(f"line {n}", level="warn", fields={"n": n})
        async with client.job("build", total=2) as job:
            await job.update(completed=1, step="half")
        yield address


async def test_what_is_exported_is_stored_once_however_often_it_is_read(
    filled: str, tmp_path: Path
) -> None:
    code, lines, said = await run("export", server=filled)
    assert code == 0 and "exported 551 records" in said
    first = json.loads(lines.splitlines()[0])
    assert (first["stream"], first["message"], first["request"]) == ("updates", "message 0", 2)
    file = tmp_path / "export.jsonl"
    file.write_text(lines)
    async with serve(journal=tmp_path / "to.db") as address:
        code, _, said = await run("import", str(file), server=address)
        assert (code, said) == (0, "streamkit: stored 551 records; 0 were there already\n")
        code, _, said = await run("import", "-", server=address, stdin=lines.encode())
        assert (code, said) == (0, "streamkit: stored 0 records; 551 were there already\n")
        _, again, _ = await run("export", server=address)
    kept = [
        [
            {key: line[key] for key in line if key not in ("producer", "updated_at", "created_at")}
            for line in map(json.loads, text.splitlines())
            if line["stream"] != "jobs"
        ]
        for text in (lines, again)
    ]
    assert kept[0] == kept[1]
    [job] = [line for line in map(json.loads, again.splitlines()) if line["stream"] == "jobs"]
    assert (job["job_id"], job["status"], job["total"]) == ("build", "completed", 2)


async def test_a_larger_export_adds_what_is_new(filled: str, tmp_path: Path) -> None:
    _, lines, _ = await run("export", "--only", "updates", server=filled)
    async with serve(journal=tmp_path / "to.db") as address, AsyncClient(filled) as client:
        await run("import", "-", server=address, stdin=lines.encode())
        await client.publish("t.9", "new")
        _, more, _ = await run("export", "--only", "updates", server=filled)
        code, _, said = await run("import", "-", server=address, stdin=more.encode())
        assert (code, said) == (0, "streamkit: stored 1 records; 500 were there already\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"producer": "p", "request": 1}', '"stream" is not'),
        ('{"stream": "updates", "request": 1}', "'producer' is no text"),
        ('{"stream": "updates", "producer": "p", "request": true}', "'request' is no whole"),
        (
            '{"stream": "logs", "producer": "p", "request": 1, "service": "a", "level": "info",'
            ' "message": "m", "timestamp": "soon"}',
            "no time",
        ),
    ],
)
async def test_a_line_that_is_wrong_is_named(filled: str, line: str, said: str) -> None:
    good = '{"stream": "updates", "producer": "p", "request": 1, "topic": "a", "message": "b"}\n'
    code, _, told = await run("import", "-", server=filled, stdin=(good + line).encode())
    assert code == 2 and "line 2: it" in told and said in told and "stored 1 records" in told


async def test_prune_tells_first_and_then_removes(tmp_path: Path) -> None:
    rules = (RetentionRule(pattern="metrics.>", keep_last=2),)
    options = JournalOptions(retention=Retention(rules=rules))
    async with (
        Server(journal=tmp_path / "x.db", journal_options=options, port=0) as server,
        AsyncClient(server.address) as client,
    ):
        await client.publish_many([Update("metrics.cpu", str(n)) for n in range(10)])
        await client.publish("orders", "kept")
        for dry in (["--dry-run"], []):
            code, text, _ = await run("prune", *dry, "-o", "json", server=server.address)
            told = {row["pattern"]: row["records"] for row in json.loads(text)}
            assert code == 0 and told["metrics.>"] == "8"
        _, text, _ = await run("prune", "--dry-run", "-o", "json", server=server.address)
        assert all(row["records"] == "0" for row in json.loads(text))
        rows = [row async for row in client.query("select message from updates")]
        assert [row["message"] for row in rows] == ["8", "9", "kept"]


def test_rules_of_a_file_reach_the_server(tmp_path: Path) -> None:
    from typing import Any, cast

    from streamkit.cli.commands.serve import settings_of
    from tests.cli.commands.test_config import parsed

    file = tmp_path / "streamkit.toml"
    file.write_text(
        '[[serve.retention]]\ntopics = "metrics.>"\nage = "1d"\nkeep-last = 1\n'
        '[[serve.retention]]\nservices = "api *"\nbytes = "5MB"\n'
    )
    context = parsed("--config", str(file))
    given = settings_of(cast(Any, None), context)
    assert given["journal_options"].retention.rules == (
        RetentionRule(pattern="metrics.>", max_age=86400.0, keep_last=1),
        RetentionRule(stream="logs", pattern="api *", max_bytes=5 * 1024 * 1024),
    )
