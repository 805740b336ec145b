"""Every setting of streamkit: frozen, keyword-only, validated once; seconds and bytes throughout.

A default is safe for a server on a network and documented where it is declared. Nothing here reads
the environment: the command line does that.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from streamkit.errors import InvalidArgumentError

__all__ = ["Backoff", "JournalOptions", "QueryLimits", "Retention", "TransportLimits"]

KIB = 1024
MIB = 1024 * KIB


def _require_positive(settings: object, *, zero_allowed: tuple[str, ...] = ()) -> None:
    for field in fields(settings):  # type: ignore[arg-type]  # every caller is a dataclass
        value = getattr(settings, field.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if value < 0 or (value == 0 and field.name not in zero_allowed):
            raise InvalidArgumentError(f"{field.name} must be positive, not {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TransportLimits:
    """What one peer may cost the server or the client."""

    max_message: int = 4 * MIB
    """The largest message accepted, after inflation; checked before it is buffered."""

    def __post_init__(self) -> None:
        _require_positive(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """What a journal stream keeps. Older records are removed first."""

    max_age: float = 7 * 86400.0
    """Seconds; 0 keeps records of any age."""
    max_bytes: int = 2 * 1024 * MIB
    """Of the whole store, approximately; 0 sets no bound."""

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("max_age", "max_bytes"))


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalOptions:
    """How a journal stores and how much of its end it holds in memory."""

    durability: str = "normal"
    """"normal": an acknowledged write survives the death of the process. "full": of the machine."""
    retention: Retention = Retention()
    ring_records: int = 65_536
    """Records of each stream kept framed in memory for the readers that keep up."""
    ring_bytes: int = 32 * MIB

    def __post_init__(self) -> None:
        _require_positive(self)
        if self.durability not in ("normal", "full"):
            raise InvalidArgumentError(
                f'durability must be "normal" or "full", not {self.durability!r}'
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryLimits:
    """What one query, and all of them together, may cost the server."""

    max_seconds: float = 300.0
    max_rows: int = 0
    """0 sets no bound."""
    max_message: int = 1 * MIB
    """A batch ends early at this size, so that no stock client refuses it."""
    max_concurrent: int = 8

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("max_rows",))


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """The delays between a client's attempts: first x factor^n, at most `longest`, +- jitter."""

    first: float = 1.0
    factor: float = 1.6
    longest: float = 30.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        _require_positive(self, zero_allowed=("jitter",))
