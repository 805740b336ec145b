"""`make release`: all of it or nothing. The long form makes one, in a clone."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path

import pytest

from scripts import release

ROOT = Path(__file__).resolve().parents[1]
CHANGES = """# Changelog

## [Unreleased]

### Added

- A thing.

## [0.1.0] - 2026-11-01

- All.
"""


def test_what_is_unreleased_gets_the_version_and_its_date() -> None:
    assert release.moved(CHANGES, "0.2.0", "2026-12-01") == (
        "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n\n### Added\n\n- A thing.\n"
        "\n## [0.1.0] - 2026-11-01\n\n- All.\n"
    )
    for wrong in (CHANGES.replace("[Unreleased]", "[Next]"), CHANGES.replace("- A thing.", "")):
        with pytest.raises(release.ReleaseError, match="Unreleased"):
            release.moved(wrong, "0.2.0", "2026-12-01")


def test_versions_have_their_order() -> None:
    ordered = ["0.1.0", "0.2.0a1", "0.2.0b1", "0.2.0rc1", "0.2.0rc2", "0.2.0", "0.10.0", "1.0.0"]
    assert sorted(ordered, key=release.order) == ordered


def test_all_places_have_the_same_version() -> None:
    assert release.order(release.version_of(ROOT)) >= (0, 1, 0, 3, 0)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The last commit of this repository, in one of its own."""
    target = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", target], check=True)
    for key, value in (("user.name", "Somebody"), ("user.email", "somebody@example.org")):
        subprocess.run(["git", "-C", target, "config", key, value], check=True)
    return target


def test_what_cannot_be_released_changes_nothing(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = release.git(clone, "rev-parse", "HEAD")
    for version, why in (("", "must be one like"), ("0.0.1", "not before"), ("2", "one like")):
        assert release.main([version], clone) == 1
        assert why in capsys.readouterr().err
    (clone / "README.md").write_text("")
    assert release.main(["9.9.9"], clone) == 1
    assert "not committed" in capsys.readouterr().err
    assert release.git(clone, "rev-parse", "HEAD") == before
    assert release.git(clone, "tag") == ""


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_release_is_committed_tagged_and_built(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = release.main(["9.9.9"], clone)
    said = capsys.readouterr()
    assert code == 0, said.err
    assert release.version_of(clone) == "9.9.9"
    assert release.git(clone, "describe", "--exact-match") == "v9.9.9"
    assert release.git(clone, "log", "-1", "--format=%s") == "Release 9.9.9"
    assert release.git(clone, "status", "--porcelain") == ""
    assert release.git(clone, "worktree", "list").count("\n") == 0
    files = {path.name: path for path in (clone / "dist").iterdir()}
    sdist = files.pop("streamkit_grpc-9.9.9.tar.gz")
    assert list(files) == ["streamkit_grpc-9.9.9-py3-none-any.whl"]
    with tarfile.open(sdist) as opened:
        names = opened.getnames()
    assert any(name.endswith("/README.md") for name in names)
    assert not any("/.venv" in name or "/.ci/" in name for name in names)
    assert release.main(["9.9.9"], clone) == 1, "it is there"
