"""token: made once, shown once, kept as a digest."""

from __future__ import annotations

from pathlib import Path

from streamkit.access.file import read_rules
from tests.cli.tools import invoke


def test_a_token_is_made_listed_and_revoked(tmp_path: Path) -> None:
    file = str(tmp_path / "access.toml")
    made = invoke(
        "token", "create", "ci", "-r", "writer", "-r", "reader", "--expires", "90d", "--note",
        "for CI", "--access", file,
    )  # fmt: skip
    secret = made.stdout.strip()
    assert made.returncode == 0
    assert secret.startswith("sk_ci_") and secret not in made.stderr
    held = read_rules(file).tokens["ci"]
    assert held.roles == ("writer", "reader")
    listed = invoke("token", "list", env={"STREAMKIT_ACCESS": file})
    assert listed.stdout.startswith("ci\twriter,reader\texpires 2")
    assert listed.stdout.endswith("\tfor CI\n")
    assert secret not in listed.stdout and held.sha256 not in listed.stdout
    again = invoke("token", "create", "ci", "-r", "reader", "--access", file)
    assert (again.returncode, again.stdout) == (1, "")
    assert "has a token 'ci'" in again.stderr
    assert invoke("token", "revoke", "ci", "--access", file).returncode == 0
    assert read_rules(file).tokens == {}
    gone = invoke("token", "revoke", "ci", "--access", file)
    assert (gone.returncode, "no token 'ci'" in gone.stderr) == (5, True)


def test_what_a_token_needs(tmp_path: Path) -> None:
    file = str(tmp_path / "access.toml")
    for arguments, told in (
        (["create", "ci", "--access", file], "--role"),
        (["create", "ci", "-r", "reader"], "--access"),
        (["create", "c i", "-r", "reader", "--access", file], "name"),
        (["create", "ci", "-r", "reder", "--access", file], "no role 'reder'"),
        (["create", "ci", "-r", "reader", "--expires", "soon", "--access", file], "--expires"),
        (["list", "--access", file], "cannot read"),
    ):
        done = invoke("token", *arguments)
        assert done.returncode in (1, 2) and told in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
