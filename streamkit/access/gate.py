"""The gate that every call goes through: who calls, may they, and do they still.

It is an interceptor, so it sees calls and nothing of what carries them. Each request message is
looked at before its handler gets it; each live call is decided again when the rules change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from streamkit.access.file import read_rules
from streamkit.access.jwt import JwtVerifier
from streamkit.access.permit import Permit
from streamkit.access.quota import Usages
from streamkit.access.roles import Grants
from streamkit.access.rules import Rules
from streamkit.background import ended
from streamkit.errors import AuthError, Status, StreamkitError
from streamkit.methods import Method, method_of
from streamkit.rights import Action, Identity
from streamkit.transport import Context
from streamkit.transport.server.context import Next

__all__ = ["Gate", "begin_gate"]

log = logging.getLogger(__name__)

_LOOK_EVERY = 0.1
"""Seconds between two looks at the file and at what has expired."""
_AT_ONCE = 16 * 1024
"""Bytes of a file that is read where it was found to have changed: to parse it takes some
milliseconds, and where the machine is busy a thread waits for its turn much longer than that."""


@dataclass(slots=True)
class _Known:
    """Who has shown a token, as long as the rules are the same."""

    identity: Identity
    grants: Grants
    begun: dict[str, Method] = field(default_factory=dict)
    """Methods whose calls may begin, by path."""


class Gate:
    """Admits calls by the rules of a file, or by rules that are given.

    `open_to` has the methods of other services that some roles may call. `watch()` has to run for
    changes of the file and for expiry. Belongs to one event loop. Raises what `read_rules` raises,
    and PreconditionError where JWT is wanted and cannot be verified.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Rules,
        *,
        open_to: Mapping[str, frozenset[str]] | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = {
            path: Method((Action.METHODS,), roles=roles) for path, roles in (open_to or {}).items()
        }
        self._path = None if isinstance(source, Rules) else Path(source)
        self._stamp = self._read_stamp()
        self.rules = source if isinstance(source, Rules) else read_rules(source)
        self._clock = clock
        self._usages = Usages(steady)
        self._known: dict[str, _Known] = {}
        """What was sent as authorization and found right, under the rules that are in force."""
        self._live: set[Permit] = set()
        self._next_expiry = float("inf")
        self._verifier = self._make_verifier(None)
        self._reading: asyncio.Task[None] | None = None

    def __call__(self, ctx: Context, call_next: Next) -> Awaitable[None]:
        """As an interceptor; a single call like one before takes no coroutine of its own."""
        known = self._known_caller(ctx)
        if known is not None and not (ctx.streams_replies or ctx.streams_requests):
            method = known.begun.get(ctx.method)
            if method is not None:
                self._admit(ctx, method, known.identity, known.grants, begun=True)
                ctx.when_done(self._over)  # it counts for no bound: that may come after its status
                return call_next(ctx)
        return self._look_closely(ctx, call_next, known)

    async def _look_closely(self, ctx: Context, call_next: Next, known: _Known | None) -> None:
        method = self._own.get(ctx.method) or method_of(ctx.method)
        if method.open:
            ctx.metadata.popall("authorization", None)
            await call_next(ctx)
            return
        if known is not None:
            identity, grants = known.identity, known.grants
        else:
            caller = await self._identity(ctx)
            if caller is None:
                raise AuthError(
                    "not authenticated: no credentials, or they are not valid (any more)",
                    hint="give a token by --token-file or $STREAMKIT_TOKEN",
                    status=Status.UNAUTHENTICATED,
                )
            identity, grants = caller, self.rules.grants_of(caller)
        permit = self._admit(ctx, method, identity, grants)
        if known is not None:
            known.begun[ctx.method] = method
        try:
            await call_next(ctx)
        finally:
            self._live.discard(permit)
            permit.leave()

    def _admit(
        self,
        ctx: Context,
        method: Method,
        identity: Identity,
        grants: Grants,
        *,
        begun: bool = False,
    ) -> Permit:
        permit = Permit(ctx, method, identity, grants, self._usages.of(identity.name))
        ctx.rights = permit  # before anything is refused: the logs say who it was
        permit.enter(begun=begun)
        self._live.add(permit)
        if identity.expires is not None:
            self._next_expiry = min(self._next_expiry, identity.expires)
        ctx.inspectors.append(permit.inspect)
        return permit

    def _over(self, ctx: Context) -> None:
        permit = ctx.rights
        assert isinstance(permit, Permit)
        self._live.discard(permit)

    # ---- who ----

    def _known_caller(self, ctx: Context) -> _Known | None:
        """Who calls, if the same was shown before."""
        given = ctx.metadata.getall("authorization", ())
        known = self._known.get(given[0]) if len(given) == 1 else None  # type: ignore[arg-type]  # bytes are no key
        if known is None:
            return None
        expires = known.identity.expires
        if expires is not None and expires <= self._clock():
            return None
        del ctx.metadata["authorization"]
        return known

    async def _identity(self, ctx: Context) -> Identity | None:
        """Who calls. A token that is given counts alone: a wrong one is not mended by more."""
        given = ctx.metadata.popall("authorization", [])
        if given:
            text = given[0]
            if len(given) > 1 or not isinstance(text, str):
                return None
            scheme, _, token = text.partition(" ")
            if scheme.lower() != "bearer":
                return None
            if self._verifier is not None and not token.startswith("sk_"):
                return await self._verifier.holder(token)
            holder = self.rules.token_holder(token, self._clock())
            if holder is None and await self._caught_up():
                # Made a moment ago, and used at once.
                holder = self.rules.token_holder(token, self._clock())
            if holder is not None and scheme == "Bearer":  # one way to write it: one entry each
                self._known[text] = _Known(holder, self.rules.grants_of(holder))
            return holder
        rules = self.rules
        if rules.certificates:
            for name in _names_in(ctx.peer_certificate):
                if name in rules.certificates:
                    return Identity(f"cert:{name}", rules.certificates[name])
        if rules.peers:
            uid = ctx.peer_uid
            if uid is not None and uid in rules.peers:
                return Identity(f"uid:{uid}", rules.peers[uid])
        return None

    # ---- live ----

    async def watch(self) -> None:
        """Apply every change of the file, and end what has expired, until cancelled."""
        while True:
            try:
                await self._stirred()
                await self._look()
            except Exception:  # one fault must not end the watching
                log.exception("fault in watching the rules of access")
                await asyncio.sleep(_LOOK_EVERY)

    async def _stirred(self) -> None:
        """Wait until there is something to do. By timers alone: a task that looked ten times a
        second would be most of what a server without calls is busy with."""
        loop = asyncio.get_running_loop()
        due: asyncio.Future[None] = loop.create_future()

        def look() -> None:
            try:
                if due.done():
                    return
                if self._changed() or self._clock() >= self._next_expiry:
                    due.set_result(None)
                else:
                    loop.call_later(_LOOK_EVERY, look)
            except Exception as fault:  # for `watch` to tell
                due.set_exception(fault)

        loop.call_later(_LOOK_EVERY, look)
        await due

    def _changed(self) -> bool:
        stamp = self._read_stamp()
        return stamp != self._stamp and stamp[1:2] != (0,)

    async def _look(self) -> None:
        if not await self._caught_up() and self._clock() >= self._next_expiry:
            self._review()

    async def _caught_up(self) -> bool:
        """Read the file again if it has changed; whether it had. One reading serves all who ask.

        An empty one is about to be written: read now, it would take everybody's access away.
        """
        if self._changed():
            self._stamp = self._read_stamp()  # before reading: what does not load is told once
            self._reading = asyncio.create_task(self._reload())
        reading = self._reading
        if reading is None:
            return False
        try:
            await asyncio.shield(reading)
        finally:
            if reading.done() and self._reading is reading:
                self._reading = None
        return True

    async def _reload(self) -> None:
        assert self._path is not None
        try:
            if sum(self._stamp[1:2]) <= _AT_ONCE:
                self.apply(read_rules(self._path))
            else:
                self.apply(await asyncio.to_thread(read_rules, self._path))
        except StreamkitError as error:
            log.warning("keeping the former rules of access: %s", error)
        else:
            log.info("read the rules of access again from %s", self._path)

    def apply(self, rules: Rules) -> None:
        """Put new rules in force: every live call is decided again, at once."""
        former, self.rules = self.rules, rules
        self._known.clear()
        try:
            self._verifier = self._make_verifier(former)
        except StreamkitError:
            self.rules = former
            raise
        self._review(reissued=former.jwt != rules.jwt)

    def _review(self, *, reissued: bool = False) -> None:
        """Decide every live call again; `reissued`: signed tokens are believed on other terms."""
        now = self._clock()
        self._next_expiry = float("inf")
        for permit in list(self._live):
            held = self.rules.still(permit.identity, now)
            if reissued and permit.identity.name.startswith("jwt:"):
                held = None
            permit.review(held, self.rules.grants_of(held) if held is not None else None, now)
            expires = permit.identity.expires
            if expires is not None and expires > now:
                self._next_expiry = min(self._next_expiry, expires)

    def _make_verifier(self, former: Rules | None) -> JwtVerifier | None:
        if former is not None and former.jwt == self.rules.jwt:
            return self._verifier
        return None if self.rules.jwt is None else JwtVerifier(self.rules.jwt)

    def _read_stamp(self) -> tuple[int, ...]:
        if self._path is None:
            return ()
        try:
            state = os.stat(self._path)
        except OSError:
            return ()  # replaced just now, or gone: the rules stay
        return state.st_mtime_ns, state.st_size, state.st_ino, state.st_mode

    async def close(self) -> None:
        """End what is on its way."""
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._verifier is not None:
            await self._verifier.close()


def begin_gate(
    resources: AsyncExitStack,
    source: str | os.PathLike[str] | Rules,
    open_to: Mapping[str, frozenset[str]],
) -> Gate:
    """Return a gate that watches its file until the resources are closed. Raises as Gate."""
    gate = Gate(source, open_to=open_to)
    resources.push_async_callback(gate.close)
    watch = asyncio.create_task(gate.watch(), name="streamkit access")
    resources.push_async_callback(ended, watch)
    return gate


def _names_in(certificate: dict[str, object] | None) -> list[str]:
    """The subject's alternative names; the common name is nobody's identity."""
    names = (certificate or {}).get("subjectAltName", ())
    assert isinstance(names, tuple)
    return [value for _, value in names]
