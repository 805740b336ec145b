"""A private event loop in a thread of its own, for callers that have none or a busy one."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from streamkit.errors import ConnectError

__all__ = ["Portal", "PrivateLoop", "abandon"]

T = TypeVar("T")


_abandoned: list[object] = []


def abandon(inherited: object) -> None:
    """Keep what a forked child has inherited from being cleaned up.

    Its sockets and its epoll are the parent's too: closing them here would end them there.
    """
    _abandoned.append(inherited)


class PrivateLoop(asyncio.SelectorEventLoop):
    """A loop that nobody else runs on, so it may look up names itself.

    The usual way is a thread pool, which refuses work once the interpreter has begun to exit: just
    when the last log lines of a short script are to be sent.
    """

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        return socket.getaddrinfo(host, port, family, type, proto, flags)


class Portal:
    """Runs coroutines from ordinary code. Any thread may call it; it belongs to one process.

    Whoever waits in `run` gets an answer whatever happens to the loop: once it has ended, which it
    also has for a forked child and at the end of the interpreter, `run` raises ConnectError.
    """

    def __init__(self, name: str = "streamkit") -> None:
        self.pid = os.getpid()
        # Collecting garbage may finish a stream in the middle of anything that its thread does.
        self._lock = threading.RLock()
        self._waited_for: set[Future[Any]] = set()
        self._ended = False
        self._cleaning: set[asyncio.Task[object]] = set()
        self.loop = PrivateLoop()
        # Debug mode logs from the loop; a logging handler must not have its own thread log.
        self.loop.set_debug(False)
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    @property
    def thread_id(self) -> int | None:
        return self._thread.ident

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine and return what it returns.

        An interrupt of the caller cancels the coroutine and waits for its end. Raises TimeoutError
        after `timeout`; the coroutine is then cancelled.
        """
        if threading.get_ident() == self._thread.ident:
            work.close()
            raise ConnectError("a callback of a Client must not call the client: it would wait")
        future = self._submit(work)
        try:
            return future.result(timeout)
        except CancelledError:
            raise ConnectError("the client is closed") from None
        except BaseException:
            if not future.done():
                self._cancel(future, 1.0 if timeout is None else 0.1)
            raise
        finally:
            with self._lock:
                self._waited_for.discard(future)

    def finish(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine that cleans up, where that is still of use: it may be too late for it,
        and a finaliser, which runs in whatever thread, can neither wait in the loop's own nor tell
        anybody."""
        if threading.get_ident() == self._thread.ident:
            task = self.loop.create_task(work)
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)
        elif self.gone:
            work.close()
        else:
            with suppress(ConnectError):  # the loop ended meanwhile, and the work with it
                self.run(work)

    @property
    def gone(self) -> bool:
        """Whether nothing can be run any more."""
        return self._ended or self.out_of_reach

    @property
    def out_of_reach(self) -> bool:
        """Whether the thread is not there any more: in a forked child, and when the interpreter
        takes itself apart."""
        return self.pid != os.getpid() or sys.is_finalizing()

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        with self._lock:
            if self.gone:
                work.close()
                raise ConnectError("the client is closed")
            future: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
            self._waited_for.add(future)
            return future

    def close(self, timeout: float | None = None) -> None:
        """Cancel what runs, end the thread, close the loop. May be called twice.

        After `timeout` a thread that is busy is left to end by itself.
        """
        with suppress(RuntimeError):  # it is closed already
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout)

    def _cancel(self, future: Future[Any], patience: float) -> None:
        """Cancel and wait until the coroutine has cleaned up after itself."""
        ended = threading.Event()
        future.cancel()
        # The task's own end is one round of the loop behind the future's.
        self.loop.call_soon_threadsafe(lambda: self.loop.call_soon(ended.set))
        ended.wait(patience)

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            with self._lock:
                self._ended = True
            # What was submitted in the last moment becomes a task in the next turn.
            self.loop.run_until_complete(asyncio.sleep(0))
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(asyncio.wait(tasks))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self.loop.close()
            with self._lock:
                forgotten = [future for future in self._waited_for if not future.done()]
            for future in forgotten:
                future.set_exception(ConnectError("the client is closed"))
