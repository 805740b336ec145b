"""The all-types schema, compiled once a session for betterproto and for google.protobuf.

`every` is what a user has who only ran the plug-in, `described` has the descriptors beside it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.codec.peers import Peers, compile_described, compile_proto


@pytest.fixture(scope="session")
def every(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    target = tmp_path_factory.mktemp("every")
    return compile_proto(target, "every", Path(__file__).parent, "every")


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    target = tmp_path_factory.mktemp("described")
    text = (Path(__file__).parent / "every.proto").read_text()
    (target / "described.proto").write_text(text.replace("package every;", "package described;"))
    return compile_described(target, "described", target, "described")
