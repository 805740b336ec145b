"""Key patterns, pure: topics with "*" and ">", service names with "*".

Patterns come from whoever can connect, so nothing here backtracks. Topics are walked through a trie
of all patterns, token by token: what others asked for costs nothing unless it begins as the topic
does. A service name is compared with those patterns only whose text before the first "*" it has;
each is passed once from left to right.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

__all__ = [
    "Exact",
    "Globs",
    "Patterns",
    "Topics",
    "glob_matches",
    "is_glob",
    "is_topic_pattern",
    "literal_prefix",
    "tokens_of",
    "topic_matches",
]

V = TypeVar("V")


def is_topic_pattern(topic: str) -> bool:
    """Whether the topic has a token that stands for others."""
    return topic == ">" or topic.endswith(".>") or "*" in topic.split(".")


def is_glob(name: str) -> bool:
    """Whether the name has a "*"."""
    return "*" in name


def topic_matches(pattern: str, topic: str) -> bool:
    """Whether a topic is meant: "*" is one token, a final ">" is one or more.

    >>> topic_matches("orders.*", "orders.eu"), topic_matches("orders.*", "orders.eu.new")
    (True, False)
    >>> topic_matches("orders.>", "orders.eu.new"), topic_matches("orders.>", "orders")
    (True, False)
    """
    wanted = pattern.split(".")
    tokens = topic.split(".")
    if wanted[-1] == ">":
        del wanted[-1]
        if tokens[len(wanted) :] in ([], [""]):
            return False
    elif len(tokens) != len(wanted):
        return False
    return all(w == t or (w == "*" and t) for w, t in zip(wanted, tokens, strict=False))


def glob_matches(pattern: str, name: str) -> bool:
    """Whether a name is meant: "*" is any characters, none included.

    >>> glob_matches("api-*", "api-eu"), glob_matches("api-*", "web")
    (True, False)
    """
    return _parts_match(pattern.split("*"), name)


def literal_prefix(pattern: str) -> str:
    """What every key that a topic or service pattern means begins with.

    >>> literal_prefix("orders.*.new"), literal_prefix("api-*"), literal_prefix("a.>")
    ('orders.', 'api-', 'a.')
    """
    head = pattern.partition("*")[0]
    return head[:-1] if head.endswith(".>") or head == ">" else head


def tokens_of(pattern: str) -> int:
    """About how many steps it takes to pass over a pattern."""
    return 1 + pattern.count(".") + pattern.count("*")


def _parts_match(parts: list[str], name: str) -> bool:
    """The parts between the stars, each searched for after the one before: the first place that
    fits leaves most for the others, so none is ever tried again."""
    if len(parts) == 1:
        return parts[0] == name
    first, last = parts[0], parts[-1]
    end = len(name) - len(last)
    if end < len(first) or not name.startswith(first) or not name.endswith(last):
        return False
    place = len(first)
    for part in parts[1:-1]:
        place = name.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


class Patterns(ABC, Generic[V]):
    """Values under patterns, found by the keys that the patterns mean."""

    @abstractmethod
    def add(self, pattern: str, value: V) -> None:
        """Put a value under a pattern; once only, however often it is added."""

    @abstractmethod
    def remove(self, pattern: str, value: V) -> None:
        """Take out what was added."""

    @abstractmethod
    def find(self, key: str) -> Iterable[V]:
        """The values of all patterns that mean the key, each once."""

    @abstractmethod
    def matches(self, key: str) -> bool:
        """Whether any pattern means the key."""


class Exact(Patterns[V]):
    """Patterns that are keys."""

    def __init__(self) -> None:
        self._values: dict[str, dict[V, None]] = {}

    def add(self, pattern: str, value: V) -> None:
        self._values.setdefault(pattern, {})[value] = None

    def remove(self, pattern: str, value: V) -> None:
        values = self._values[pattern]
        del values[value]
        if not values:
            del self._values[pattern]

    def find(self, key: str) -> Iterable[V]:
        return self._values.get(key, ())

    def matches(self, key: str) -> bool:
        return key in self._values


class _Node(Generic[V]):
    """A place in the trie: what tokens lead on, and the values of patterns that end here."""

    __slots__ = ("any", "here", "next", "rest")

    def __init__(self) -> None:
        self.next: dict[str, _Node[V]] = {}
        self.any: _Node[V] | None = None
        """Where "*" leads."""
        self.here: dict[V, None] = {}
        self.rest: dict[V, None] = {}
        """Of patterns whose ">" stands here."""

    def is_empty(self) -> bool:
        return not (self.next or self.any or self.here or self.rest)


class Topics(Patterns[V]):
    """Topic patterns, as a trie of their tokens."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()

    def add(self, pattern: str, value: V) -> None:
        node = self._root
        tokens = pattern.split(".")
        last = tokens[-1] == ">"
        for token in tokens[:-1] if last else tokens:
            if token == "*":
                if node.any is None:
                    node.any = _Node()
                node = node.any
            else:
                node = node.next.setdefault(token, _Node())
        (node.rest if last else node.here)[value] = None

    def remove(self, pattern: str, value: V) -> None:
        tokens = pattern.split(".")
        last = tokens[-1] == ">"
        path = [self._root]
        for token in tokens[:-1] if last else tokens:
            following = path[-1].any if token == "*" else path[-1].next[token]
            assert following is not None, pattern
            path.append(following)
        del (path[-1].rest if last else path[-1].here)[value]
        for token, node, parent in zip(
            reversed(tokens[: len(path) - 1]), reversed(path), reversed(path[:-1]), strict=False
        ):
            if not node.is_empty():
                break
            if token == "*":
                parent.any = None
            else:
                del parent.next[token]

    def find(self, key: str) -> Iterable[V]:
        found: dict[V, None] = {}
        level = [self._root]
        tokens = key.split(".")
        left = bool(tokens[-1])
        for place, token in enumerate(tokens, 1):
            following = []
            for node in level:
                if node.rest and (left or place < len(tokens)):
                    found.update(node.rest)
                child = node.next.get(token)
                if child is not None:
                    following.append(child)
                if node.any is not None and token:
                    following.append(node.any)
            if not following:
                return found
            level = following
        for node in level:
            found.update(node.here)
        return found

    def matches(self, key: str) -> bool:
        return bool(self.find(key))


class Globs(Patterns[V]):
    """Service patterns, by the text before their first "*"."""

    def __init__(self) -> None:
        self._heads: dict[str, dict[str, tuple[list[str], dict[V, None]]]] = {}
        self._lengths: dict[int, int] = {}
        """How many heads there are of each length."""

    def add(self, pattern: str, value: V) -> None:
        head = pattern.partition("*")[0]
        tails = self._heads.get(head)
        if tails is None:
            tails = self._heads[head] = {}
            self._lengths[len(head)] = self._lengths.get(len(head), 0) + 1
        if pattern not in tails:
            tails[pattern] = (pattern.split("*"), {})
        tails[pattern][1][value] = None

    def remove(self, pattern: str, value: V) -> None:
        head = pattern.partition("*")[0]
        tails = self._heads[head]
        values = tails[pattern][1]
        del values[value]
        if values:
            return
        del tails[pattern]
        if tails:
            return
        del self._heads[head]
        self._lengths[len(head)] -= 1
        if not self._lengths[len(head)]:
            del self._lengths[len(head)]

    def find(self, key: str) -> Iterable[V]:
        found: dict[V, None] = {}
        for length in self._lengths:
            for parts, values in self._heads.get(key[:length], _NONE).values():
                if _parts_match(parts, key):
                    found.update(values)
        return found

    def matches(self, key: str) -> bool:
        return any(
            _parts_match(parts, key)
            for length in self._lengths
            for parts, _ in self._heads.get(key[:length], _NONE).values()
        )


_NONE: dict[str, Any] = {}
