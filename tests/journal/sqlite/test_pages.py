"""Pages read as joined columns are the rows that are stored."""

from __future__ import annotations

import sqlite3
from contextlib import aclosing
from pathlib import Path

import pytest

from streamkit.config import JournalOptions
from streamkit.generated.streamservice import LogEntry, Update
from streamkit.journal import Journal, Selector, Start, StoredItems, Stream, open_journal
from streamkit.journal.sqlite import pages
from streamkit.testing.journal.support import logs, messages, stored, texts, topics, updates

ON_DISK = JournalOptions(ring_records=1)
HARD = ["", "a", "\x1e", "\x00", "\x1e\x1e", "é\U0001f600", "x" * 300, '"\\n', "\x1f,", "\x1ea\x1e"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


async def read(journal: Journal, selector: Selector) -> list[tuple[int, str, str, dict[str, str]]]:
    return [
        (update.sequence, update.topic, update.message, update.metadata)
        for update in messages(Update, await stored(journal, selector))
    ]


async def test_any_text_comes_back(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    published = [
        Update(topic=topic or "t", message=message, metadata={message: topic} if message else {})
        for topic in HARD
        for message in HARD
    ]
    wanted = [(n, u.topic, u.message, u.metadata) for n, u in enumerate(published, 1)]
    # Small pages, so that some have the divider in them and others do not.
    monkeypatch.setattr(pages, "BATCH_RECORDS", 3)
    async with await open_journal(path, ON_DISK) as journal:
        await journal.append_updates(published)
        await journal.append_updates(updates("kept in memory"))
        assert (await read(journal, topics()))[:-1] == wanted
        assert (await read(journal, topics(">")))[:-1] == wanted
        for topic in {update.topic for update in published}:
            own = [row for row in wanted if row[1] == topic]
            found = await read(journal, topics(topic))
            assert found[: len(own)] == own


async def test_log_lines_by_level(path: str) -> None:
    levels = ("debug", "info", "warn", "error")
    lines = [
        LogEntry(service=f"s{n % 50}", level=levels[n % 4], message=HARD[n % 10], fields={"n": "1"})
        for n in range(2000)
    ]
    async with await open_journal(path, ON_DISK) as journal:
        await journal.append_logs(lines)
        await journal.append_logs([LogEntry(service="last", level="error")])
        for services, rank in (((), 0), ((), 2), (("s*",), 1), (("s1*", "s3"), 3), (("s7",), 0)):
            selector = logs(*services, level=rank)
            found = await stored(journal, selector)
            assert [
                (e.sequence, e.rank, text) for e, text in zip(found, texts(found), strict=True)
            ] == [
                (n, rank_of, line.message)
                for n, (line, rank_of) in enumerate(
                    [*((line, levels.index(line.level)) for line in lines), (LogEntry(), 3)], 1
                )
                if selector.matches(line.service or "last", rank_of)
            ]


async def test_a_topic_that_is_most_of_what_there_is_and_then_is_not(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages go along the sequences, and by the index again; the records are the same."""
    monkeypatch.setattr(pages, "BATCH_RECORDS", 10)
    many = [Update("a", str(n)) for n in range(100)]
    few = [Update("b" if n % 9 else "a", str(n)) for n in range(100)]
    published = [*many, *few, *many, *few[1:], Update("a", "at the end")]
    async with await open_journal(path, ON_DISK) as journal:
        await journal.append_updates(published)
        await journal.append_updates(updates("kept in memory"))
        for topic in ("a", "b"):
            assert [row[:3] for row in await read(journal, topics(topic))] == [
                (n, update.topic, update.message)
                for n, update in enumerate(published, 1)
                if update.topic == topic
            ]


async def test_rows_that_somebody_removed_are_passed_over(path: str) -> None:
    async with await open_journal(path, ON_DISK) as journal:
        await journal.append_updates(updates(*"abcdef"))
        with sqlite3.connect(path) as tool:
            tool.execute("delete from updates where sequence in (2, 5)")
        tool.close()
        found = await stored(journal, topics())
        assert [entry.sequence for entry in found] == [1, 3, 4, 6]
        assert texts(found) == ["a", "c", "d", "f"]


async def test_a_page_is_bounded_in_bytes_and_records(path: str) -> None:
    sizes = [0, 10, 70_000, 300_000, 10, 10] + [1000] * 600 + [1] * 3000 + [500_000]
    async with await open_journal(path, ON_DISK) as journal:
        await journal.append_updates([Update(topic="t", message="x" * size) for size in sizes])
        await journal.append_updates(updates("kept in memory"))
        for patterns in ((), ("t",), ("t*",), ("*",), (">",)):
            found: list[int] = []
            selector = topics(*patterns)
            async with aclosing(
                journal.read(selector, Start(all=True), follow=False)
            ) as deliveries:
                async for delivery in deliveries:
                    lengths = [*map(len, texts(delivery.items))]
                    assert len(lengths) <= 1024
                    assert len(lengths) <= 1 or sum(lengths) < 256 * 1024
                    found += lengths
            assert found[:-1] == (sizes if selector.matches("t") else []), patterns


async def test_a_page_that_is_sent_on_makes_no_items(path: str) -> None:
    async with await open_journal(path, ON_DISK) as journal:
        await journal.append_updates(updates(*"abc"))
        async with aclosing(journal.read(topics(), Start(all=True), follow=False)) as deliveries:
            pages_read = [d.items async for d in deliveries if isinstance(d.items, StoredItems)]
        assert [list(page.sequences) for page in pages_read] == [[1, 2, 3]]
        assert pages_read[0].stream is Stream.UPDATES
        assert pages_read[0].columns[2] == [b"a", b"b", b"c"]
        assert [entry.key for entry in pages_read[0][-1:]] == ["t"]


async def test_what_is_far_apart_is_found_from_one_to_the_next(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More keys than are merged in one statement, each of them seldom."""
    monkeypatch.setattr(pages, "_SPAN", 16)
    async with await open_journal(path, ON_DISK) as journal:
        await journal.append_updates([Update(topic="t") for _ in range(1500)])
        for number in range(40):
            await journal.append_updates([Update(topic="t") for _ in range(40)])
            await journal.append_updates([Update(topic=f"rare.{number}")])
        await journal.append_updates([Update(topic="t") for _ in range(40)])
        found = await read(journal, topics("rare.*"))
        assert [topic for _, topic, *_ in found] == [f"rare.{number}" for number in range(40)]
