"""Requests that are decoded and still wrong: what a check says becomes violations of fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamkit.errors import InvalidArgumentError
from streamkit.generated.google.rpc import BadRequest, BadRequestFieldViolation

__all__ = ["Check", "refused"]

Check = Callable[[Any], object]
"""Called with each request message before the handler sees it; what it raises is the caller's
fault: a ValueError (pydantic's among them) is INVALID_ARGUMENT with field violations. A text that
begins with a field's name and a colon is of that field."""
_MOST = 20  # violations that are told


def refused(error: ValueError, message: object) -> InvalidArgumentError:
    """Return the caller's error for a check of `message` that has failed."""
    violations = [_violation(found) for found in _found(error, message)[:_MOST]]
    said = "; ".join(
        f"{violation.field}: {violation.description}" if violation.field else violation.description
        for violation in violations
    )
    return InvalidArgumentError(
        said or "the request is not valid", details=[BadRequest(field_violations=violations)]
    )


def _found(error: ValueError, message: object) -> list[dict[str, Any]]:
    errors = getattr(error, "errors", None)  # pydantic's, and others' that are made alike
    if callable(errors):
        return list(errors())
    name, colon, text = str(error).partition(": ")
    if colon and name in getattr(message, "__dataclass_fields__", ()):
        return [{"loc": (name,), "msg": text}]
    return [{"loc": (), "msg": str(error)}]


def _violation(found: dict[str, Any]) -> BadRequestFieldViolation:
    field = ".".join(str(part) for part in found.get("loc", ()))
    return BadRequestFieldViolation(field=field, description=str(found.get("msg", "")))
