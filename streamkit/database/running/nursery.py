"""The processes in which statements run: a nursery that forks them, and what they do.

A library cannot be interrupted everywhere: one call of a function, the compilation of a statement,
an allocation go on when the query's time is over. A process can be ended, and its memory bounded.

The nursery is a small process with one thread that has loaded what queries need and never runs a
statement, so it always answers: it forks a child in a few milliseconds, ends one, and ends them
all with itself when its server is gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import pickle
import resource
import signal
import socket
import sys
import traceback
import warnings
from collections import deque
from contextlib import closing, suppress
from dataclasses import astuple
from importlib import import_module
from itertools import islice
from typing import Any

from streamkit.config import QueryLimits
from streamkit.database.base import Result, Source
from streamkit.database.encoding.pieces import count_of, pieces_of
from streamkit.database.running.parcels import (
    FORK,
    LENGTHS,
    LOAD,
    ORDER,
    Ended,
    Household,
    Parcel,
    Request,
    packed,
)
from streamkit.errors import CallCancelledError, InternalError, LimitError, StreamkitError

__all__ = ["main"]

_BESIDE = 128 << 20
"""Beside the memory of a statement: batches being encoded, libraries loaded late, stacks."""
_MAPPED = 1 << 30
"""Beside that: files that are mapped, which cost address space only."""
_MOST_VIEWS = 512
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the nursery on the socket whose number is the first argument."""
    # A signal for the whole group of processes is the server's: it lets its queries end first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # of threads beside a fork: libraries' own, idle ones
    _Nursery(socket.socket(fileno=int(sys.argv[1]))).run()


class _Nursery:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        signal.signal(signal.SIGCHLD, self._reap)

    def run(self) -> None:
        """Obey until the server closes its end, or dies."""
        while order := _exactly(self._control, ORDER.size):
            kind, number = ORDER.unpack(order)
            if kind == FORK:
                self._fork()
            elif kind == LOAD:
                self._load(_exactly(self._control, number).decode())
            elif number in self._children:
                os.kill(number, signal.SIGKILL)
        for child in tuple(self._children):
            os.kill(child, signal.SIGKILL)

    def _load(self, modules: str) -> None:
        for module in filter(None, modules.split("\n")):
            with suppress(Exception):  # what is missing a query tells
                import_module(module)
        gc.collect()
        gc.freeze()  # what is loaded now stays shared with the children

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        # Not reaped before it is known.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        parent = os.getpid()
        number = os.fork()
        if not number:
            self._control.close()
            theirs.close()
            _be_child(ours, parent)
        self._children.add(number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        ours.close()
        with suppress(OSError):  # the server is gone: the next order says so
            socket.send_fds(self._control, [ORDER.pack(FORK, number)], [theirs.fileno()])
        theirs.close()

    def _reap(self, *_: object) -> None:
        with suppress(ChildProcessError):  # no child is left
            while number := os.waitpid(-1, os.WNOHANG)[0]:
                self._children.discard(number)


class _Life:
    """A child's: requests, one after the other, until there are none."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._household: Household = pickle.loads(_received(server))
        size = self._household.limits.max_memory
        _limit_memory(size)
        self._enough = _held()[0] + size // 2
        """What allocators have kept of one statement's memory the next one lacks."""
        self._request = 0
        """The number of the one that is being answered."""
        self._result: Result | None = None
        self._cancelled = False

    def live(self) -> None:
        # Whatever arrives during a request is to cancel it; the signal says that it is there.
        signal.signal(signal.SIGIO, self._look)
        fcntl.fcntl(self._server, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(self._server, fcntl.F_GETFL)
        fcntl.fcntl(self._server, fcntl.F_SETFL, flags | os.O_ASYNC)
        while head := _exactly(self._server, LENGTHS.size):
            number, size = LENGTHS.unpack(head)
            if not size:
                continue  # a cancellation that came too late
            request = pickle.loads(_exactly(self._server, size))
            self._cancelled, self._request = False, number
            ended = self._answer(request)
            self._request = 0
            if _held()[0] > self._enough:
                ended = ended._replace(reusable=False)
            _send(self._server, ended)
            if not ended.reusable:
                break

    def _look(self, *_: object) -> None:
        with suppress(OSError):  # a server that is gone is noticed when it is written to
            if self._request:
                head = self._server.recv(LENGTHS.size, socket.MSG_DONTWAIT)
                if head and LENGTHS.unpack(head)[0] == self._request:
                    self._cancelled = True
                    if self._result is not None:
                        self._result.cancel()

    def _answer(self, request: Request) -> Ended:
        limits = self._household.limits
        try:
            source = self._household.sources[request.source]
            if request.kind == "tables":
                return Ended(answer=[astuple(table) for table in source.tables()])
            if request.kind == "describe":
                return Ended(answer=[astuple(column) for column in source.describe(request.plan)])
            return Ended(answer=self._run(source, request, limits))
        except StreamkitError as error:
            return Ended(error)
        except MemoryError:
            return Ended(_too_much(limits), reusable=False)
        except RuntimeError as error:
            if "new thread" in str(error):  # there is no memory for its stack
                return Ended(_too_much(limits), reusable=False)
            return self._fault()
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception:  # the server tells it, with the traceback
            return self._fault()

    @staticmethod
    def _fault() -> Ended:
        ours = InternalError("the query failed for a reason of the server's own")
        return Ended(ours, trace=traceback.format_exc(), reusable=False)

    def _run(self, source: Source, request: Request, limits: QueryLimits) -> Any:
        plan = request.plan
        result = source.open(plan.sql, plan.parameters, seconds=plan.seconds)
        try:
            self._result = result
            self._go_on()
            result.start()
            if request.kind == "count":
                return count_of(result)
            columns = plan.columns
            with closing(pieces_of(result, plan, limits)) as parts:
                for pieces, last in parts:
                    self._go_on()
                    _send(self._server, Parcel(result.columns if columns else None, pieces, last))
                    columns = False
            if columns:
                _send(self._server, Parcel(result.columns, [], False))
        finally:
            self._result = None
            result.close()
        return None

    def _go_on(self) -> None:
        if self._cancelled:
            raise CallCancelledError("the query was cancelled")


def _too_much(limits: QueryLimits) -> LimitError:
    return LimitError(
        f"the query needs more than {limits.max_memory >> 20} MiB of memory, the server's limit"
    )


def _be_child(server: socket.socket, parent: int) -> None:
    try:
        _die_with(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        _Life(server).live()
    finally:
        # Nothing of the nursery's is this process's to clean up, and nobody asks how it ended.
        os._exit(os.EX_OK)


def _die_with(parent: int) -> None:
    """Also when the nursery is killed. Only Linux knows how; elsewhere its own end must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _limit_memory(size: int) -> None:
    """Bound what this process may have beyond what it has now."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    data, space = _held()
    if space:
        with suppress(OSError, ValueError):  # a lower bound is there already
            data += size + _BESIDE
            resource.setrlimit(resource.RLIMIT_DATA, (data, data))
            space += size + _BESIDE + _MAPPED
            resource.setrlimit(resource.RLIMIT_AS, (space, space))


def _held() -> tuple[int, int]:
    """Bytes of memory of this process's own, and of its address space; 0 without a /proc."""
    with suppress(OSError), open("/proc/self/statm") as file:  # not every system has it
        pages = file.read().split()
        return int(pages[5]) * resource.getpagesize(), int(pages[0]) * resource.getpagesize()
    return 0, 0


def _send(server: socket.socket, told: Parcel | Ended) -> None:
    """Send all of it; a server that does not read stops the statement here."""
    views = deque(packed(told))
    while views:
        sent = server.sendmsg(list(islice(views, _MOST_VIEWS)))
        while views and sent >= len(views[0]):
            sent -= len(views.popleft())
        if sent:
            views[0] = memoryview(views[0])[sent:]


def _received(peer: socket.socket) -> bytes:
    """A message after its length; nothing when the peer has closed its end."""
    head = _exactly(peer, LENGTHS.size)
    return _exactly(peer, LENGTHS.unpack(head)[1]) if head else b""


def _exactly(peer: socket.socket, size: int) -> bytes:
    parts, missing = [], size
    while missing:
        try:
            part = peer.recv(missing)
        except ConnectionResetError:
            return b""
        if not part:
            return b""
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
