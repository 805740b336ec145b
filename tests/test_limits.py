"""The table of limits says what the settings are."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from streamkit import config
from streamkit.cli.input import following, ledger, lines
from streamkit.transport.grpc import details

TABLE = (Path(__file__).resolve().parents[1] / "docs" / "limits.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("|") and not line.startswith(("|-", "| what grows"))
]
UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def test_the_table_has_rows() -> None:
    assert ROWS and all(len(row) == 5 and all(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[3])
def test_a_bound_is_the_default_of_its_setting(row: list[str]) -> None:
    _, bound, _, setting, _ = row
    for name in re.findall(r"`(\w+\.\w+)`", setting):
        settings, field = name.split(".")
        default = getattr(getattr(config, settings)(), field)
        number = re.fullmatch(r"([\d.,]+) ?([KMG]iB|)", bound)
        assert number is not None, bound
        assert default == float(number[1].replace(",", "")) * UNITS[number[2]], row


CONSTANTS = {
    "details of an error that a handler raises": details.MOST,
    "one line that `run` and `ship` read": lines.MAX_LINE,
    "files that `ship` has open at a time": following.MOST_OPEN,
    "files whose place `ship` remembers": following.MOST_PLACES,
    "the file in which it remembers them": ledger.REWRITE_AT,
}


@pytest.mark.parametrize("what", CONSTANTS)
def test_a_bound_without_a_setting_is_what_the_program_has(what: str) -> None:
    [bound] = [row[1] for row in ROWS if row[0] == what]
    number, _, unit = bound.partition(" ")
    assert CONSTANTS[what] == int(number) * UNITS[unit]


@pytest.mark.parametrize("kind", [config.RequestLimits, config.JournalOptions, config.Retention])
def test_every_bound_has_a_row(kind: type) -> None:
    numbers = {f.name for f in fields(kind) if isinstance(getattr(kind(), f.name), int | float)}
    numbers.discard("count")  # what a number may be at most: nothing grows with it
    told = {name for row in ROWS for name in re.findall(rf"`{kind.__name__}\.(\w+)`", row[3])}
    assert numbers - told == set()
