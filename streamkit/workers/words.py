"""What the owner and its workers say to each other beside the journal, and how one begins."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

__all__ = ["OTHERS", "OWNER", "QUESTION", "READY", "RELOAD", "VARIABLE", "Beginning"]

READY, RELOAD = 2, 3
"""Told by a worker that serves; told to one, with options that have changed."""
QUESTION, OTHERS, OWNER = 16, 17, 18
"""Asked with a name and a value: of a worker; of all other workers, by one; of the owner."""

VARIABLE = "_STREAMKIT_WORKER"
"""In the environment of a worker: how it begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """What a worker is born with. Numbers of sockets and pipes are those it inherits."""

    number: int
    calls_after: int
    calls_step: int
    control: int
    listener: int
    journal: int | None
    last_word: int
    """A pipe with one byte in it: whoever gets that tells that the owner is gone."""
    options: dict[str, Any]
    """What the owner's command was given, with where each comes from."""

    def written(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Self:
        return cls(**json.loads(text))
