"""The door for everything that is no gRPC: which request is whose."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Any

from streamkit.config import DoorLimits
from streamkit.doors.connect import ConnectStream, envelopes, error_json, http_status, read_connect
from streamkit.doors.exchange import WebExchange
from streamkit.doors.grpc_web import GrpcWebExchange, refusal, speaks_grpc_web
from streamkit.doors.http.cors import Cors
from streamkit.doors.http.guard import Guard
from streamkit.doors.http.http1 import Http1
from streamkit.doors.http.outbox import Outbox
from streamkit.doors.http.requests import WebRequest, answer
from streamkit.doors.own import OwnEvents
from streamkit.doors.page.download import download_of
from streamkit.doors.page.page import Page
from streamkit.doors.sse import EventDoor
from streamkit.doors.transcode import Shared
from streamkit.errors import Status, StreamkitError
from streamkit.transport import Guest, Service, Visit, WebCall
from streamkit.transport.grpc.metadata import Headers
from streamkit.transport.log import LOG
from streamkit.transport.server.outcome import Outcome, outcome_of

__all__ = ["WebDoor"]


class WebDoor:
    """Answers gRPC-Web, Connect and server-sent events for the methods of one server, and with a
    `page` the page."""

    def __init__(
        self,
        service: Service,
        *,
        origins: Iterable[str] = (),
        hosts: Iterable[str] = (),
        page: Page | None = None,
        limits: DoorLimits | None = None,
        mounted: bool = False,
    ) -> None:
        """`origins` are those of foreign pages that may use it, `hosts` the names under which the
        server is reached. `mounted`: it is a part of an application, whose own pages may use it,
        and which knows who looks at them. InvalidArgumentError for what is no origin."""
        self._service = service
        self._limits = DoorLimits() if limits is None else limits
        self._cors = Cors(origins)
        self._events = EventDoor(service.codec, self._limits)
        self._own = OwnEvents(service, self._limits)
        self._guard = Guard(hosts, self._cors)
        self._page = page
        self._mounted = mounted
        self._outbox = Outbox()
        self._texts = Shared(b64encode, self._limits)
        self._envelopes: dict[str, Shared[bytes]] = {}

    def guest(self, on_made: Callable[[Guest], bool], on_lost: Callable[[Guest], None]) -> Guest:
        """As Door."""
        return Http1(self.accept, self._service.limits, self._outbox, on_made, on_lost)

    def accept(self, call: WebCall, done: Callable[[], None]) -> Visit:
        """As Door."""
        return _Visit(self, call, done)

    async def answer(self, call: WebCall, visit: _Visit) -> None:
        """Answer one request, whatever it is."""
        origin = dict(call.headers).get("origin", "")
        cors = self._cors.headers(origin)
        try:
            await self._route(WebRequest.of(call), origin, cors, visit)
        except StreamkitError as error:
            _refuse(call, outcome_of(error), cors)
        except ValueError as error:  # of a header that is none
            _refuse(call, Outcome(Status.INVALID_ARGUMENT, str(error)), cors)

    async def _route(self, request: WebRequest, origin: str, cors: Headers, visit: _Visit) -> None:
        call = request.call
        refused = self._guard.refusal(request)
        if refused is not None:
            answer(call, *refused)
        elif call.method == "OPTIONS":
            allowed = self._cors.preflight(origin) if origin else None
            answer(call, 403 if allowed is None else 204, "", *(allowed or ()))
        elif self._page is not None and await self._page.answer(request):
            return
        elif not await self._known(request, origin):
            text = json.dumps({"code": "unauthenticated", "message": "log in first"}) + "\n"
            answer(call, 401, text, *cors, kind="application/json")
        elif (download := self._download(request)) is not None:
            await visit.run(download)
        elif request.path in self._own:
            await self._own.answer(request, cors, visit.run)
        elif request.path.startswith("/v1/"):
            await self._events.answer(request, cors, visit.run)
        elif call.method != "POST":
            answer(call, 404 if call.method in ("GET", "HEAD") else 405, "nothing is here\n", *cors)
        elif speaks_grpc_web(request.content_type):
            await self._grpc_web(request, _with(call, cors), visit)
        else:
            await self._connect(request, _with(call, cors), cors, visit)

    async def _known(self, request: WebRequest, origin: str) -> bool:
        """Let a page of ours in by its login only, whose token goes on with the call; whoever is
        no browser is asked what a client of gRPC is. The guard has kept out other pages."""
        if self._mounted:
            return True
        session = None if self._page is None else await self._page.session_of(request)
        if session is not None and "authorization" not in request.headers:
            if session.token:
                request.call.headers.append(("authorization", f"Bearer {session.token}"))
            return True
        named = origin in self._cors.origins or "authorization" in request.headers
        return named or not self._guard.from_browser(request)

    def _download(self, request: WebRequest) -> WebExchange | None:
        return None if self._page is None else download_of(request, self._service.codec)

    async def _grpc_web(self, request: WebRequest, call: WebCall, visit: _Visit) -> None:
        service = self._service
        method = service.mapping.get(request.path)
        try:
            exchange = await GrpcWebExchange.read(
                call,
                request.path,
                service.codec,
                service.limits,
                many=method is not None and method.cardinality.client_streaming,
                most=self._limits.requests,
            )
        except (StreamkitError, ValueError) as error:
            outcome = (
                outcome_of(error)
                if isinstance(error, StreamkitError)
                else Outcome(Status.INVALID_ARGUMENT, str(error))
            )
            call.start(200, refusal(outcome.status, outcome.message), length=0)
            call.end()
            return
        if exchange.text:
            exchange.as_text = self._texts
        await visit.run(exchange)

    async def _connect(
        self, request: WebRequest, call: WebCall, cors: Headers, visit: _Visit
    ) -> None:
        service = self._service
        method = service.mapping.get(request.path)
        if method is None:
            answer(call, 404, f"there is no method {request.path[:200]}\n")
            return
        exchange = await read_connect(
            call, method, request.path, service.codec, service.limits, self._limits.requests
        )
        if exchange is None:
            streams = method.cardinality.server_streaming or method.cardinality.client_streaming
            kind = "application/connect+json" if streams else "application/json"
            answer(call, 415, f"the content-type of this method is {kind}\n", ("accept-post", kind))
            return
        if isinstance(exchange, ConnectStream):
            exchange.shared = self._shared_envelopes(request.path, method.reply_type)
        await visit.run(exchange)

    def _shared_envelopes(self, path: str, reply_type: type[Any]) -> Shared[bytes]:
        shared = self._envelopes.get(path)
        if shared is None:
            shared = self._envelopes[path] = Shared(envelopes(reply_type), self._limits)
        return shared

    def start(self, exchange: WebExchange, done: Callable[[], None]) -> Visit | None:
        """Start a call of a method of the server."""
        return self._service.start(exchange, done)


class _Visit:
    """A request while it is answered."""

    def __init__(self, door: WebDoor, call: WebCall, done: Callable[[], None]) -> None:
        self._door = door
        self._call = call
        self._done = done
        self._calls: list[Visit] = []
        self._verdict: Outcome | None = None
        loop = asyncio.get_running_loop()
        self.task: asyncio.Task[None] | None = loop.create_task(door.answer(call, self))
        self.task.add_done_callback(self._ended)

    def run(self, exchange: WebExchange) -> asyncio.Future[None]:
        """Start a call; the future is done when that is over."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done() -> None:
            if not over.done():
                over.set_result(None)

        call = self._door.start(exchange, done)
        if call is not None:
            self._calls.append(call)
            over.add_done_callback(lambda _: self._calls.remove(call))
        return over

    def end(self, verdict: Outcome | None) -> None:
        """As Visit."""
        for call in list(self._calls):
            call.end(verdict)
        if self.task is not None and (verdict is None or not self._calls):
            self.task.cancel()

    def drain(self, *, everything: bool) -> None:
        """As Visit."""
        for call in list(self._calls):
            call.drain(everything=everything)
        if everything and not self._calls and self.task is not None:
            self.task.cancel()

    def settle(self) -> None:
        """As Visit."""
        task = self.task
        if task is not None and task.done():
            task.remove_done_callback(self._ended)
            self._ended(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and task.exception() is not None:
            LOG.warning("fault at a door", repr(task.exception()), task.exception())
        self._done()


class _With:
    """A WebCall whose response has some headers more."""

    def __init__(self, call: WebCall, headers: Headers) -> None:
        self._call = call
        self._more = headers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def start(self, status: int, headers: Headers, *, length: int | None = None) -> None:
        """As WebCall."""
        self._call.start(status, [*headers, *self._more], length=length)


def _with(call: WebCall, headers: Headers) -> WebCall:
    return _With(call, headers) if headers else call


def _refuse(call: WebCall, outcome: Outcome, cors: Headers) -> None:
    """Answer with an error in JSON where nothing was answered yet."""
    status = 408 if outcome.status is Status.DEADLINE_EXCEEDED else http_status(outcome.status)
    text = json.dumps(error_json(outcome)) + "\n"
    answer(call, status, text, *cors, kind="application/json")
