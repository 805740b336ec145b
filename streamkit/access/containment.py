"""Whether everything that one pattern means is meant by another one: pure, in linear time.

A caller who asks for a pattern asks for all that may ever match it. So a pattern that is asked for
must lie within a granted one; that some of what it matches is granted is not enough.
"""

from __future__ import annotations

__all__ = ["glob_within", "is_topic_pattern", "topic_within"]

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
