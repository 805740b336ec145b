"""Write streamkit/generated from schema/: `python scripts/generate.py [--check]`.

protoc and the betterproto plug-in are development tools; their output is checked in. The plug-in
probes for existing packages relative to the working directory, so it runs in an empty one and the
result is copied over. `--check` compares instead of writing and exits 1 on a difference.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

from streamkit.scaffold.described import files_in, set_of, trimmed

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "schema"
GENERATED = ROOT / "streamkit" / "generated"
DESCRIPTORS = "descriptors.binpb"
PACKAGE = '''"""What schema/ becomes; importing it makes every message fast and strict."""

import streamkit.codec  # noqa: F401
'''


def generate(target: Path) -> None:
    """Run protoc over every schema file in one call; write the package tree into `target`."""
    include = str(files("grpc_tools") / "_proto")
    # The plug-in is found on PATH by protoc; a venv that is not activated is not on it.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={SCHEMA}",
            f"--proto_path={include}",
            f"--python_betterproto_out={target}",
            # Without an explicit typing style a message named List breaks the module.
            "--python_betterproto_opt=typing.310",
            f"--descriptor_set_out={target / DESCRIPTORS}",
            "--include_imports",
            "--include_source_info",  # the comments, for the page of methods
            *sorted(str(file.relative_to(SCHEMA)) for file in SCHEMA.rglob("*.proto")),
        ],
        check=True,
        cwd=target,
        env={**os.environ, "PATH": path},
    )
    described = target / DESCRIPTORS
    described.write_bytes(set_of(map(trimmed, files_in(described.read_bytes()))))
    (target / "__init__.py").write_text(PACKAGE)


def differences(left: Path, right: Path) -> list[str]:
    """Return the relative paths of the files that are not the same in both trees."""

    def tree(root: Path) -> set[Path]:
        return {
            path.relative_to(root)
            for path in root.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    names = tree(left) | tree(right)
    _, mismatch, errors = filecmp.cmpfiles(left, right, [str(n) for n in names], shallow=False)
    return sorted(mismatch + errors)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        target = Path(name)
        generate(target)
        changed = differences(target, GENERATED)
        if "--check" in sys.argv[1:]:
            for path in changed:
                print(f"not up to date: streamkit/generated/{path} (run `make generate`)")
            return 1 if changed else 0
        shutil.rmtree(GENERATED, ignore_errors=True)
        shutil.copytree(target, GENERATED, ignore=shutil.ignore_patterns("__pycache__"))
    print(f"streamkit/generated: {len(changed)} file(s) changed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
