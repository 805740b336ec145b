"""Key patterns, pure: topics with "*" and ">", service names with "*"."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["glob_matches", "is_topic_pattern", "topic_matches"]


def is_topic_pattern(topic: str) -> bool:
    """Whether the topic has a token that stands for others."""
    return topic == ">" or topic.endswith(".>") or "*" in topic.split(".")


def topic_matches(pattern: str, topic: str) -> bool:
    """Whether a topic is meant: "*" is one token, a final ">" is one or more.

    >>> topic_matches("orders.*", "orders.eu"), topic_matches("orders.*", "orders.eu.new")
    (True, False)
    >>> topic_matches("orders.>", "orders.eu.new"), topic_matches("orders.>", "orders")
    (True, False)
    """
    return _topic_expression(pattern).fullmatch(topic) is not None


def glob_matches(pattern: str, name: str) -> bool:
    """Whether a name is meant: "*" is any characters, none included.

    >>> glob_matches("api-*", "api-eu"), glob_matches("api-*", "web")
    (True, False)
    """
    return _glob_expression(pattern).fullmatch(name) is not None


@lru_cache(maxsize=4096)
def _topic_expression(pattern: str) -> re.Pattern[str]:
    tokens = pattern.split(".")
    parts = ["[^.]+" if token == "*" else re.escape(token) for token in tokens]
    if tokens[-1] == ">":
        parts[-1] = ".+"
    return re.compile(r"\.".join(parts), re.DOTALL)


@lru_cache(maxsize=4096)
def _glob_expression(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
