"""The plug-in for pytest: servers, channels and faults as fixtures.

They are plain fixtures, good for tests of every kind: what lives in an event loop is entered there,
`async with streamkit_channel(Orders()) as channel`, whether it is pytest-asyncio's or anyio's.
Nothing of streamkit is imported before the first test that asks for one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from streamkit import Channel, Client, Servable
    from streamkit.testing import Access, FaultProxy

    Connect = Callable[..., AbstractAsyncContextManager[Channel]]

__all__ = [
    "streamkit_access",
    "streamkit_channel",
    "streamkit_client",
    "streamkit_faults",
    "streamkit_server",
]


@pytest.fixture
def streamkit_handlers() -> list[Servable]:
    """Services of your own for `streamkit_server`; redefine it where they are wanted."""
    return []


@pytest.fixture
def streamkit_roles() -> str:
    """Roles of your own, as an access file has them; redefine it where they are wanted."""
    return ""


@pytest.fixture
def _streamkit_rules(streamkit_roles: str) -> Access:
    from streamkit.testing import Access

    return Access(streamkit_roles)


@pytest.fixture
def streamkit_access(_streamkit_rules: Access) -> Callable[..., str]:
    """`streamkit_access("till")`: a token whose holder has this role, one of `streamkit_roles` or
    `admin`, `reader`, `writer`. In a test that asks for it `streamkit_server` refuses who has no
    token, and `streamkit_client` is an administrator."""
    return _streamkit_rules.token


def _rules_of(request: pytest.FixtureRequest) -> Access | None:
    """The rules of a test that asks for roles."""
    asked = "streamkit_access" in request.fixturenames
    return request.getfixturevalue("_streamkit_rules") if asked else None


@pytest.fixture
def streamkit_server(
    request: pytest.FixtureRequest, streamkit_handlers: list[Servable]
) -> Iterator[str]:
    """The address of a whole server in a thread of its own, with a store that goes at the end and
    the services of `streamkit_handlers`."""
    import asyncio

    from streamkit import Server

    access = _rules_of(request)
    started, failed = threading.Event(), list[BaseException]()
    running: dict[str, Any] = {}

    async def serve() -> None:
        server = Server(
            streamkit_handlers, journal=":memory:", port=0, grace=1,
            access=None if access is None else access.rules,
        )  # fmt: skip
        async with server:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            running.update(address=server.address, stop=lambda: loop.call_soon_threadsafe(stop.set))
            started.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # it is the test's, which waits
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="streamkit_server", daemon=True)
    thread.start()
    started.wait()
    if not failed:
        yield running["address"]
        running["stop"]()
    thread.join()
    if failed:
        raise failed[0]


@pytest.fixture
def streamkit_client(request: pytest.FixtureRequest, streamkit_server: str) -> Iterator[Client]:
    """A blocking client of `streamkit_server`; others are made with its address."""
    from streamkit import Client

    access = _rules_of(request)
    token = None if access is None else access.token("admin")
    with Client(streamkit_server, token=token) as client:
        yield client


@pytest.fixture
def streamkit_channel(request: pytest.FixtureRequest) -> Connect:
    """`async with streamkit_channel(*handlers) as channel`: a channel to these handlers, in this
    process and without a port. With `role="till"` the caller has this role (see
    `streamkit_access`) and no other right. `interceptors=` and the other words are those of
    `streamkit.testing.connected`."""

    def connect(
        *handlers: Servable, role: str = "", **settings: Any
    ) -> AbstractAsyncContextManager[Channel]:
        from streamkit.testing import connected

        if role:
            access: Access = request.getfixturevalue("_streamkit_rules")
            settings |= {"access": access.rules, "token": access.token(role)}

        return connected(handlers, **({"carrier": "inproc"} | settings))

    return connect


@pytest.fixture
def streamkit_faults(request: pytest.FixtureRequest) -> Callable[..., FaultProxy]:
    """`async with streamkit_faults() as proxy`: a relay to `streamkit_server`, or to an address
    that is given, whose connections break when the test says so: `proxy.reset()`, `.cut()`."""

    def relay(address: str = "") -> FaultProxy:
        from streamkit.testing import FaultProxy

        return FaultProxy(address or request.getfixturevalue("streamkit_server"))

    return relay
