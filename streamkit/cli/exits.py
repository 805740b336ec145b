"""Exit codes, and the way from an error to one line and a code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from streamkit import errors
from streamkit.sanitise import sanitise

__all__ = [
    "CONNECT",
    "FAILED",
    "INTERRUPTED",
    "NOT_ALLOWED",
    "NOT_FOUND",
    "OK",
    "TIMEOUT",
    "USAGE",
    "UsageError",
    "exit_code",
    "one_line",
    "reason",
    "value_of",
]

OK = 0
FAILED = 1
USAGE = 2
CONNECT = 3
NOT_ALLOWED = 4
NOT_FOUND = 5
TIMEOUT = 124
INTERRUPTED = 130

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    # A subclass comes before its base.
    (errors.QueryError, FAILED),
    (errors.InvalidArgumentError, USAGE),
    (errors.StoreError, FAILED),
    (errors.ConnectError, CONNECT),
    (errors.AuthError, NOT_ALLOWED),
    (errors.NotFoundError, NOT_FOUND),
    (errors.DeadlineError, TIMEOUT),
    (TimeoutError, TIMEOUT),
    (KeyboardInterrupt, INTERRUPTED),
)


T = TypeVar("T")


class UsageError(Exception):
    """The command line says something that cannot be meant; ends with exit code 2."""


def value_of(name: str, convert: Callable[[str], T], text: str) -> T:
    """Convert the text of an option; a refusal names the option."""
    try:
        return convert(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None


def exit_code(error: BaseException) -> int:
    """Return the documented code of an error that ended a command."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)


def reason(error: BaseException) -> str:
    """Return why a connection broke, in a few words, for a line that says what follows from it."""
    return sanitise(str(error)).removeprefix("the connection was lost: ")


def one_line(error: BaseException, *, server: str = "") -> str:
    """Return what happened and what to do about it, in one line that is safe to show."""
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        return sanitise(f"{name}{error.strerror}")
    text = str(error) or type(error).__name__
    hint = error.hint if isinstance(error, errors.StreamkitError) else ""
    if isinstance(error, errors.ConnectError) and server:
        if "TLS failed" in text:
            hint = "if the server there does not speak TLS, leave out --tls, --ca and --cert"
        elif "certificate is not accepted" in text:
            hint = "name who signed it with --ca FILE"
        elif text.startswith("cannot connect"):
            hint = "start one with `streamkit serve`, or name another with -s HOST:PORT"
        if server not in text:
            text = f"{server}: {text}"
    return sanitise(f"{text}; {hint}" if hint else text)
