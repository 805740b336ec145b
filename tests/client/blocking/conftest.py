"""A server in a thread, and a logger that nobody else knows."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.client.servers import ThreadServer


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as server:
        yield server


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    # Not registered anywhere: what the test runner hangs on the root logger is not concerned.
    log = logging.Logger("shop.orders", logging.DEBUG)
    yield log
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
