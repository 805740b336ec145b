"""Small requests stored in one go are what they are one by one."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from streamkit.errors import InvalidArgumentError, PreconditionError
from streamkit.generated.streamservice import Update
from streamkit.journal import Journal, ProducerId, Start, open_journal
from streamkit.journal.sqlite.journal import SqliteJournal
from streamkit.testing.journal.support import stored, texts, topics, updates

Batch = tuple[list[Update], ProducerId | None]
Answer = tuple[int, int] | type[Exception]


async def together(journal: Journal, batches: list[Batch]) -> list[Answer]:
    assert isinstance(journal, SqliteJournal)
    begun = journal.append_runs_soon(batches)
    assert begun is not None
    return [type(one) if isinstance(one, Exception) else one for one in await begun]


async def one_by_one(journal: Journal, batches: list[Batch]) -> list[Answer]:
    found: list[Answer] = []
    for messages, producer in batches:
        try:
            done = await journal.append_updates(messages, producer)
            found.append((done.first, done.count))
        except Exception as error:
            found.append(type(error))
    return found


def some(rng: random.Random, newest: dict[str, int]) -> list[Batch]:
    """A run of requests: mostly the next ones of one producer, among them all that is not."""
    batches: list[Batch] = []
    for _ in range(rng.randrange(1, 9)):
        name = rng.choice("ppppq")
        number = newest.get(name, 0) + 1
        kind = rng.random()
        if kind < 0.1:
            number = rng.randrange(1, number + 1)
        elif kind < 0.2:
            number += rng.randrange(3)
        newest[name] = max(newest.get(name, 0), number)
        text = "\ud800" if rng.random() < 0.03 else str(rng.random())
        count = rng.choice((0, 1, 1, 1, 1, 3))
        odd = rng.random()
        producer = None if odd < 0.05 else ProducerId("" if odd < 0.07 else name, number)
        batches.append((updates(text) * count, producer))
    return batches


@pytest.mark.parametrize("seed", range(12))
async def test_a_run_is_stored_as_its_requests_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr("streamkit.journal.rules.dedupe.REQUESTS", 20)
    monkeypatch.setattr("streamkit.journal.rules.dedupe._FORGET_AT_ONCE", 5)
    rng = random.Random(seed)
    newest: dict[str, int] = {}
    asked: list[Batch] = []
    path = str(tmp_path / "store.db")
    async with await open_journal(":memory:") as model:
        for _ in range(4):
            async with await open_journal(path) as journal:  # what is remembered is in the file
                for _ in range(8):
                    batches = some(rng, newest)
                    asked += batches
                    assert await together(journal, batches) == await one_by_one(model, batches)
                everything = [
                    await stored(one, topics(">"), Start(all=True)) for one in (journal, model)
                ]
                assert texts(everything[0]) == texts(everything[1])
        async with await open_journal(path) as journal:
            assert await one_by_one(journal, asked) == await one_by_one(model, asked)


async def test_what_cannot_be_stored_takes_nothing_else_with_it(tmp_path: Path) -> None:
    batches: list[Batch] = [(updates("a"), ProducerId("p", number)) for number in range(1, 6)]
    batches[2] = (updates("\ud800"), ProducerId("p", 3))
    async with await open_journal(str(tmp_path / "store.db")) as journal:
        assert await together(journal, batches) == [
            (1, 1),
            (2, 1),
            InvalidArgumentError,
            (3, 1),
            (4, 1),
        ]


async def test_a_run_is_one_row_and_forgotten_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamkit.journal.rules.dedupe.REQUESTS", 8)
    monkeypatch.setattr("streamkit.journal.rules.dedupe._FORGET_AT_ONCE", 2)
    path = str(tmp_path / "store.db")

    def rows() -> list[tuple[int, int | None, str]]:
        tool = sqlite3.connect(path)
        found = tool.execute("select request, last, answer from dedupe order by request").fetchall()
        tool.close()
        return found

    def run(first: int, last: int) -> list[Batch]:
        return [(updates("a", "b"), ProducerId("p", number)) for number in range(first, last + 1)]

    async with await open_journal(path) as journal:
        await together(journal, run(1, 6))
        assert rows() == [(1, 6, "[1,2]")]
        await together(journal, run(7, 10))  # 1 and 2 are forgotten, the rest of the row is not
        assert rows() == [(0, None, "[2]"), (1, 6, "[1,2]"), (7, 10, "[13,2]")]
        await together(journal, run(11, 14))
        assert rows() == [(0, None, "[6]"), (7, 10, "[13,2]"), (11, 14, "[21,2]")]
    async with await open_journal(path) as journal:
        refused: list[Answer] = [PreconditionError] * 6
        again = [(2 * number - 1, 2) for number in range(7, 15)]
        assert await together(journal, run(1, 14)) == refused + again
