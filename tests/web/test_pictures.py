"""The pictures of the page are there, small, and shown somewhere."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures"


def test_the_pictures_are_small_and_shown() -> None:
    pages = (ROOT / "README.md").read_text() + (ROOT / "docs" / "browsers.md").read_text()
    pictures = list(FOLDER.iterdir())
    assert pictures and sum(one.stat().st_size for one in pictures) < 300_000
    shown = [one for one in pictures if f"pictures/{one.name}" in pages]
    assert len(shown) >= 2
