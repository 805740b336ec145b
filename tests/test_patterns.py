"""Patterns: the same as plain rules say, in linear time, and beside any number of others'."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamkit.config import JournalOptions
from streamkit.errors import LimitError
from streamkit.journal import Hub, Selector, Start, Stream, open_journal
from streamkit.patterns import (
    Globs,
    Patterns,
    Topics,
    glob_matches,
    literal_prefix,
    topic_matches,
)
from streamkit.testing.journal.support import following, log, logs, texts, topics, updates

tokens = st.sampled_from(["a", "b", "ab", ""])
topic_names = st.lists(tokens, min_size=1, max_size=4).map(".".join)
topic_patterns = st.builds(
    lambda tokens, rest: ".".join([*tokens, *rest]),
    st.lists(st.sampled_from(["a", "b", "*", "ab"]), min_size=1, max_size=4),
    st.sampled_from([[], [">"]]),
)
names = st.text("ab-", max_size=8)
globs = st.text("ab-*", max_size=8)


def topic_means(pattern: list[str], topic: list[str]) -> bool:
    """The rule, word by word."""
    if pattern == [">"]:
        return topic not in ([], [""])
    if not pattern or not topic:
        return not pattern and not topic
    one = bool(topic[0]) if pattern[0] == "*" else pattern[0] == topic[0]
    return one and topic_means(pattern[1:], topic[1:])


def glob_means(pattern: str, name: str) -> bool:
    """The rule, by trying everything."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(glob_means(pattern[1:], name[n:]) for n in range(len(name) + 1))
    return bool(name) and pattern[0] == name[0] and glob_means(pattern[1:], name[1:])


@given(topic_patterns, topic_names)
def test_topics(pattern: str, topic: str) -> None:
    wanted = topic_means(pattern.split("."), topic.split("."))
    assert topic_matches(pattern, topic) == wanted
    assert not wanted or topic.startswith(literal_prefix(pattern))


@given(globs, names)
def test_globs(pattern: str, name: str) -> None:
    assert glob_matches(pattern, name) == glob_means(pattern, name)
    assert not glob_means(pattern, name) or name.startswith(literal_prefix(pattern))


@pytest.mark.parametrize(
    ("kind", "one", "patterns", "keys"),
    [(Topics, topic_matches, topic_patterns, topic_names), (Globs, glob_matches, globs, names)],
)
def test_many_patterns_find_what_each_means(
    kind: type[Patterns[int]],
    one: Callable[[str, str], bool],
    patterns: st.SearchStrategy[str],
    keys: st.SearchStrategy[str],
) -> None:
    @given(st.lists(patterns, max_size=8), st.lists(keys, max_size=6), st.data())
    def check(wanted: list[str], keys: list[str], data: st.DataObject) -> None:
        index = kind()
        left = dict(enumerate(wanted))
        for value, pattern in left.items():
            index.add(pattern, value)
        while True:
            for key in keys:
                found = {value for value, pattern in left.items() if one(pattern, key)}
                assert set(index.find(key)) == found
                assert index.matches(key) == bool(found)
            if not left:
                break
            gone = data.draw(st.sampled_from(sorted(left)))
            index.remove(left.pop(gone), gone)
        assert vars(index) == vars(kind()) or repr(vars(index)).count("_Node") == 1

    check()


def test_no_pattern_is_slow() -> None:
    began = time.process_time()
    assert not glob_matches("*a" * 120 + "*b", "a" * 255)
    assert not glob_matches("*-*-*-*-*-*-prod", "-" * 255)
    assert glob_matches("*a" * 120, "a" * 255)
    assert not topic_matches(".".join("*" * 120) + ".b", ".".join("a" * 121))
    assert time.process_time() - began < 2  # the regular expression of before took years


def per_new_topic(hub: Hub[str], count: int) -> float:
    times = []
    for n in range(count):
        began = time.perf_counter()
        hub.publish(f"new{n}.x.y", "")
        times.append(time.perf_counter() - began)
    return sorted(times)[count // 2]


async def test_a_new_topic_costs_the_same_beside_the_patterns_of_others() -> None:
    alone = Hub[str]()
    own = alone.subscribe("*.own.>")
    await anext(own)
    crowded = Hub[str]()
    readers = [own, crowded.subscribe("*.own.>")]
    for other in range(40):
        patterns = [f"*.{other}q{n}.*.>" for n in range(1000)]
        readers.append(crowded.subscribe(*patterns))
    for reader in readers[1:]:
        await anext(reader)
    best = min(per_new_topic(crowded, 50) / per_new_topic(alone, 50) for _ in range(5))
    for reader in readers:
        await reader.aclose()
    assert best < 5  # 40,000 of the regular expressions of before took 0.5 s


async def test_readers_follow_a_bounded_number_of_patterns() -> None:
    options = JournalOptions(pattern_tokens=10, followed_keys=3)
    async with await open_journal(":memory:", options) as journal:
        async with following(journal, topics("a.*", "b.*"), Start()) as reader:
            with pytest.raises(LimitError, match="too many patterns"):
                await anext(journal.read(topics("c.*", "d.*"), Start(), follow=True))
            with pytest.raises(LimitError, match="too many patterns"):
                await anext(journal.read(topics("a", "b", "c", "d"), Start(), follow=True))
            async with following(journal, topics(">")), following(journal, topics("a", "b", "c")):
                await journal.append_updates(updates("1", topic="a.x"))
            assert texts(await reader.until(1)) == ["1"]
        async with following(journal, topics("c.*", "d.*")), following(journal, logs("*-*")) as all:
            await journal.append_logs([log("m", service="a-b"), log("n", service="ab")])
            assert texts(await all.until(1)) == ["m"]


def test_a_selector_knows_its_patterns() -> None:
    every = [Selector(Stream.UPDATES, (">",)), Selector(Stream.LOGS, ("a", "*"))]
    assert all(selector.every_key() for selector in every)
    selector = Selector(Stream.LOGS, ("a*b", "c"), 2)
    assert [selector.matches(key, 2) for key in ("ab", "axb", "c", "ax", "")] == [
        *[True] * 3,
        *[False] * 2,
    ]
    assert not selector.matches("c", 1)
    assert selector == Selector(Stream.LOGS, ("a*b", "c"), 2)
