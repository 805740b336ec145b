"""context: a connection with a name is taken as a whole, and its token goes to its server only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.tools import invoke


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}


def file_of(home: dict[str, str]) -> Path:
    return Path(home["XDG_CONFIG_HOME"]) / "streamkit" / "contexts.toml"


def test_a_connection_is_used_by_its_name(
    home: dict[str, str], server: str, nowhere: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-of-mine")
    added = invoke("context", "add", "shop", "-s", server, "--token-file", str(token), env=home)
    assert added.returncode == 0, added.stderr
    assert file_of(home).stat().st_mode & 0o777 == 0o600
    assert "secret-of-mine" not in file_of(home).read_text()
    invoke("context", "add", "away", "-s", nowhere, env=home)
    shown = invoke("context", "show", "shop", env=home).stdout
    assert server in shown and str(token) in shown and "secret-of-mine" not in shown
    assert invoke("health", "--context", "shop", env=home).returncode == 0
    assert invoke("health", env=home | {"STREAMKIT_CONTEXT": "away"}).returncode == 3
    assert invoke("context", "use", "away", env=home).returncode == 0
    assert invoke("health", env=home).returncode == 3
    listed = invoke("context", "list", env=home).stdout
    assert f"* away\t{nowhere}" in listed and f"  shop\t{server}" in listed
    # A server that is named elsewhere gets nothing of the connection in use.
    assert invoke("health", server=server, env=home).returncode == 0
    assert invoke("health", "-s", server, env=home).returncode == 0
    both = invoke("health", "-s", server, "--context", "shop", env=home)
    assert both.returncode == 2 and "--context says which server" in both.stderr
    assert invoke("context", "remove", "away", env=home).returncode == 0
    assert "away" not in invoke("context", "list", env=home).stdout


def test_what_it_refuses(home: dict[str, str]) -> None:
    unknown = invoke("health", "--context", "none", env=home)
    assert unknown.returncode == 2 and "no context 'none'" in unknown.stderr
    assert invoke("context", "add", "x", env=home).returncode == 2
    assert invoke("context", "use", "none", env=home).returncode == 2
    file_of(home).parent.mkdir(parents=True)
    file_of(home).write_text("[context.x]\nserver = 'a:1'\ntoken = 'no place for it'\n")
    wrong = invoke("health", "--context", "x", env=home)
    assert wrong.returncode == 2 and "keys server, tls" in wrong.stderr
    assert "no place" not in wrong.stderr
