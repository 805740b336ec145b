"""The access file on disk: read with care, and changed by whole entries.

What a person wrote (roles, comments, order) stays as it is: a new token is added at the end, a
revoked one is cut out. The file is replaced in one step, so a reader never sees half of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from streamkit.access.rules import Rules, Token, parse_rules
from streamkit.access.tokens import is_token_id, new_token, sha256_of
from streamkit.config import AccessLimits
from streamkit.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)

__all__ = ["add_token", "read_rules", "remove_token"]

_LARGEST = AccessLimits().file_bytes
_HEADER = re.compile(r"\s*\[")
_TOKEN_HEADER = re.compile(r"\s*\[\[\s*token\s*\]\]\s*(#.*)?")
_NEW = """\
# Who may do what on a streamkit server. `streamkit token` adds and removes tokens.
"""


def read_rules(path: str | os.PathLike[str]) -> Rules:
    """The rules in a file.

    Raises PreconditionError for a file that is missing or that others may read or change, and
    InvalidArgumentError for one that says something wrong.
    """
    return parse_rules(_read(Path(path)), name=str(path))


def add_token(
    path: str | os.PathLike[str],
    token_id: str,
    roles: Sequence[str],
    *,
    expires: float | None = None,
    note: str = "",
) -> str:
    """Make a token, add it to the file (made if it is not there) and return it.

    It is kept nowhere else. Raises AlreadyExistsError for an id that is there,
    InvalidArgumentError for a role that is not, and what `read_rules` raises.
    """
    if not is_token_id(token_id):
        raise InvalidArgumentError("a token's name is 1 to 64 letters, digits, dots or dashes")
    path = Path(path)
    with _locked(path):
        text = _read(path) if path.exists() else _NEW
        rules = parse_rules(text, name=str(path))
        if token_id in rules.tokens:
            raise AlreadyExistsError(
                f"{path} has a token {token_id!r}", hint="revoke it first, or choose another name"
            )
        for role in roles:
            if role not in rules.roles:
                raise InvalidArgumentError(
                    f"no role {role!r}: there are {', '.join(sorted(rules.roles))}"
                )
        secret = new_token(token_id)
        entry = Token(token_id, sha256_of(secret), tuple(roles), expires, note)
        text = f"{text.rstrip()}\n\n{_written(entry)}"
        parse_rules(text, name=str(path))
        _replace(path, text)
    return secret


def remove_token(path: str | os.PathLike[str], token_id: str) -> None:
    """Cut a token out of the file. Raises NotFoundError, and what `read_rules` raises."""
    path = Path(path)
    with _locked(path):
        text = _read(path)
        rules = parse_rules(text, name=str(path))
        if token_id not in rules.tokens:
            raise NotFoundError(f"{path} has no token {token_id!r}")
        left = _without(text, token_id)
        there = parse_rules(left, name=str(path)).tokens if left is not None else None
        expected = {key: token for key, token in rules.tokens.items() if key != token_id}
        if left is None or there != expected:
            raise PreconditionError(
                f"{path}: the entry of {token_id!r} is written in an unusual way",
                hint="remove it with an editor",
            )
        _replace(path, left)


def _written(token: Token) -> str:
    lines = ["[[token]]", f'id = "{token.id}"', f'sha256 = "{token.sha256}"']
    lines.append(f"roles = [{', '.join(map(_quoted, token.roles))}]")
    if token.expires is not None:
        when = datetime.fromtimestamp(token.expires, UTC)
        lines.append(f"expires = {when.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z")
    if token.note:
        lines.append(f"note = {_quoted(token.note)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = (
        character
        if character.isprintable() and character not in '"\\'
        else f"\\U{ord(character):08x}"
        for character in text
    )
    return f'"{"".join(escaped)}"'


def _without(text: str, token_id: str) -> str | None:
    """The text without the lines of a token; None if they are not found."""
    lines = text.splitlines(keepends=True)
    starts = [place for place, line in enumerate(lines) if _HEADER.match(line)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=False):
        if not _TOKEN_HEADER.fullmatch(lines[start].rstrip("\r\n")):
            continue
        entry = re.escape(token_id)
        if any(re.match(rf"""\s*id\s*=\s*["']{entry}["']""", line) for line in lines[start:end]):
            # Comments above the next entry belong to that one.
            while end > start + 1 and lines[end - 1].lstrip()[:1] == "#":
                end -= 1
            return "".join(lines[:start] + lines[end:])
    return None


# ---- the disk ----


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if state.st_mode & 0o077:
                raise PreconditionError(
                    f"{path} can be read or changed by others", hint=f"chmod 600 {path}"
                )
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise PreconditionError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > _LARGEST:
        raise PreconditionError(f"{path} is larger than {_LARGEST} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"{path} is not UTF-8") from None


def _replace(path: Path, text: str) -> None:
    """Put a new file in the place of the old one; mode 0600 from its first moment."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):  # what failed before is what is told
                os.unlink(name)
            raise
    except OSError as error:
        raise PreconditionError(f"cannot write {path}: {error.strerror}") from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other changes of the same file away. The folder is locked: files are replaced."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise PreconditionError(f"cannot open {path.parent}: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
