"""Fixtures of the interoperability tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.links import Certificates, Link, make_certificates
from tests.interop.schema import Schema, compile_schema


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return compile_schema(tmp_path_factory.mktemp("schema"))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["tcp", "tls", "unix"])
def link(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Link]:
    # Not tmp_path: the path of a unix socket may have about a hundred characters only.
    with tempfile.TemporaryDirectory(prefix="sk-") as folder:
        yield Link(request.param, certificates, Path(folder))
