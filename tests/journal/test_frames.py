"""Frames made of columns are the codec's frames of the messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit.codec import frame
from streamkit.generated.streamservice import LogEntry, Update
from streamkit.journal import Journal, Selector, Start, StoredItems, Stream, open_journal
from streamkit.journal.records.frames import framed, frames_of
from streamkit.journal.records.items import log_rows, update_rows

NOW = datetime(2026, 3, 1, tzinfo=UTC)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
texts = st.one_of(text, st.integers(0, 40_000).map(lambda size: "é" * (size % 300) + "x" * size))
times = st.one_of(
    st.sampled_from([NOW, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)]),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
)
maps: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}), st.dictionaries(text, text, max_size=3)
)
# Such as break a JSON text that is only cut at its quotes.
tricky = st.one_of(st.text('":,{}\n\\é', max_size=5), st.sampled_from(["", "x" * 200]))
sequences = st.one_of(st.integers(1, 300), st.integers(1, 2**40), st.sampled_from([127, 2**14 - 1]))


def made(stream: Stream, rows: Sequence[Sequence[Any]]) -> tuple[list[bytes], list[bytes]]:
    """The frames of rows, and what the codec makes of the messages that they are."""
    stored = StoredItems.of_rows(stream, rows)
    messages = [frame(item.message) for item in stored]
    return frames_of(stream, stored.sequences, stored.columns), messages


@settings(deadline=None)
@given(
    st.lists(st.builds(Update, topic=text, message=texts, timestamp=times, metadata=maps)),
    sequences,
)
def test_updates(updates: list[Update], first: int) -> None:
    frames, messages = made(Stream.UPDATES, update_rows(updates, first, NOW))
    assert frames == messages


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            LogEntry,
            timestamp=times,
            level=st.sampled_from(["debug", "info", "warn", "error"]),
            message=texts,
            service=text,
            fields=maps,
        )
    ),
    sequences,
)
def test_log_lines(lines: list[LogEntry], first: int) -> None:
    frames, messages = made(Stream.LOGS, log_rows(lines, first, NOW))
    assert frames == messages


@settings(deadline=None)
@given(st.data(), st.integers(1, 3), st.booleans())
def test_maps_with_the_same_names(data: st.DataObject, names: int, plain: bool) -> None:
    """A column of them is encoded at once; one that only looks so is not."""
    values = st.text("abc:,{}", max_size=200) if plain else tricky
    alike = st.lists(st.fixed_dictionaries({f"{n}é": values for n in range(names)}), min_size=1)
    some = data.draw(alike if plain else st.one_of(alike, st.lists(maps)))
    updates = [Update(topic="t", message="m", metadata=pairs) for pairs in some]
    frames, messages = made(Stream.UPDATES, update_rows(updates, 1, NOW))
    assert frames == messages


def test_maps_with_as_many_names_in_all_but_not_in_each() -> None:
    some = [{"a": "1"}, {"b": "2", "c": "3", "d": "4"}, {"e": "5"}, {}, {"f": "6"}, {"g": "7"}]
    for pairs in (some[:2], some[1:3], some[2:], some):
        updates = [Update(topic="t", message="m", metadata=one) for one in pairs]
        frames, messages = made(Stream.UPDATES, update_rows(updates, 1, NOW))
        assert frames == messages


def test_sequences_with_holes() -> None:
    updates = [Update(topic="t", message=str(n)) for n in range(300)]
    rows = [(n * n * 7 + 1, *row[1:]) for n, row in enumerate(update_rows(updates, 1, NOW))]
    frames, messages = made(Stream.UPDATES, rows)
    assert frames == messages


def test_what_is_kept_is_bounded() -> None:
    updates = [Update(topic=f"t{n}" * 50, message="m" * n) for n in range(9000)]
    frames, messages = made(Stream.UPDATES, update_rows(updates, 1, NOW))
    assert frames == messages


@pytest.fixture
async def journal() -> AsyncIterator[Journal]:
    async with await open_journal() as journal:
        yield journal


async def test_live_records_are_framed_as_their_messages(journal: Journal) -> None:
    fields = {"n": "é", "": "\x00"}
    lines = [
        LogEntry(service=f"s{n}", level="warn", message="é" * n, fields=fields if n % 2 else {})
        for n in range(5)
    ]
    updates = [
        Update(topic=f"t{n}", message="é" * n, metadata=fields if n % 2 else {}) for n in range(5)
    ]
    for stream in (Stream.UPDATES, Stream.LOGS):
        for count in (1, 2, 5):
            batches = journal.read(Selector(stream), Start(), follow=True)
            async with aclosing(batches):
                await anext(batches)
                if stream is Stream.UPDATES:
                    await journal.append_updates(updates[:count])
                else:
                    await journal.append_logs(lines[:count])
                batch = await anext(batches)
            assert len(batch.items) == count
            data = framed(batch, stream)
            assert data.data == b"".join(frame(entry.message) for entry in batch.items)
            assert framed(batch, stream).data is data.data  # shared by all readers
