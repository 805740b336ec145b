"""Where the calls lead: to a server, or to handlers in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from streamkit.codec import StreamkitCodec
from streamkit.testing import InProcess
from streamkit.transport import GrpcServer
from tests.transport.client.around.service import Service
from tests.transport.client.conftest import Target


@pytest.fixture
def service() -> Service:
    return Service()


@pytest_asyncio.fixture(params=["socket", "inproc"])
async def target(request: Any, service: Service) -> AsyncIterator[Target]:
    if request.param == "inproc":
        yield InProcess([service])
        return
    server = GrpcServer([service], codec=StreamkitCodec())
    await server.start("127.0.0.1", 0)
    yield f"127.0.0.1:{server.port}"
    await server.close()
