"""Whether everything that one pattern means is meant by another one: pure, in linear time.

A caller who asks for a pattern asks for all that may ever match it. So a pattern that is asked for
must lie within a granted one; that some of what it matches is granted is not enough.
"""

from __future__ import annotations

from collections.abc import Iterable

from streamkit.patterns import Globs, glob_matches

__all__ = ["NameGrants", "TopicGrants", "glob_within", "is_topic_pattern", "topic_within"]

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
    return glob_matches(granted, asked.replace("*", _HOLE))


def is_topic_pattern(text: str) -> bool:
    """Whether this is a topic or a pattern of topics: "*" a whole token, ">" the whole last one."""
    tokens = text.split(".")
    return all(
        token == "*"
        or (token == ">" and place == len(tokens))
        or (token and not set(token) & set("*>"))
        for place, token in enumerate(tokens, 1)
    )


class NameGrants:
    """Granted patterns of names."""

    __slots__ = ("_patterns",)

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns: Globs[bool] = Globs()
        for pattern in patterns:
            self._patterns.add(pattern, True)

    def cover(self, asked: str) -> bool:
        """Whether `asked` lies within one of the patterns."""
        return self._patterns.matches(asked.replace("*", _HOLE))


class TopicGrants:
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
