"""Rules of what is kept, as they are written."""

from __future__ import annotations

import pytest

from streamkit.cli.input.retention import retention_rule
from streamkit.config import RetentionRule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("topics=metrics.>,age=1d", RetentionRule(pattern="metrics.>", max_age=86400.0)),
        ("topics=a.* keep-last=1", RetentionRule(pattern="a.*", keep_last=1)),
        (
            "services='api 1,2*', bytes=200MB, age=1h30m",
            RetentionRule(
                stream="logs", pattern="api 1,2*", max_age=5400.0, max_bytes=200 * 1024 * 1024
            ),
        ),
    ],
)
def test_what_a_rule_means(text: str, rule: RetentionRule) -> None:
    assert retention_rule(text) == rule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "say topics=PATTERN"),
        ("topics=a,services=b,age=1d", "say topics=PATTERN or"),
        ("topics=a", "says nothing"),
        ("topics=a,ages=1d", "did you mean age"),
        ("topics=a,age=1d,age=2d", "give age=... once"),
        ("topics=a,age", "give age=... once"),
        ("topics=a,keep_last=-1", "whole number"),
        ("topics='a,age=1d", "quote"),
        ("topics=a,age=soon", "not a duration"),
    ],
)
def test_what_cannot_be_meant_is_told(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        retention_rule(text)
