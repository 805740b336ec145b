"""The all-types schema, compiled once a session for betterproto and for google.protobuf."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.codec.peers import Peers, compile_proto


@pytest.fixture(scope="session")
def every(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    target = tmp_path_factory.mktemp("every")
    return compile_proto(target, "every", Path(__file__).parent, "every")
