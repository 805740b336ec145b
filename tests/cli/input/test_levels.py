"""The level of a line."""

from __future__ import annotations

import pytest

from streamkit.cli.input.levels import detect_level


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-01-01 12:00:00 ERROR cannot open", "error"),
        ("[WARNING] careful", "warn"),
        ("DEBUG:root:x", "debug"),
        ('time=1 level=warn msg="x"', "warn"),
        ('level="fatal" msg=x', "error"),
        ("error[E0308]: mismatched types", "error"),
        ("warning: unused variable", "warn"),
        ("CRITICAL it burns", "error"),
        ("INFO all good", "info"),
        ("no errors found", "info"),
        ("the word Error in a sentence", "info"),
        ("", "info"),
        ("x" * 200 + " ERROR too far", "info"),
        ("level=strange", "info"),
    ],
)
def test_detect_level(line: str, level: str) -> None:
    assert detect_level(line) == level
