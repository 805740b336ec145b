"""What a user hands over as a message, made into text that the wire can carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from streamkit.errors import InvalidArgumentError

__all__ = ["clean", "clean_map", "message_text"]


def clean(text: str) -> str:
    """The text with every lone surrogate replaced: proto3 strings are valid UTF-8."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def clean_map(values: Mapping[str, object] | None) -> dict[str, str]:
    """Metadata or log fields as text; values that are not text are shown by str()."""
    if not values:
        return {}
    return {clean(str(key)): clean(str(value)) for key, value in values.items()}


def message_text(message: object) -> str:
    """Text as it is, bytes as UTF-8 with replacements, anything else as JSON."""
    if isinstance(message, str):
        return clean(message)
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message).decode("utf-8", "replace")
    try:
        return clean(json.dumps(message, separators=(",", ":"), ensure_ascii=False, default=_plain))
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"message: cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    """JSON for what json does not know: dates as ISO 8601, sets as lists."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    raise TypeError(f"{type(value).__name__} has no JSON form")
