"""A pattern within a pattern, against brute force: every pair over a small alphabet."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from itertools import product

import pytest

from streamkit.access.containment import (
    NameGrants,
    TopicGrants,
    glob_within,
    is_topic_pattern,
    topic_within,
)

Matcher = Callable[[str, str], bool]


def topic_is_meant(pattern: str, topic: str) -> bool:
    """By definition: token by token."""
    tokens, names = pattern.split("."), topic.split(".")
    if tokens[-1] == ">":
        head = tokens[:-1]
        return len(names) > len(head) and all(
            a in ("*", b) for a, b in zip(head, names, strict=False)
        )
    return len(tokens) == len(names) and all(
        a in ("*", b) for a, b in zip(tokens, names, strict=True)
    )


def name_is_meant(pattern: str, name: str) -> bool:
    """By definition: a star is some beginning of what is left."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(name_is_meant(pattern[1:], name[cut:]) for cut in range(len(name) + 1))
    return name[:1] == pattern[0] and name_is_meant(pattern[1:], name[1:])


def sets_of(patterns: Iterable[str], names: list[str], meant: Matcher) -> dict[str, int]:
    """Pattern -> the set of names that it matches, as bits."""
    return {
        pattern: sum(1 << place for place, name in enumerate(names) if meant(pattern, name))
        for pattern in patterns
    }


def wrong_pairs(sets: dict[str, int], within: Matcher) -> list[tuple[str, str]]:
    return [
        (asked, granted)
        for asked, asked_set in sets.items()
        for granted, granted_set in sets.items()
        if within(asked, granted) != (not asked_set & ~granted_set)
    ]


def globs(longest: int) -> list[str]:
    return ["".join(p) for n in range(longest + 1) for p in product("ab*", repeat=n)]


def topics(longest: int) -> list[str]:
    plain = [".".join(p) for n in range(1, longest + 1) for p in product("ab*", repeat=n)]
    heads = [list(p) for n in range(longest) for p in product("ab*", repeat=n)]
    return plain + [".".join([*head, ">"]) for head in heads]


def glob_sets(longest: int) -> dict[str, int]:
    # "c" is in no pattern: the letter that shows a star to be one.
    names = ["".join(p) for n in range(longest + 1) for p in product("abc", repeat=n)]
    return sets_of(globs(longest), names, name_is_meant)


def topic_sets(longest: int) -> dict[str, int]:
    names = [".".join(p) for n in range(1, longest + 2) for p in product("abc", repeat=n)]
    return sets_of(topics(longest), names, topic_is_meant)


def test_globs_against_brute_force() -> None:
    assert wrong_pairs(glob_sets(4), glob_within) == []


def test_topics_against_brute_force() -> None:
    assert wrong_pairs(topic_sets(4), topic_within) == []


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("sets", "within"), [(lambda: glob_sets(6), glob_within), (lambda: topic_sets(6), topic_within)]
)
def test_a_million_pairs_against_brute_force(
    sets: Callable[[], dict[str, int]], within: Matcher
) -> None:
    found = sets()
    assert len(found) ** 2 >= 1_000_000
    assert wrong_pairs(found, within) == []
    print(f"{within.__name__}: {len(found) ** 2} pairs, none wrong")


def test_read_on_one_key_does_not_open_the_rest() -> None:
    # What etcd let through: a grant for one key, and a watch that goes on to the end of all keys.
    for granted in ("orders.eu", "orders.*", "orders.>"):
        assert not topic_within(">", granted)
    assert not topic_within("orders.>", "orders.eu")
    assert not topic_within("orders.*.>", "orders.*")
    assert not glob_within("*", "orders")
    assert not glob_within("orders*", "orders")


@pytest.mark.parametrize(
    ("pattern", "valid"),
    [
        ("orders.eu", True),
        ("orders.*", True),
        ("*.eu.>", True),
        (">", True),
        ("", False),
        ("orders..eu", False),
        ("orders.e*", False),
        (">.orders", False),
        ("orders.e>", False),
    ],
)
def test_what_a_topic_pattern_is(pattern: str, valid: bool) -> None:
    assert is_topic_pattern(pattern) is valid


def test_hostile_patterns_take_linear_time() -> None:
    def seconds(size: int) -> float:
        asked, granted = "a*" * size + "b", "*a" * size + "*c"
        began = time.thread_time()
        for _ in range(20):
            glob_within(asked, granted)
            topic_within(".".join("*" * size), ".".join("*" * size) + ".>")
        return time.thread_time() - began

    small = min(seconds(500) for _ in range(5))
    large = min(seconds(4_000) for _ in range(5))
    assert large < 8 * small * 4


def test_many_granted_patterns_decide_as_one_after_the_other() -> None:
    chance = random.Random(7)
    for _ in range(300):
        granted = chance.sample(topics(3), chance.randint(0, 12))
        found = TopicGrants(granted)
        for asked in chance.sample(topics(4), 40):
            assert found.cover(asked) is any(topic_within(asked, each) for each in granted)
        granted = chance.sample(globs(4), chance.randint(0, 12))
        names = NameGrants(granted)
        for asked in chance.sample(globs(5), 40):
            assert names.cover(asked) is any(glob_within(asked, each) for each in granted)


def test_the_number_of_granted_patterns_hardly_counts() -> None:
    few, many = (TopicGrants(f"orders.{n}.>" for n in range(size)) for size in (10, 10_000))
    some, lots = (NameGrants(f"api-{n}-*" for n in range(size)) for size in (10, 10_000))

    def seconds(*granted: NameGrants | TopicGrants) -> float:
        began = time.thread_time()
        for n in range(2_000):
            for each in granted:
                each.cover(f"orders.x{n}.y")
        return time.thread_time() - began

    small = min(seconds(few, some) for _ in range(5))
    large = min(seconds(many, lots) for _ in range(5))
    assert large < 20 * small
