"""Whether everything that one pattern means is meant by another one: pure, in linear time.

A caller who asks for a pattern asks for all that may ever match it. So a pattern that is asked for
must lie within a granted one; that some of what it matches is granted is not enough.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Names", "Topics", "glob_within", "is_topic_pattern", "topic_within"]

_HOLE = "\0"
"""Stands for what a "*" may be. No name holds it, so only a "*" can take it."""


def topic_within(asked: str, granted: str) -> bool:
    """Whether every topic that `asked` matches is matched by `granted`.

    >>> topic_within("orders.eu", "orders.*"), topic_within("orders.*", "orders.>")
    (True, True)
    >>> topic_within("orders.>", "orders.*"), topic_within(">", "orders.>")
    (False, False)
    """
    if asked == granted:
        return True
    wanted, allowed = asked.split("."), granted.split(".")
    for place, token in enumerate(allowed):
        if place == len(wanted):
            return False
        if token == ">":
            return True
        if wanted[place] == ">":
            return False
        if token not in ("*", wanted[place]):
            return False
    return len(wanted) == len(allowed)


def glob_within(asked: str, granted: str) -> bool:
    """Whether every name that `asked` matches is matched by `granted`, "*" being any characters.

    What a "*" of `asked` stands for can be any text, so only a "*" of `granted` can take it in,
    and that one takes any other text as well. So it is enough to match `asked` as a name.

    >>> glob_within("api-*", "api*"), glob_within("api-eu", "api-*"), glob_within("*", "api-*")
    (True, True, False)
    """
    if asked == granted:
        return True
    first, *rest = granted.split("*")
    if not rest:
        return False
    name = asked.replace("*", _HOLE)
    *middle, last = rest
    place = len(first)
    end = len(name) - len(last)
    if place > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in middle:
        # The leftmost place leaves the most for what follows, so it never has to be taken back.
        found = name.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def is_topic_pattern(text: str) -> bool:
    """Whether this is a topic or a pattern of topics: "*" a whole token, ">" the whole last one."""
    tokens = text.split(".")
    return all(
        token == "*"
        or (token == ">" and place == len(tokens))
        or (token and not set(token) & set("*>"))
        for place, token in enumerate(tokens, 1)
    )


class Topics:
    """Granted topic patterns as a tree of their tokens: a look-up goes down it once."""

    __slots__ = ("_root",)

    def __init__(self, patterns: Iterable[str]) -> None:
        self._root = _Node()
        for pattern in patterns:
            node = self._root
            for token in pattern.split("."):
                node = node.below.setdefault(token, _Node())
            node.ends = True

    def cover(self, asked: str) -> bool:
        """Whether `asked` lies within one of the patterns."""
        tokens = asked.split(".")
        waiting = [(self._root, 0)]
        while waiting:
            node, place = waiting.pop()
            if place == len(tokens):
                if node.ends:
                    return True
                continue
            below = node.below
            if ">" in below:
                return True
            token = tokens[place]
            if token == ">":
                continue
            steps = {token, "*"} & below.keys()
            waiting += [(below[step], place + 1) for step in steps]
        return False


class _Node:
    __slots__ = ("below", "ends")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.ends = False


class Names:
    """Granted patterns of names, found by what stands before their first star."""

    __slots__ = ("_by_start", "_exact", "_lengths")

    def __init__(self, patterns: Iterable[str]) -> None:
        self._exact: set[str] = set()
        self._by_start: dict[str, list[str]] = {}
        for pattern in patterns:
            self._exact.add(pattern)
            if "*" in pattern:
                self._by_start.setdefault(pattern.partition("*")[0], []).append(pattern)
        self._lengths = sorted({len(start) for start in self._by_start})

    def cover(self, asked: str) -> bool:
        """Whether `asked` lies within one of the patterns."""
        return asked in self._exact or any(
            glob_within(asked, granted)
            for length in self._lengths
            for granted in self._by_start.get(asked[:length], ())
        )
