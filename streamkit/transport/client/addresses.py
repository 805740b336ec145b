"""Where a channel's server is: one address or several, and which of them is tried when.

The order is drawn once. Whoever answers first is taken; the next address is tried a quarter of a
second after the one before it, or as soon as that has failed. One that refused or went away is
tried last for a while.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from streamkit.errors import ConnectError, InvalidArgumentError, StreamkitError
from streamkit.terms import DEFAULT_PORT
from streamkit.transport.client.status import reason_of, unreachable_error

__all__ = ["Address", "Addresses", "Endpoint", "parse_target"]

HEAD_START = 0.25
"""Seconds that an address has before the next one is tried, too."""
AVOIDED = 10.0
"""Seconds that an address which refused, went away or drained is tried last."""

T = TypeVar("T")


class Address:
    """One place: `host:port` (IPv6 in brackets), `unix:/path`, or `dns:///name:port` for a name
    whose addresses are servers of their own. InvalidArgumentError for anything else."""

    __slots__ = ("authority", "host", "many", "path", "port", "target")

    def __init__(self, target: str, default_port: int = DEFAULT_PORT) -> None:
        self.target = target
        self.path: str | None = None
        self.many = False
        self.host, self.port = "", default_port
        if target.startswith("unix:"):
            self.path = target.removeprefix("unix:")
            if self.path.startswith("//"):
                self.path = self.path[2:]
            if not self.path:
                raise _no_address(target)
            self.authority = "localhost"
            return
        name = target
        if target.startswith("dns:"):
            self.many = True
            name = target.removeprefix("dns:")
            if name.startswith("//"):
                server, _, name = name[2:].partition("/")
                if server:
                    raise InvalidArgumentError(
                        f"{target!r} names a DNS server", hint="write it as dns:///name:port"
                    )
        host, colon, port = name.rpartition(":")
        if not colon or (host.count(":") and not host.endswith("]")):
            host, port = name, str(default_port)  # a bare name, or a bare IPv6 address
        if not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise _no_address(target)
        self.host = host.removeprefix("[").removesuffix("]") or "localhost"
        self.port = int(port)
        self.authority = f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def _no_address(target: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"{target!r} is not an address", hint="write it as host:port")


def parse_target(target: str) -> list[Address]:
    """Return the addresses of a target, which are separated by commas."""
    parts = [part.strip() for part in target.split(",")]
    if len(parts) > 1 and not all(parts):
        raise InvalidArgumentError(f"{target!r} has an empty address", hint="write it as a:1,b:2")
    return [Address(part) for part in parts]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What can be dialled: a socket's path, or a host (mostly by its number) and a port."""

    address: Address
    place: str
    """The path, or the host."""


Dial = Callable[[Endpoint], Awaitable[T]]


class Addresses:
    """The addresses of one channel."""

    def __init__(self, target: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.target = target
        self.all = parse_target(target)
        random.shuffle(self.all)
        self._seed = random.random()
        self._clock = clock
        self._avoided: dict[str, float] = {}

    def avoid(self, endpoint: Endpoint) -> None:
        """It refused, went away or drained: try it last for a while."""
        until = self._clock() + AVOIDED
        self._avoided[_key(endpoint)] = until
        if not endpoint.address.many:
            self._avoided[endpoint.address.target] = until

    async def connect(self, dial: Dial[T], discard: Callable[[T], None]) -> T:
        """Return what `dial` makes of the first endpoint that answers.

        `discard` takes what was made too late. ConnectError when none answers; a cancellation ends
        all attempts.
        """

        def start(address: Address) -> Callable[[], Awaitable[T]]:
            return lambda: self._connect(address, dial, discard)

        order = self._in_order()
        try:
            return await _race([start(address) for address in order], discard)
        except _NoneWonError as outcome:
            failures = outcome.failures
        if len(failures) == 1:
            if isinstance(failures[0], StreamkitError):
                raise failures[0]
            raise unreachable_error(self.target, failures[0])
        texts = [
            f"{address.target}: {reason_of(failure)}"
            for address, failure in zip(order, failures, strict=True)
        ]
        raise unreachable_error(self.target, ConnectError("; ".join(texts)))

    def _in_order(self) -> list[Address]:
        return sorted(self.all, key=lambda address: self._avoided_until(address.target))

    def _avoided_until(self, key: str) -> float:
        """When it may be tried as any other; 0 for now. What failed longest ago comes first."""
        until = self._avoided.get(key, 0.0)
        if until and until <= self._clock():
            del self._avoided[key]
            return 0.0
        return until

    async def _connect(self, address: Address, dial: Dial[T], discard: Callable[[T], None]) -> T:
        """As `connect`, of one address; all that it resolves to is raced."""
        endpoints = await self._resolve(address)

        def start(endpoint: Endpoint) -> Callable[[], Awaitable[T]]:
            return lambda: self._dial(endpoint, dial)

        try:
            return await _race([start(endpoint) for endpoint in endpoints], discard)
        except _NoneWonError as outcome:
            raise outcome.failures[-1] from None

    async def _dial(self, endpoint: Endpoint, dial: Dial[T]) -> T:
        try:
            return await dial(endpoint)
        except Exception:
            self.avoid(endpoint)
            raise

    async def _resolve(self, address: Address) -> list[Endpoint]:
        if address.path is not None:
            return [Endpoint(address, address.path)]
        if _is_number(address.host):
            return [Endpoint(address, address.host)]
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        hosts = list(dict.fromkeys(_host(sockaddr) for *_, sockaddr in found))
        if address.many:
            hosts.sort(key=lambda host: hash((self._seed, host)))
        else:
            hosts = _interleaved(hosts)
        endpoints = [Endpoint(address, host) for host in hosts]
        return sorted(endpoints, key=lambda endpoint: self._avoided_until(_key(endpoint)))


def _key(endpoint: Endpoint) -> str:
    return f"{endpoint.address.target} {endpoint.place}"


def _is_number(host: str) -> bool:
    """Whether a host needs no resolver, which would be asked on a thread."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return True
    return False


def _host(sockaddr: Any) -> str:
    """The host of a socket's address, with the interface that a link-local one needs."""
    host: str = sockaddr[0]
    scope = sockaddr[3] if len(sockaddr) > 3 else 0
    return f"{host}%{scope}" if scope and "%" not in host else host


def _interleaved(hosts: list[str]) -> list[str]:
    """The families in turns, beginning with that of the first: a whole family may be cut off."""
    first = [host for host in hosts if (":" in host) == (":" in hosts[0])]
    other = [host for host in hosts if (":" in host) != (":" in hosts[0])]
    turns = [host for pair in zip(first, other, strict=False) for host in pair]
    return turns + first[len(other) :] + other[len(first) :]


class _NoneWonError(Exception):
    """What each one of a race failed with, in the order in which they were started."""

    def __init__(self, failures: list[Exception]) -> None:
        super().__init__()
        self.failures = failures


async def _race(starts: Sequence[Callable[[], Awaitable[T]]], discard: Callable[[T], None]) -> T:
    """Return the first result. The next one starts when the last has had its head start, or when
    one has failed; all others have ended on return."""
    if len(starts) == 1:
        try:
            return await starts[0]()
        except Exception as error:
            raise _NoneWonError([error]) from None
    tasks: list[asyncio.Task[T]] = []
    running: set[asyncio.Task[T]] = set()
    winner: asyncio.Task[T] | None = None
    try:
        while winner is None:
            if len(tasks) < len(starts):
                task = asyncio.create_task(_awaited(starts[len(tasks)]))
                tasks.append(task)
                running.add(task)
            if not running:
                raise _NoneWonError(
                    [failure for task in tasks if (failure := _failure(task)) is not None]
                )
            patience = HEAD_START if len(tasks) < len(starts) else None
            done, running = await asyncio.wait(
                running, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            winner = next((task for task in done if _failure(task) is None), None)
        return winner.result()
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(
            *(task for task in tasks if task is not winner), return_exceptions=True
        ):
            if not isinstance(outcome, BaseException):
                discard(outcome)


def _failure(task: asyncio.Task[Any]) -> Exception | None:
    if task.cancelled():
        return ConnectError("given up")
    error = task.exception()
    return error if error is None or isinstance(error, Exception) else ConnectError(repr(error))


async def _awaited(start: Callable[[], Awaitable[T]]) -> T:
    return await start()
