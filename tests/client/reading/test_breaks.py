"""Every ending that HTTP/2 and gRPC know, in every moment of a stream, for every kind of read.

A raw server breaks the first attempt and serves the others as their requests ask: whatever the
ending, each record is there once, or the error says why not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import betterproto
import pytest
from hyperframe.frame import DataFrame

from streamkit.client import AsyncClient, Reconnect, ResumingCall, Retry
from streamkit.client.endings import ENDINGS, STATUSES, Follows
from streamkit.codec import StreamkitCodec, decode
from streamkit.errors import ConnectError, Status, StreamkitError
from streamkit.generated.streamservice import (
    JobProgress,
    JobRequest,
    LogEntry,
    LogRequest,
    Position,
    QueryResult,
    Row,
    SubscribeRequest,
    Update,
)
from streamkit.transport import Channel
from tests.client.servers import QUICK
from tests.transport.client.raw_server import OK_HEADERS, Peer, message, raw_server

COUNT = 4
FIRST = 2
"""Records that come before the break, where any do."""

PLACE = [("streamkit-epoch", "e1"), ("streamkit-position", "0")]

RESETS = [
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT"),
    *("STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR"),
    *("CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
]

Break = Callable[[Peer, int], object]


def _reset(code: int) -> Break:
    return lambda peer, stream: peer.send(peer.reset(stream, code))


def _no_trailers(peer: Peer, stream: int) -> None:
    peer.send(peer.data(stream, b"", end=True))


def _no_status(peer: Peer, stream: int) -> None:
    peer.send(peer.headers(stream, [("x-proxy", "gone")], end=True))


def _left_behind(peer: Peer, stream: int) -> None:
    peer.send(peer.go_away(max(0, stream - 2)))
    peer.close()


def _gone_with_an_error(peer: Peer, stream: int) -> None:
    peer.send(peer.go_away(stream, 2, b"restart"))
    peer.abort()


BREAKS: dict[str, Break] = {
    **{f"reset {name}": _reset(code) for code, name in enumerate(RESETS)},
    "reset code 77": _reset(77),
    "no trailers": _no_trailers,
    "trailers without a status": _no_status,
    "goaway, left behind": _left_behind,
    "goaway, error": _gone_with_an_error,
    "connection aborted": lambda peer, stream: peer.abort(),
    "connection closed": lambda peer, stream: peer.close(),
}

MOMENTS = ["before headers", "after headers", "between", "inside", "after the last"]


class Served:
    """One kind of read: how it is asked for, answered and read."""

    def __init__(
        self,
        read: Callable[[str, list[int]], Awaitable[object]],
        start: Callable[[bytes], int],
        body: Callable[[int], bytes],
    ) -> None:
        self.read, self.start, self.body = read, start, body


@asynccontextmanager
async def _client(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address, backoff=QUICK) as client:
        yield client


async def _subscribe(address: str, got: list[int]) -> None:
    async with _client(address) as client, client.subscribe("a", start="all") as updates:
        async for update in updates:
            got.append(update.sequence)
            if update.sequence == COUNT:
                return


async def _logs(address: str, got: list[int]) -> None:
    async with _client(address) as client, client.logs("a", lines=COUNT) as entries:
        async for entry in entries:
            got.append(entry.sequence)  # noqa: PERF401  # kept when it ends by an error


async def _watch(address: str, got: list[int]) -> None:
    async with _client(address) as client, client.watch_job("a", start="all") as states:
        async for state in states:
            got.append(state.sequence)  # noqa: PERF401  # kept when it ends by an error


async def _own(address: str, got: list[int]) -> None:
    channel = Channel(address, codec=StreamkitCodec())
    try:
        async with ResumingCall(
            channel,
            "/shop.Orders/Watch",
            Position,
            Update,
            request_from=lambda number: Position(sequence=number or 0),
            position_of=lambda order: order.sequence,
            reconnect=Reconnect(lambda: Retry(QUICK)),
        ) as orders:
            async for order in orders:
                got.append(order.sequence)  # noqa: PERF401  # kept when it ends by an error
    finally:
        await channel.aclose()


async def _query(address: str, got: list[int]) -> None:
    async with _client(address) as client, client.query("select 1") as query:
        async for batch in query.batches():
            got.append(batch.batch_number)  # noqa: PERF401  # kept when it ends by an error


def _after(kind: type[Any]) -> Callable[[bytes], int]:
    def start(body: bytes) -> int:
        place = decode(kind, body).start
        if place is None or betterproto.which_one_of(place, "start")[0] != "after":
            return 0
        assert place.after.epoch == "e1"
        return int(place.after.sequence)

    return start


def _state(number: int) -> bytes:
    return bytes(JobProgress(sequence=number, status="completed" if number == COUNT else "running"))


def _batch(number: int) -> bytes:
    rows = [Row(columns={"n": str(number)})]
    return bytes(QueryResult(rows=rows, batch_number=number, is_last=number == COUNT))


KINDS = {
    "subscribe": Served(
        _subscribe, _after(SubscribeRequest), lambda n: bytes(Update(topic="a", sequence=n))
    ),
    "logs": Served(_logs, _after(LogRequest), lambda n: bytes(LogEntry(sequence=n))),
    "watch": Served(_watch, _after(JobRequest), _state),
    "own": Served(
        _own, lambda body: decode(Position, body).sequence, lambda n: bytes(Update(sequence=n))
    ),
    "query": Served(_query, lambda body: 0, _batch),
}


class Server:
    """Breaks the first attempt in a moment of it; serves the others."""

    def __init__(self, kind: Served, moment: str, ending: Break) -> None:
        self.kind, self.moment, self.ending = kind, moment, ending
        self.attempts = 0

    async def play(self, peer: Peer) -> None:
        await peer.greet()
        while True:
            stream = await peer.request()
            body = b"".join(
                frame.data
                for frame in peer.frames
                if isinstance(frame, DataFrame) and frame.stream_id == stream
            )
            self.attempts += 1
            start = self.kind.start(body[5:])
            if self.attempts == 1:
                self._break(peer, stream)
                continue
            bodies = [message(self.kind.body(n)) for n in range(start + 1, COUNT + 1)]
            peer.send(
                peer.headers(stream, [*OK_HEADERS, *PLACE]),
                *(peer.data(stream, data) for data in bodies),
                peer.trailers(stream),
            )

    def _break(self, peer: Peer, stream: int) -> None:
        moment = self.moment
        if moment != "before headers":
            peer.send(peer.headers(stream, [*OK_HEADERS, *PLACE]))
        count = {"between": FIRST, "inside": FIRST, "after the last": COUNT}.get(moment, 0)
        for number in range(1, count + 1):
            peer.send(peer.data(stream, message(self.kind.body(number))))
        if moment == "inside":
            peer.send(peer.data(stream, message(self.kind.body(FIRST + 1))[:6]))
        self.ending(peer, stream)


async def _outcome(kind: str, moment: str, ending: Break) -> tuple[list[int], Any, int]:
    served = KINDS[kind]
    server = Server(served, moment, ending)
    got: list[int] = []
    error: StreamkitError | None = None
    async with raw_server(server.play) as raw:
        try:
            async with asyncio.timeout(10):
                await served.read(raw.target, got)
        except StreamkitError as failure:
            error = failure
    return got, error, server.attempts


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "query"])
async def test_what_broke_off_goes_on(kind: str, moment: str) -> None:
    wrong = {}
    for name, ending in BREAKS.items():
        got, error, attempts = await _outcome(kind, moment, ending)
        if moment == "before headers" and _doubtful(name, moment):
            right = error is not None and not got
        else:
            # A job's last state ends its stream, whatever comes after it.
            once = moment == "after the last" and kind in ("watch", "subscribe")
            right = got == [1, 2, 3, 4] and error is None and attempts == (1 if once else 2)
        if not right:
            wrong[name] = got, error, attempts
    assert wrong == {}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_query_is_made_again_until_it_has_begun_to_arrive(moment: str) -> None:
    wrong = {}
    for name, ending in BREAKS.items():
        got, error, attempts = await _outcome("query", moment, ending)
        if moment in ("before headers", "after headers"):
            # It counts as open with its first batch; doubtful endings before that are final.
            doubtful = _doubtful(name, moment)
            right = error is not None if doubtful else got == [1, 2, 3, 4] and attempts == 2
        elif moment == "after the last":
            right = got == [1, 2, 3, 4] and error is None and attempts == 1
        else:
            right = got == [1, 2] and isinstance(error, ConnectError) and attempts == 1
        if not right:
            wrong[name] = got, error, attempts
    assert wrong == {}


def _doubtful(name: str, moment: str) -> bool:
    """Whether a stream that never was open ends by this at once."""
    if moment == "before headers" and "trailers" in name:
        return True  # DATA before HEADERS, or HEADERS without :status: not HTTP
    row = name if name in ENDINGS else "reset"
    return name.startswith("reset") and ENDINGS[row][0] is Follows.DOUBTFUL


@pytest.mark.parametrize("kind", list(KINDS))
async def test_a_status_of_the_server_is_its_answer(kind: str) -> None:
    wrong = {}
    for status in Status:
        if status is Status.OK:
            continue

        def end(peer: Peer, stream: int, status: Status = status) -> None:
            peer.send(peer.trailers(stream, status.value, "as it is"))

        got, error, attempts = await _outcome(kind, "between", end)
        verdict = STATUSES.get(status, (Follows.FINAL, ""))[0]
        if kind == "query" or verdict is Follows.FINAL:
            right = got == [1, 2] and error is not None and error.status is status
            right = right and attempts == 1
        else:
            right = got == [1, 2, 3, 4] and error is None and attempts == 2
        if not right:
            wrong[status.name] = got, error, attempts
    assert wrong == {}


@pytest.mark.parametrize(
    ("http", "resumed"),
    [
        *((code, False) for code in (400, 401, 403, 404)),
        *((code, True) for code in (408, 429, 500, 502, 503, 504, 599)),
    ],
)
async def test_a_proxy_that_answers_for_a_lost_server_is_outlived(http: int, resumed: bool) -> None:
    """The stream was open, broke, and the first attempt to resume it meets the proxy's page."""
    attempts = 0

    async def play(peer: Peer) -> None:
        nonlocal attempts
        await peer.greet()
        while True:
            stream = await peer.request()
            attempts += 1
            if attempts == 2:
                page = [(":status", str(http)), ("content-type", "text/html")]
                peer.send(peer.headers(stream, page), peer.data(stream, b"<p>gone", end=True))
                continue
            peer.send(peer.headers(stream, [*OK_HEADERS, *PLACE]))
            for number in (1, 2) if attempts == 1 else (3, 4):
                peer.send(peer.data(stream, message(KINDS["subscribe"].body(number))))
            if attempts == 1:
                peer.send(peer.reset(stream, 2))

    got: list[int] = []
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(raw_server(play))
        if not resumed:
            stack.enter_context(pytest.raises(StreamkitError, match=f"HTTP status {http}"))
        await _subscribe(raw.target, got)
    assert got == ([1, 2, 3, 4] if resumed else [1, 2])
    assert attempts == (3 if resumed else 2)
