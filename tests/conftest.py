"""Shared by all tests: long proofs run only with `-m soak`; Ctrl-C works in what tests start."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.brokers import Brokers
    from tests.database.engines import Postgres

_CACHE = tempfile.TemporaryDirectory(prefix="streamkit-cache-")
"""In place of the user's own, for this process and all that tests start."""


def pytest_configure() -> None:
    os.environ["XDG_CACHE_HOME"] = _CACHE.name
    # A shell starts what runs in its background with SIGINT ignored, and every process that a test
    # starts would inherit that; a handler of our own is not inherited.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in (config.option.markexpr or ""):
        return
    kept = [item for item in items if item.get_closest_marker("soak") is None]
    config.hook.pytest_deselected(items=[i for i in items if i not in kept])
    items[:] = kept


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests that need one."""
    from tests.database.engines import running_postgres

    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def nats() -> Iterator[Brokers]:
    """One NATS server for all tests that need one."""
    from tests.brokers import running_brokers

    with running_brokers() as brokers:
        yield brokers


@pytest.fixture(scope="session")
def nats_cluster() -> Iterator[Brokers]:
    """Three that are one cluster."""
    from tests.brokers import running_brokers

    with running_brokers(3) as brokers:
        yield brokers
