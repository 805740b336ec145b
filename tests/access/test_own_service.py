"""A service of somebody's own: allowed by its path, or opened to roles where it is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from streamkit.access.gate import Gate
from streamkit.access.rules import parse_rules
from streamkit.access.tokens import new_token, sha256_of
from streamkit.errors import AuthError
from streamkit.generated.streamservice import StatusRequest, Update
from streamkit.rights import Action, open_to
from streamkit.transport import Channel, GrpcServer, context
from tests.access.servers import bearer, serve

SECRETS = {name: new_token(name) for name in ("path", "role", "other")}
RULES = """
[role.path]
methods = ["/shop.Orders/*"]
publish = ["orders.>"]

[role.till]

[role.other]
methods = ["/shop.Ordersome/*"]
""" + "".join(
    f'[[token]]\nid = "{name}"\nsha256 = "{sha256_of(SECRETS[name])}"\nroles = ["{role}"]\n'
    for name, role in (("path", "path"), ("role", "till"), ("other", "other"))
)


class Orders:
    """As the plug-in makes it: wrappers with names of their own around the methods."""

    @open_to("till")
    async def get_one(self, request: StatusRequest) -> Update:
        identity = context().identity
        return Update("orders.eu", "" if identity is None else identity.name)

    async def watch(self, request: StatusRequest) -> AsyncIterator[Update]:
        context().require(Action.PUBLISH, "orders.eu")
        yield Update("orders.eu")
        context().require(Action.PUBLISH, "stock")

    async def _get_one(self, stream: Stream[StatusRequest, Update]) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(await self.get_one(request))

    async def _watch(self, stream: Stream[StatusRequest, Update]) -> None:
        request = await stream.recv_message()
        assert request is not None
        async for update in self.watch(request):
            await stream.send_message(update)

    def __mapping__(self) -> dict[str, Handler]:
        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            "/shop.Orders/GetOne": Handler(self._get_one, one, StatusRequest, Update),
            "/shop.Orders/Watch": Handler(self._watch, many, StatusRequest, Update),
        }


async def ask(channel: Channel, method: str, name: str) -> list[Update]:
    got: list[Update] = []
    call = channel.stream(
        f"/shop.Orders/{method}",
        StatusRequest,
        Update,
        request=StatusRequest(),
        metadata=bearer(SECRETS[name]),
    )
    async with call:
        while messages := await call.receive():
            got += messages
    return got


async def test_methods_are_allowed_by_path_or_by_role() -> None:
    async with (
        serve(Orders(), access=parse_rules(RULES)) as address,
        Channel(address) as channel,
    ):
        for name, method, allowed in (
            ("path", "GetOne", True),
            ("role", "GetOne", True),
            ("role", "Watch", False),
            ("other", "GetOne", False),
            ("other", "Watch", False),
        ):
            if allowed:
                [update] = await ask(channel, method, name)
                assert update.message == f"token:{name}"
                continue
            with pytest.raises(AuthError, match=f"not allowed to call '/shop.Orders/{method}'"):
                await ask(channel, method, name)


async def test_a_handler_decides_about_what_only_it_knows() -> None:
    async with (
        serve(Orders(), access=parse_rules(RULES)) as address,
        Channel(address) as channel,
    ):
        with pytest.raises(AuthError, match="not allowed to publish to 'stock'"):
            await ask(channel, "Watch", "path")
    async with serve(Orders()) as address, Channel(address) as channel:
        # Without rules of access nobody is asked.
        call = channel.stream("/shop.Orders/Watch", StatusRequest, Update, request=StatusRequest())
        async with call:
            assert await call.receive()
            assert await call.receive() == []


async def test_a_single_call_like_one_before_is_ended_with_its_token() -> None:
    """The second of them takes the short way, and is as live as the first."""
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(Orders):
        async def get_one(self, request: StatusRequest) -> Update:
            entered.set()
            await release.wait()
            return Update("orders.eu")

    rules = parse_rules(RULES)
    gate = Gate(rules)
    server = GrpcServer([Slow()], interceptors=[gate])
    await server.start()
    async with Channel(f"localhost:{server.port}") as channel:
        for number in range(3):
            release.clear()
            entered.clear()
            call = asyncio.create_task(ask(channel, "GetOne", "path"))
            await entered.wait()
            if number == 2:
                gate.apply(parse_rules(RULES.replace('methods = ["/shop.Orders/*"]', "")))
                with pytest.raises(AuthError, match="access was withdrawn"):
                    await call
            else:
                release.set()
                await call
        assert not gate._live
        with pytest.raises(AuthError, match="not allowed to call"):
            await ask(channel, "GetOne", "path")
    await server.close()
