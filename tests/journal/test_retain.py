"""What is kept changes while a journal is open."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamkit.config import JournalOptions, Retention, RetentionRule
from streamkit.generated.streamservice import Update
from streamkit.journal import open_journal
from streamkit.journal.base import Stream


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_new_rules_hold_from_the_next_sweep_on(kind: str, tmp_path: Path) -> None:
    url = ":memory:" if kind == "memory" else str(tmp_path / "x.db")
    async with await open_journal(url, JournalOptions()) as journal:
        await journal.append_updates([Update("a", str(n)) for n in range(10)])
        await journal.prune()
        assert journal.bounds(Stream.UPDATES) == (1, 10)
        journal.retain(Retention(rules=(RetentionRule(pattern="a", keep_last=3),)))
        [told] = [each for each in await journal.prune(dry_run=True) if each.pattern]
        assert told.records == 7
        await journal.prune()
        assert journal.bounds(Stream.UPDATES) == (8, 10)
