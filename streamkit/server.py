"""The server: start -> serve -> drain -> close.

async with Server(journal="events.db", port=50051) as server:
    await server.serve()                 # until SIGTERM or SIGINT
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from ssl import SSLContext
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from streamkit import tracing
from streamkit.access.rules import Rules
from streamkit.background import Companions, place_of
from streamkit.config import DoorLimits, JournalOptions, QueryLimits, TransportLimits
from streamkit.database import Databases, SqliteSource, sources_of
from streamkit.errors import InvalidArgumentError, PreconditionError, StreamkitError
from streamkit.handlers import (
    AdminHandler,
    HealthHandler,
    ProducerHandler,
    ReflectionAlphaHandler,
    ReflectionHandler,
    StreamService,
)
from streamkit.handlers.colleagues import Colleagues
from streamkit.handlers.journal_health import watch_journal
from streamkit.interceptors.calls import Calls
from streamkit.interceptors.observing import begin_access_log, begin_metrics, new_metrics
from streamkit.journal import Journal, opened_journal
from streamkit.listening import answers, explained, in_use
from streamkit.methods import check_covered
from streamkit.process import dedicate_process, first, signals
from streamkit.rights import STORE
from streamkit.terms import DEFAULT_PORT
from streamkit.transport import (
    Check,
    Context,
    Door,
    GrpcServer,
    Servable,
    ServerInterceptor,
    Service,
    run,
)
from streamkit.transport.grpc.deadline import checked_seconds
from streamkit.transport.server.servables import descriptors_of, opened_methods, services_of

if TYPE_CHECKING:
    from streamkit.doors.page.page import Page
    from streamkit.doors.page.sessions import Logins, Sessions

__all__ = ["Server"]

Lifespan = Callable[["Server"], AbstractAsyncContextManager[Any]]
Background = Callable[[], Coroutine[Any, Any, object]]

_ANYWHERE = ("0.0.0.0", "::", "")
"""Addresses that are no name of a server."""

_FOREVER = 1e6  # seconds: a time that never ends, for clocks
_LARGEST_REQUEST = 4 * 1024 * 1024 - 4096
"""A stock client refuses 4 MiB of what fitted into a request: time and sequence are added."""


class Server:
    """A gRPC server of streamkit's services, of your own, or of both.

    With a `journal` (a path, a URL, ":memory:" or an open Journal, which stays yours to close) the
    four streams, their write side and the admin service are mounted, and `handlers` beside them.
    One at postgresql:// or nats:// is shared by several servers; `data` is the folder for this
    one's copy. Without a journal only `handlers` are mounted, among which may be single ones of
    ours, and `databases` is refused (InvalidArgumentError). Health and reflection are always there;
    reflection describes services that `streamkit gen` generated, and those of `descriptor_sets`.

    With `access`, the path of an access file or rules, every call needs an identity and a role
    that allows it; the file is read again when it changes. Without it everybody may do everything.

    `check` is called with every request message before its handler; a ValueError that it raises
    (pydantic's, too) is INVALID_ARGUMENT with the violations of fields.

    `access_log`, a path or "-" for standard error, gets a line of JSON for each call that ends, and
    every `access_log_every` seconds one for each that still runs.

    `metrics`, "host:port", is where Prometheus reads figures at /metrics: they name methods, never
    a topic, job or client, and everybody who can connect may read them.

    `lifespan(server)` gives an async context around the time in which calls come: entered when the
    journal is open and before anybody can connect, left after the last call. Its value is `state`
    of every handler's `context()`. Each function of `background` runs beside the calls, as does
    what `spawn` is given; when one fails, the server logs where and ends.

    It listens on `host` and `port` (0: any free one), on the unix socket `path`, or by `listener`,
    a socket that listens already and stays yours; with None as port nowhere, where only
    `streamkit.asgi` brings it calls. Use it as a context manager, or call `serve()`,
    or `run()` where there is no event loop yet.
    """

    def __init__(
        self,
        handlers: Iterable[Servable] = (),
        *,
        journal: Journal | str | os.PathLike[str] | None = None,
        data: str | os.PathLike[str] = "",
        databases: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        port: int | None = DEFAULT_PORT,
        path: str | os.PathLike[str] | None = None,
        listener: socket.socket | None = None,
        ssl: SSLContext | None = None,
        limits: TransportLimits | None = None,
        query_limits: QueryLimits | None = None,
        journal_options: JournalOptions | None = None,
        interceptors: Sequence[ServerInterceptor] = (),
        check: Check | None = None,
        access: str | os.PathLike[str] | Rules | None = None,
        access_log: str | os.PathLike[str] | None = None,
        access_log_every: float | None = None,
        metrics: str | None = None,
        descriptor_sets: Iterable[bytes] = (),
        web: bool = False,
        allow_origins: Iterable[str] = (),
        allow_hosts: Iterable[str] = (),
        grace: float = 5.0,
        lifespan: Lifespan | None = None,
        background: Iterable[Background] = (),
    ) -> None:
        handlers, background = tuple(handlers), tuple(background)
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        if databases and journal is None:
            raise InvalidArgumentError(
                "databases: they are served together with a journal",
                hint='give one too: journal=":memory:" leaves nothing behind',
            )
        self._handlers = handlers
        self._store, self._data = journal, data
        self._database_urls = dict(databases or {})
        self._host = host
        self._port = port
        self._path = None if path is None else os.fspath(path)
        self._listener = listener
        self._ssl = ssl
        self._limits = limits or TransportLimits(max_message=_LARGEST_REQUEST)
        self._query_limits = query_limits or QueryLimits()
        self._journal_options = journal_options or JournalOptions()
        self._interceptors = tuple(interceptors)
        self._check = check
        self._access = access
        self._access_log, self._access_log_every = access_log, access_log_every
        self._metrics = metrics
        self.metrics_port = 0
        """Where /metrics is, once started; 0 where nobody asked for it."""
        self.calls = Calls()
        """The calls that run now."""
        self._descriptor_sets = tuple(descriptor_sets)
        self._web = web
        self._origins = tuple(allow_origins)
        self._hosts = tuple(allow_hosts)
        self._page: Page | None = None
        self._own_sessions: Sessions | None = None
        seconds = checked_seconds(grace, "grace")
        self.grace = _FOREVER if seconds is None else seconds
        """Seconds that calls have to end when it stops."""
        self._lifespan = lifespan
        self._background = background
        self._companions = Companions(self._on_crash)
        self._ending: asyncio.Task[None] | None = None
        self._state: Any = None
        self._health = HealthHandler()
        self._resources: AsyncExitStack | None = None
        self._grpc: GrpcServer | None = None
        self.databases: Databases | None = None
        self._stopped = asyncio.Event()
        self.draining = False
        """Whether the server is on its way down and takes no new calls."""
        self.on_drain: Callable[[], None] = lambda: None
        """Called when that begins."""
        self.journal: Journal | None = None
        """The journal that is served, while the server runs."""
        self.team: Colleagues | None = None
        self.logins: Logins | None = None
        """Set before the start where several processes are one server: the others, and where the
        page's logins are kept."""
        self.answers: dict[str, Callable[[Any], Any]] = {}
        """What the others of the team may ask this one, by name."""

    def configure(self, **settings: Any) -> None:
        """Change what the server was made with, by the names of its arguments, before it starts."""
        if self._resources is not None:
            raise PreconditionError("this server was started before; make another one")
        health = self._health
        Server.__init__(self, **(self._arguments | settings))
        self._health = health

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the server was made with, by the names of its arguments."""
        return MappingProxyType(self._arguments)

    # ---- the life of a server ----

    async def start(self) -> None:
        """Open everything and listen.

        Raises StoreError for a store that cannot be opened and ConnectError for an address that
        cannot be listened on; nothing stays open then. What goes wrong in the lifespan is a
        PreconditionError, if it is no error of ours.
        """
        if self._resources is not None:
            raise PreconditionError("this server was started before; make another one")
        if self.team is not None:
            self.calls.number(self.team.calls_after, self.team.calls_step)
        async with AsyncExitStack() as resources:
            if self._access_log is not None:
                begin_access_log(resources, self.calls, self._access_log, self._access_log_every)
            interceptors = [*self._gates(resources), *tracing.of_server(), *self._interceptors]
            handlers = [*await self._open_ours(resources), *self._handlers]
            for service in services_of(handlers):
                self._health.set_serving(True, service)
            handlers.append(self._health)
            described = (*self._descriptor_sets, *descriptors_of(self._handlers))
            reflection = ReflectionHandler(described, services=services_of(handlers))
            handlers += [reflection, ReflectionAlphaHandler(reflection)]
            check_covered(path for handler in handlers for path in handler.__mapping__())
            if self._web:
                self._page = self._new_page(described, services_of(handlers))
            await self._enter_lifespan(resources)
            self._grpc = GrpcServer(
                handlers,
                limits=self._limits,
                interceptors=interceptors,
                check=self._check,
                ssl=self._ssl,
                on_drain=self._on_drain,
                on_call=self._begin_call,
                door=self._door if self._web or self._origins else None,
            )
            resources.push_async_callback(self._grpc.close)
            if self._metrics is not None and self.team is not None:
                figures = new_metrics(self, self._grpc)
                self.answers["figures"] = lambda _: figures.tally()
            elif self._metrics is not None:
                self.metrics_port = await begin_metrics(resources, self._metrics, self, self._grpc)
            await self._listen(self._grpc)
            resources.push_async_callback(self._companions.stop)
            for work in self._background:
                self.spawn(work())
            if self.databases is not None:
                self.databases.prepare()
            self._companions.check()
            self._resources = resources.pop_all()

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something beside the calls until the server stops. When it fails, the server ends."""
        self._companions.start(work)

    def _on_crash(self) -> None:
        if self._resources is not None and not self.draining and self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self.stop())

    def _begin_call(self, context: Context) -> None:
        context.state = self._state
        self.calls.begin(context)

    async def _enter_lifespan(self, resources: AsyncExitStack) -> None:
        resources.push_async_callback(self._companions.stop)  # what the lifespan itself spawns
        if self._lifespan is None:
            return
        try:
            self._state = await resources.enter_async_context(self._lifespan(self))
        except StreamkitError:
            raise
        except Exception as error:
            raise PreconditionError(f"the lifespan cannot begin: {place_of(error)}") from error

    def _door(self, service: Service, *, mounted: bool = False) -> Door:
        from streamkit.doors.door import WebDoor

        hosts = () if self._host in _ANYWHERE else (self._host,)
        return WebDoor(
            service,
            origins=self._origins,
            hosts=(*hosts, *self._hosts),
            page=None if mounted else self._page,
            mounted=mounted,
        )

    def mounted(self) -> tuple[Door, TransportLimits]:
        """The door for an application that this server is a part of, and what bounds its requests.
        PreconditionError for a server that does not run."""
        if self._grpc is None or self._resources is None or self._stopped.is_set():
            raise PreconditionError("the server does not run")
        return self._door(self._grpc.service, mounted=True), self._limits

    def renew(self) -> None:
        """Let a server that was stopped start once more; one that never ran stays as it is."""
        if self._stopped.is_set():
            health = self._health
            Server.__init__(self, **self._arguments)
            self._health = health

    def _new_page(self, described: Sequence[bytes], services: Iterable[str]) -> Page:
        from streamkit.doors.page.page import new_page
        from streamkit.doors.page.sessions import OwnLogins

        logins = self.logins or OwnLogins(self.sessions)
        return new_page(described, services, logins, needs_token=self._access is not None)

    @property
    def sessions(self) -> Sessions:
        """Who has logged in on the page; kept beside the store, but for those with a token."""
        if self._own_sessions is None:
            from streamkit.doors.page.sessions import Sessions

            store = None if self._access is not None else getattr(self.journal, "path", None)
            file = "" if store is None else f"{store}.logins"
            self._own_sessions = Sessions(DoorLimits(), file=file)
        return self._own_sessions

    @property
    def page_address(self) -> str:
        """Where the page is opened in a browser; without rules of access with a code that is good
        once. Empty for a server without a page, or on a unix socket only."""
        if not self._web or self._path is not None or self._silent:
            return ""
        scheme = "http" if self._ssl is None else "https"
        code = "" if self._access is not None else f"?code={self.sessions.new_code()}"
        return f"{scheme}://{self.address}/{code}"

    async def stop(self, grace: float | None = None) -> None:
        """Take no new calls, give the live ones `grace` seconds to end, then close everything.

        Live streams get a final status that tells a resuming client to come back. May be called
        more than once; cancelling it closes at once.
        """
        if self._resources is None or self._grpc is None:
            return
        ending = self._ending
        if ending is not None and ending is not asyncio.current_task():
            await asyncio.shield(ending)
            return
        try:
            await self._grpc.drain(self.grace if grace is None else grace)
        finally:
            await self._resources.aclose()
            self.journal = None
            self._stopped.set()

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, or until `stop()` is called elsewhere.

        The first signal drains, a second one ends at once. Starts the server unless that was done.
        Signals are taken in the main thread only. Raises InternalError when something in the
        background failed, and StoreError when the journal ended by itself.
        """
        asked, forced = asyncio.Event(), asyncio.Event()
        with signals(lambda: forced.set() if asked.is_set() else asked.set()):
            if self._resources is None:
                await self.start()
            await first(asked.wait(), self._stopped.wait())
            await first(self.stop(), forced.wait())
        self._companions.check()

    def run(self) -> None:
        """`serve()` in an event loop of its own, on uvloop if that is installed."""
        dedicate_process()
        run(self.serve())

    async def __aenter__(self) -> Self:
        if self._resources is None:
            await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()
        if error is None:
            self._companions.check()

    # ---- what it is ----

    @property
    def address(self) -> str:
        """Where clients connect: "host:port" or "unix:/path"; "" where it listens nowhere."""
        if self._path is not None:
            return f"unix:{self._path}"
        if self._silent:
            return ""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.port}"

    @property
    def port(self) -> int:
        """The port, also where 0 was asked for. Known once started; 0 where there is none."""
        if self._grpc is not None and not self._silent and self._grpc.port:
            return self._grpc.port
        return self._port or 0

    @property
    def wanted(self) -> tuple[str | None, int]:
        """The host and port that were asked for; no host: a unix socket."""
        return (self._host if self._path is None else None), self._port or 0

    @property
    def _silent(self) -> bool:
        return self._port is None and self._path is None and self._listener is None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return 0 if self._grpc is None else self._grpc.connections

    @property
    def health(self) -> HealthHandler:
        """The health service, to say more about services of your own."""
        return self._health

    # ---- parts ----

    def _gates(self, resources: AsyncExitStack) -> list[ServerInterceptor]:
        """What decides about access, before anything else; nothing where nobody asked for it."""
        if self._access is None:
            return []
        from streamkit.access.gate import begin_gate

        if STORE in self._database_urls:
            raise InvalidArgumentError(
                f"databases: {STORE!r} is how the server's own store is called in roles",
                hint="choose another name",
            )
        return [begin_gate(resources, self._access, opened_methods(self._handlers))]

    def _on_drain(self) -> None:
        self.draining = True
        self._health.leave()
        self.on_drain()

    async def _open_ours(self, resources: AsyncExitStack) -> list[Servable]:
        """Open the journal and the databases; return the handlers that serve them."""
        if self._store is None:
            return []
        began = time.monotonic()
        journal = await resources.enter_async_context(
            opened_journal(self._store, self._journal_options, self._data)
        )
        path = getattr(journal, "path", None)  # only an engine with a file has one
        sources = sources_of(path, self._database_urls, self._query_limits)
        databases = Databases(sources, self._query_limits)
        resources.push_async_callback(databases.close)
        self.databases = databases
        watch_journal(self._health, journal, databases)
        journal.on_lost = self._companions.fail  # who is connected is told to go elsewhere
        for name in self._database_urls:
            # A wrong path is told at once. A database elsewhere may be away and come back.
            if isinstance(databases.source(name), SqliteSource):
                await databases.tables(name)
        self.journal = journal
        admin = AdminHandler(
            journal=journal,
            databases=databases,
            calls=self.calls,
            uptime=lambda: time.monotonic() - began,
            connections=lambda: self.connections,
            draining=lambda: self.draining,
            colleagues=self.team,
            number=0 if self.team is None else self.team.number,
        )
        self.answers |= admin.answers
        return [
            StreamService(journal=journal, databases=databases),
            ProducerHandler(journal=journal, options=self._journal_options),
            admin,
        ]

    async def _listen(self, grpc: GrpcServer) -> None:
        if self._listener is not None:
            await grpc.start(listener=self._listener)
            return
        if self._silent:
            return
        if self._path is None:
            with explained(f"{self._host}:{self._port}"):
                await grpc.start(host=self._host, port=self._port)
            return
        # The loop removes a socket that is there without asking whether somebody listens on it.
        if await asyncio.to_thread(answers, self._path):
            raise in_use(f"unix:{self._path}")
        with explained(f"unix:{self._path}"):
            await grpc.start(path=self._path)
