"""Make a release: `make release VERSION=0.2.0`. Nothing is uploaded.

In a work tree of its own, so that a release that fails has changed nothing:

1. the version goes into the three places that have it, the changelog's "Unreleased" gets its name
   and date, and what is promised (tests/stable) is written down;
2. sdist and wheel are built twice, which must give the same bytes, and the sdist gives that wheel;
3. the wheel is installed into an empty environment, where the command runs;
4. the commit becomes the branch's newest and gets its tag; both files are in dist/.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = {
    "pyproject.toml": r'^version = "([^"]+)"$',
    "streamkit/__init__.py": r'^__version__ = "([^"]+)"$',
    "streamkit/terms.py": r'^VERSION = "([^"]+)"$',
}
UNRELEASED = "## [Unreleased]\n"
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?")


class ReleaseError(Exception):
    """Why there is no release; nothing was changed."""


def main(arguments: list[str], root: Path = ROOT) -> int:
    try:
        release(arguments[0] if arguments else "", root)
    except ReleaseError as error:
        print(f"no release: {error}", file=sys.stderr)
        return 1
    return 0


def release(version: str, root: Path) -> None:
    """Make it, or raise ReleaseError."""
    former = version_of(root)
    if not _VERSION.fullmatch(version) or order(version) < order(former):
        raise ReleaseError(
            f"VERSION={version or '...'} must be one like 0.2.0, not before {former}"
        )
    if git(root, "status", "--porcelain"):
        raise ReleaseError("there is what is not committed: `git status`")
    if git(root, "tag", "--list", f"v{version}"):
        raise ReleaseError(f"v{version} is there already")
    today = datetime.now(UTC).date().isoformat()
    changelog = moved((root / "CHANGELOG.md").read_text(), version, today)
    with tempfile.TemporaryDirectory(prefix="streamkit-release-") as name:
        tree, built = Path(name, "tree"), Path(name, "built")
        git(root, "worktree", "add", "--detach", str(tree), "HEAD")
        try:
            (tree / "CHANGELOG.md").write_text(changelog)
            for place, pattern in PLACES.items():
                set_version(tree / place, pattern, version)
            written_down(tree)
            git(tree, "commit", "--all", "--message", f"Release {version}")
            files = build_twice(tree, built)
            tried(built, files)
            commit = git(tree, "rev-parse", "HEAD")
            (root / "dist").mkdir(exist_ok=True)
            for file in files:
                (root / "dist" / file.name).write_bytes(file.read_bytes())
        finally:
            git(root, "worktree", "remove", "--force", str(tree))
        git(root, "merge", "--ff-only", commit)
        git(root, "tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    print(f"streamkit-grpc {version}: committed and tagged here, and in dist/:")
    for file in files:
        print(f"  {file.name}")
    print("To let others have it: git push --follow-tags, and upload these two files.")


def order(version: str) -> tuple[int, ...]:
    """A version as what it is compared by: a candidate comes before its release."""
    match = _VERSION.fullmatch(version)
    assert match is not None, version
    stage = {"a": 0, "b": 1, "rc": 2, None: 3}[match[4]]
    return (int(match[1]), int(match[2]), int(match[3]), stage, int(match[5] or 0))


def version_of(root: Path) -> str:
    """The version that all places have."""
    found = set()
    for place, pattern in PLACES.items():
        match = re.search(pattern, (root / place).read_text(), re.MULTILINE)
        found.add(match[1] if match else "")
    if len(found) != 1:
        raise ReleaseError(f"{', '.join(PLACES)} do not agree about the version: {sorted(found)}")
    return found.pop()


def set_version(path: Path, pattern: str, version: str) -> None:
    text = path.read_text()
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None
    path.write_text(text[: match.start(1)] + version + text[match.end(1) :])


def moved(changelog: str, version: str, date: str) -> str:
    """The changelog with what is unreleased under the version. ReleaseError if that is nothing."""
    before, found, after = changelog.partition(UNRELEASED)
    if not found:
        raise ReleaseError("CHANGELOG.md has no heading [Unreleased]")
    news, heading, older = after.partition("\n## [")
    if not re.search(r"^- ", news, re.MULTILINE):
        raise ReleaseError("CHANGELOG.md tells nothing under [Unreleased]")
    return f"{before}{UNRELEASED}\n## [{version}] - {date}\n{news}{heading}{older}"


def written_down(tree: Path) -> None:
    """What the release promises goes into tests/stable."""
    run(
        tree, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/stable",
        UPDATE_STABLE="1", PYTHONPATH=str(tree),
    )  # fmt: skip


def build_twice(tree: Path, built: Path) -> list[Path]:
    """Build sdist and wheel two times; ReleaseError unless both times give the same bytes."""
    when = git(tree, "log", "-1", "--format=%ct")
    for place in ("first", "second"):
        for kind in ("sdist", "wheel"):
            run(
                tree, sys.executable, "-m", "hatchling", "build", "--target", kind,
                "--directory", str(built / place), SOURCE_DATE_EPOCH=when,
            )  # fmt: skip
    files = sorted((built / "first").iterdir())
    for file in files:
        if file.read_bytes() != (built / "second" / file.name).read_bytes():
            raise ReleaseError(f"{file.name} is another one each time it is built")
    return files


def tried(built: Path, files: list[Path]) -> None:
    """Install the wheel where nothing is, and run it; the sdist must hold the same package."""
    [sdist] = [file for file in files if file.name.endswith(".tar.gz")]
    [wheel] = [file for file in files if file.suffix == ".whl"]
    run(
        built, sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir",
        str(built / "again"), str(sdist),
    )  # fmt: skip
    [again] = (built / "again").glob("*.whl")
    if contents(again) != contents(wheel):
        raise ReleaseError("the sdist makes another wheel")
    run(built, sys.executable, "-m", "venv", "empty")
    commands = built / "empty" / "bin"
    run(built, str(commands / "python"), "-m", "pip", "install", "--quiet", str(wheel))
    run(built, str(commands / "streamkit"), "demo", "--plain", "--seconds", "2")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def git(folder: Path, *words: str) -> str:
    return run(folder, "git", *words).strip()


def run(folder: Path, *command: str, **environment: str) -> str:
    unset = ("PYTHONPATH", "VIRTUAL_ENV")
    env = {key: value for key, value in os.environ.items() if key not in unset} | environment
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise ReleaseError(f"{' '.join(command[:4])}...: {said[-1] if said else done.returncode}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
