"""What these tests see is the same, whatever carries the call: each runs over both."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from streamkit.testing import connected
from tests.transport.server.exchange.calls import Serve


@pytest.fixture(params=["socket", "inproc"])
def serve(request: Any) -> Serve:
    return partial(connected, carrier=request.param)
