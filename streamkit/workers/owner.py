"""The process that owns the store and the port, and starts those that serve."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from streamkit.background import ended
from streamkit.client.retry import backoff
from streamkit.config import JournalOptions, WorkerLimits
from streamkit.errors import InternalError, InvalidArgumentError, StoreError
from streamkit.interceptors.metrics import of_tally, plain
from streamkit.interceptors.observing import begin_scrapes
from streamkit.interceptors.summed import Summed, Tally
from streamkit.journal import Journal, opened_journal
from streamkit.journal.following.feed import Feed
from streamkit.journal.sqlite.journal import SqliteJournal
from streamkit.listening import SharedPort, bound_path
from streamkit.process import signals
from streamkit.server import Server
from streamkit.workers.life import Life
from streamkit.workers.words import OTHERS

__all__ = ["Owner", "WorkerFailedError"]

_ANSWER = 2.0
"""Seconds within which a worker has to say what it is asked for others."""
_STEADY = 10.0
"""Seconds after which the death of a worker is not taken for a failure to start."""
_BEYOND_GRACE = 5.0
"""Seconds beyond the grace of a server until a worker that does not end is killed."""

Reply = Callable[[Any], None]


class WorkerFailedError(Exception):
    """The first worker has ended instead of serving, and said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the first worker has ended with {code}")
        self.code = code


class Owner:
    """Starts `count` processes by `command` that serve what `server` is, and keeps them going.

    `server` itself is never started here: it tells the settings. `options` are handed to each
    worker, `note` is told, in one line, of what happens to them. Use it as a context manager and
    call `serve` inside.
    """

    def __init__(
        self,
        server: Server,
        count: int,
        command: Sequence[str],
        options: dict[str, Any],
        note: Callable[[str], None],
        *,
        limits: WorkerLimits | None = None,
    ) -> None:
        self._server = server
        self._count = count
        self._command = command
        self._options = options
        self._note = note
        self._limits = limits or WorkerLimits()
        self._lives: dict[int, Life] = {}
        self._generations = dict.fromkeys(range(1, count + 1), 0)
        self._feed: Feed | None = None
        self._port: SharedPort | None = None
        self._last_word = -1
        self._failure: StoreError | None = None
        self._began = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._resources: AsyncExitStack | None = None
        self._leaving = asyncio.Event()
        self.metrics_port = 0
        self.on_drain: Callable[[], None] = lambda: None
        """Called when the server begins to go away."""

    # ---- the life of it ----

    async def start(self) -> None:
        """Open the store, listen, and start the workers, one before the others.

        Raises what `Server.start` raises, InvalidArgumentError for a server that cannot be several
        processes, and WorkerFailedError; nothing is left open then.
        """
        async with AsyncExitStack() as resources:
            self._feed = await self._open_feed(resources)
            await self._listen(resources)
            ours, theirs = os.pipe()
            os.write(theirs, b".")
            os.close(theirs)
            resources.callback(os.close, ours)
            self._last_word = ours
            if self._server.settings["metrics"] is not None:
                summed = Summed(self._figures_from(asyncio.get_running_loop()))
                self.metrics_port = await begin_scrapes(
                    resources, self._server.settings["metrics"], summed.text
                )
            resources.push_async_callback(self._end_all)
            code = await (await self._begin(1)).started()
            if code is not None:
                raise WorkerFailedError(code)
            others = [await self._begin(number) for number in range(2, self._count + 1)]
            codes = [code for life in others if (code := await life.started()) is not None]
            if codes:
                raise WorkerFailedError(codes[0])
            for life in list(self._lives.values()):
                self._keepers.append(self._run(self._keep(life)))
            self._resources = resources.pop_all()

    async def serve(self) -> None:
        """Until SIGTERM or SIGINT: the first one drains, a second one ends at once. Raises
        StoreError when the store was lost meanwhile."""

        def on_signal() -> None:
            if self._leaving.is_set():
                for life in self._lives.values():
                    life.terminate()
            self._leaving.set()

        with signals(on_signal):
            await self._leaving.wait()
            await self.stop()
        if self._failure is not None:
            raise self._failure

    def reload(self, options: Mapping[str, Any]) -> None:
        """Let every worker, also those that will be started, have these options instead."""
        self._options |= {name: (value, "COMMANDLINE") for name, value in options.items()}
        for life in self._lives.values():
            life.reload(options)

    def _fail(self, error: StoreError) -> None:
        """Nothing can be stored any more: clients are told to go elsewhere."""
        self._failure = self._failure or error
        self._leaving.set()

    async def stop(self) -> None:
        """Let the workers drain and end, then close the store. May be called twice."""
        self._leaving.set()
        resources, self._resources = self._resources, None
        if resources is not None:
            self.on_drain()
            await resources.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # ---- parts ----

    async def _open_feed(self, resources: AsyncExitStack) -> Feed | None:
        settings = self._server.settings
        store = settings["journal"]
        if store is None:
            return None
        if isinstance(store, Journal):
            raise InvalidArgumentError(
                "workers need a store that they can open: a path, not a journal made in code"
            )
        options = settings["journal_options"] or JournalOptions()
        journal = await resources.enter_async_context(
            opened_journal(store, options, settings["data"])
        )
        if not isinstance(journal, SqliteJournal):
            raise InvalidArgumentError(f"workers need a store in a file, not {store}")
        self._server.journal = journal
        journal.on_lost = self._fail
        feed = Feed(journal, self._limits)
        resources.push_async_callback(feed.close)
        return feed

    async def _listen(self, resources: AsyncExitStack) -> None:
        """Make what each worker's socket is made of."""
        settings = self._server.settings
        listener, path = settings["listener"], settings["path"]
        if listener is not None:  # of systemd, say; all of them take from it
            name = listener.getsockname()
            if isinstance(name, tuple):
                self._configure(port=name[1])
            return
        if path is not None:
            listener = await asyncio.to_thread(bound_path, os.fspath(path))
            resources.callback(os.unlink, path)
            resources.callback(listener.close)
            self._configure(listener=listener)
            return
        self._port = SharedPort(settings["host"], settings["port"])
        resources.callback(self._port.close)
        self._configure(port=self._port.port)

    def _configure(self, **settings: Any) -> None:
        journal = self._server.journal
        self._server.configure(**settings)
        self._server.journal = journal  # beside which the logins of the page are kept

    async def _begin(self, number: int) -> Life:
        generation = self._generations[number]
        self._generations[number] += 1
        shared = None if self._port is None else self._port.listener()
        try:
            life = await Life.begin(
                number,
                generation,
                asked=self._asked,
                command=self._command,
                options=self._options,
                step=self._count,
                listener=shared or self._server.settings["listener"],
                feed=self._feed,
                last_word=self._last_word,
            )
        finally:
            if shared is not None:
                shared.close()  # with the worker's own its connections end, also those that wait
        self._lives[number] = life
        return life

    async def _keep(self, life: Life) -> None:
        """Start a worker again whenever it ends, at once unless it does so all the time."""
        delays = backoff()
        sudden = False
        while True:
            began = time.monotonic()
            watch = asyncio.create_task(self._watch(life))
            try:
                code = await life.wait()
            finally:
                await ended(watch)
            if self._leaving.is_set():
                return
            if time.monotonic() - began > _STEADY:
                delays, sudden = backoff(), False
            delay = next(delays) if sudden else 0.0
            sudden = True
            how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
            when = f" in {delay:.0f}s" if delay else ""
            self._note(f"worker {life.number} (process {life.pid}) {how}; starting another{when}")
            await asyncio.sleep(delay)
            life = await self._begin(life.number)

    async def _watch(self, life: Life) -> None:
        """End a worker that says nothing any more: what connects to it would wait for ever."""
        await life.ready.wait()
        while True:
            await asyncio.sleep(self._limits.silence / 3)
            asked = life.ask("ping", None)
            await asyncio.wait({asked}, timeout=self._limits.silence)
            if not asked.done():
                self._note(f"worker {life.number} (process {life.pid}) does not answer")
                life.kill()

    async def _end_all(self) -> None:
        self._leaving.set()
        for keeper in self._keepers:
            await ended(keeper)
        await asyncio.gather(*(self._end(life) for life in self._lives.values()))
        for task in list(self._tasks):  # of answers to those that are gone
            await ended(task)

    async def _end(self, life: Life) -> None:
        life.terminate()
        try:
            async with asyncio.timeout(self._server.grace + _BEYOND_GRACE):
                await life.wait()
        except TimeoutError:
            life.kill()
            await life.wait()

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            self._note(f"fault of the server's own: {type(error).__name__}: {error}")
            self._leaving.set()

    # ---- what workers ask ----

    def _asked(self, life: Life, kind: int, value: Any, reply: Reply) -> None:
        name, given = value
        if kind == OTHERS:
            self._run(self._ask_others(life, name, given, reply))
        else:
            self._run(self._answer(name, given, reply))

    async def _ask_others(self, life: Life, name: str, given: Any, reply: Reply) -> None:
        told = await self._ask_all(name, given, besides=life)
        reply(list(told.values()))

    async def _ask_all(
        self, name: str, given: Any, *, besides: Life | None = None
    ) -> dict[str, Any]:
        """What each worker answers, by its name; whoever does not in time is left out."""
        lives = [e for e in self._lives.values() if e is not besides and e.ready.is_set()]
        asked = {life.name: life.ask(name, given) for life in lives}
        if asked:
            await asyncio.wait(asked.values(), timeout=_ANSWER)
        return {
            who: answer.result()
            for who, answer in asked.items()
            if answer.done() and answer.exception() is None
        }

    async def _answer(self, name: str, given: Any, reply: Reply) -> None:
        sessions = self._server.sessions if name != "status" else None
        if sessions is None:
            reply({"uptime": time.monotonic() - self._began, "workers": self._workers()})
        elif name == "redeem":
            reply(sessions.redeem(given))
        elif name == "open":
            reply(sessions.open(given))
        elif name == "find":
            found = sessions.find(given)
            reply(None if found is None else (found.until, found.token))
        elif name == "close":
            sessions.close(given)
            reply(None)
        else:
            reply(InternalError(f"nobody knows {name}"))

    def _workers(self) -> list[tuple[int, int, int, int]]:
        """Number, process, restarts and jumps of each worker."""
        return [
            (
                number,
                0 if life.ended or not life.ready.is_set() else life.pid,
                self._generations[number] - 1,
                0 if life.follower is None else life.follower.jumps,
            )
            for number, life in sorted(self._lives.items())
        ]

    # ---- figures ----

    def _figures_from(
        self, loop: asyncio.AbstractEventLoop
    ) -> Callable[[], dict[str, Tally | None]]:
        async def ask() -> dict[str, Tally | None]:
            told = await self._ask_all("figures", None)
            silent = {e.name: None for e in self._lives.values() if not e.ended}
            return silent | told | {"owner": self._own_figures()}

        def figures() -> dict[str, Tally | None]:
            return asyncio.run_coroutine_threadsafe(ask(), loop).result()

        return figures

    def _own_figures(self) -> Tally:
        def of_each(name: str, kind: str, text: str, index: int) -> Any:
            sample = f"{name}_total" if kind == "counter" else name
            told = [(sample, (("worker", str(w[0])),), float(w[index])) for w in self._workers()]
            return name, kind, text, told

        serving = [("streamkit_workers", (), float(sum(bool(w[1]) for w in self._workers())))]
        restarts = "How often a worker was started again."
        jumps = "How often a worker went on from the file, as too much was written for it."
        journal = self._server.journal  # whose workers read, and do not know what it took to write
        return [
            *([] if journal is None else plain(of_tally(journal.tally))),
            ("streamkit_workers", "gauge", "Workers that serve.", serving),
            of_each("streamkit_worker_restarts", "counter", restarts, 2),
            of_each("streamkit_worker_jumps", "counter", jumps, 3),
        ]
