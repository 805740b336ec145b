"""Where a stream of one's own stands: the fields of its messages that hold a position."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from streamkit.errors import InvalidArgumentError

__all__ = ["Places"]

_LAST = "after"
"""What a request mostly calls the number that the answers call otherwise."""

Path = Sequence[str]


class Places:
    """Reads positions off the answers of a method and puts them into its requests."""

    def __init__(
        self, who: str, request: type[Any], reply: type[Any], position: str, asked_by: str = ""
    ) -> None:
        """`position` names the fields of the answers, "epoch,number" for instance or
        "place.number" for one inside a message. `asked_by` names those of the request, in the
        same order; without it they have the same names, or the last of them is called `after`.

        InvalidArgumentError, in the name of `who`, for fields that are not there.
        """
        self.said = _fields(who, reply, position)
        self.asked = _asking(who, request, self.said, asked_by)

    def of(self, reply: Any) -> tuple[Any, ...]:
        """Return the position that an answer says."""
        return tuple([_get(reply, names) for names in self.said])

    def put(self, request: Any, place: Sequence[Any]) -> None:
        """Let a request ask for what follows a position."""
        for names, value in zip(self.asked, place, strict=True):
            _set(request, names, value)


def _fields(who: str, kind: type[Any], position: str) -> list[Path]:
    """Each name as the fields that lead to it. Raises InvalidArgumentError."""
    names = [name.strip() for name in position.split(",")]
    if missing := [name for name in names if not _has(kind, name.split("."))]:
        raise InvalidArgumentError(
            f"{who}: {kind.__name__} has no field {missing[0]!r}",
            hint=f"it has {', '.join(_names(kind))}",
        )
    return [name.split(".") for name in names]


def _asking(who: str, kind: type[Any], places: list[Path], asked_by: str) -> list[Path]:
    if asked_by:
        asking = _fields(who, kind, asked_by)
        if len(asking) != len(places):
            raise InvalidArgumentError(f"{who}: asked_by names more or fewer fields than position")
        return asking
    asking = list(places)
    if not _has(kind, asking[-1]) and _has(kind, [_LAST]):
        asking[-1] = [_LAST]
    for names in asking:
        if not _has(kind, names):
            raise InvalidArgumentError(
                f"{who}: {kind.__name__} has no field {'.'.join(names)!r}",
                hint=f"say in asked_by which of {', '.join(_names(kind))} take the position",
            )
    return asking


def _names(kind: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _has(kind: type[Any], names: Path) -> bool:
    for index, name in enumerate(names):
        if not dataclasses.is_dataclass(kind) or name not in _names(kind):
            return False
        if index + 1 < len(names):
            inner: Any = kind()
            kind = inner._betterproto.cls_by_field.get(name, object)
    return True


def _get(message: Any, names: Path) -> Any:
    for name in names:
        message = getattr(message, name)
    return message


def _set(message: Any, names: Path, value: object) -> None:
    for name in names[:-1]:
        inner = getattr(message, name)
        setattr(message, name, inner)  # one that was unset counts as set from now on
        message = inner
    setattr(message, names[-1], value)
