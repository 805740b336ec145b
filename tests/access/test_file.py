"""The access file on disk: tokens come and go, everything else stays as it was written."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from streamkit.access.file import add_token, read_rules, remove_token
from streamkit.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)

NOW = 1_800_000_000.0
WRITTEN = """\
# by hand
[role.shop]   # the shop's
subscribe = ["orders.>"]

# the second one
[[token]]
id = "old"
sha256 = "{digest}"
roles = ["shop"]

# before a certificate
[[certificate]]
san = "spiffe://x"
""".format(digest="0" * 64)


def written(folder: Path) -> Path:
    path = folder / "access.toml"
    path.write_text(WRITTEN)
    path.chmod(0o600)
    return path


def test_a_token_is_made_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "access.toml"
    secret = add_token(path, "ci", ["reader"], expires=NOW + 60.25, note='for "CI"\n')
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret not in path.read_text()
    token = read_rules(path).tokens["ci"]
    assert (token.expires, token.note) == (NOW + 60.25, 'for "CI"\n')
    holder = read_rules(path).token_holder(secret, NOW)
    assert holder is not None and holder.roles == ("reader",)
    with pytest.raises(AlreadyExistsError):
        add_token(path, "ci", ["reader"])
    assert os.listdir(tmp_path) == ["access.toml"]


def test_what_a_person_wrote_stays(tmp_path: Path) -> None:
    path = written(tmp_path)
    add_token(path, "new", ["shop"])
    assert path.read_text().startswith(WRITTEN)
    remove_token(path, "old")
    remove_token(path, "new")
    text = path.read_text()
    assert "# by hand" in text and "# the shop's" in text and "# before a certificate" in text
    assert read_rules(path).tokens == {}
    assert read_rules(path).certificates == {"spiffe://x": ()}
    with pytest.raises(NotFoundError):
        remove_token(path, "new")


def test_an_entry_that_is_not_found_as_text_is_left_to_a_person(tmp_path: Path) -> None:
    path = tmp_path / "access.toml"
    digest = "0" * 64
    path.write_text(f'token = [{{id = "in-line", sha256 = "{digest}"}}]\n')
    path.chmod(0o600)
    with pytest.raises(PreconditionError, match="unusual way"):
        remove_token(path, "in-line")
    assert "in-line" in read_rules(path).tokens


def test_refusals(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(InvalidArgumentError, match="no role 'shpo'"):
        add_token(path, "x", ["shpo"])
    with pytest.raises(InvalidArgumentError, match="name"):
        add_token(path, "x_y", ["shop"])
    assert path.read_text() == WRITTEN
    path.chmod(0o640)
    with pytest.raises(PreconditionError, match="others") as caught:
        read_rules(path)
    assert "chmod 600" in caught.value.hint
    with pytest.raises(PreconditionError, match="cannot read"):
        read_rules(tmp_path / "none")
    with pytest.raises(PreconditionError, match="cannot open"):
        add_token(tmp_path / "none" / "access.toml", "x", ["reader"])
    large = tmp_path / "large"
    large.write_bytes(b"#" * (1 << 20) + b"\n")
    large.chmod(0o600)
    with pytest.raises(PreconditionError, match="larger"):
        read_rules(large)


def test_changes_at_once_do_not_undo_each_other(tmp_path: Path) -> None:
    path = written(tmp_path)
    threads = [
        threading.Thread(target=add_token, args=(path, f"t{number}", ["shop"]))
        for number in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_rules(path).tokens) == 13
