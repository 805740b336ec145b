"""Requests that wait on disk for a server that is away, and what is left of them afterwards.

One file for each run of a command and each logging handler, made when it is first needed. It holds
encoded write requests with their producer and number, so whoever sends them, and however often,
each is stored once.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from streamkit.client.writing.writers import LogWriter
from streamkit.errors import StreamkitError
from streamkit.generated.streamservice import JobReport, LogEntry, Producer, WriteRequest

__all__ = [
    "Spool",
    "deliver",
    "kept_bytes",
    "kept_files",
    "read_requests",
    "records_of",
    "spool_folder",
]

_LENGTH = struct.Struct("<I")


def spool_folder(server: str) -> Path:
    """Where what is meant for a server waits: in the user's cache directory."""
    import platformdirs

    digest = blake2b(server.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return platformdirs.user_cache_path("streamkit", appauthor=False) / "spool" / digest


class Spool:
    """The file of one run, first in, first out. `limit` bytes at most; 0 keeps nothing.

    No error of the disk is raised: what cannot be kept is refused.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.lines = 0
        """Lines that were put in and not taken out."""
        self._limit = limit
        self._file = -1
        self._written = 0
        self._taken = 0
        self._next = 0

    def put(self, request: WriteRequest) -> bool:
        """Keep a request; False if there is no room, or no disk that takes it."""
        data = bytes(request)
        if self._written + len(data) > self._limit or not self._open():
            return False
        if not self._write(self._written, data):
            return False
        self._written += _LENGTH.size + len(data)
        self.lines += len(request.logs)
        return True

    def first(self) -> WriteRequest | None:
        """The oldest request that was not taken out."""
        if self._taken == self._written:
            return None
        (length,) = _LENGTH.unpack(os.pread(self._file, _LENGTH.size, self._taken))
        self._next = self._taken + _LENGTH.size + length
        return WriteRequest().parse(os.pread(self._file, length, self._taken + _LENGTH.size))

    def take(self) -> None:
        """Take out what `first` returned."""
        request = self.first()
        assert request is not None
        self.lines -= len(request.logs)
        self._taken = self._next
        if self._taken == self._written:
            self._taken = self._written = 0
            with suppress(OSError):  # what was taken is skipped without it, too
                os.ftruncate(self._file, 0)

    def keep(self, before: Sequence[WriteRequest], after: Sequence[WriteRequest]) -> bool:
        """Leave behind for a later run: `before`, what is in here, `after`. The bound is for what
        a command may fill; these are few."""
        if not self._limit or not self._open():
            return False
        rest = []
        while (request := self.first()) is not None:
            rest.append(request)
            self.take()
        for request in [*before, *rest, *after]:
            data = bytes(request)
            if not self._write(self._written, data):
                return False
            self._written += _LENGTH.size + len(data)
            self.lines += len(request.logs)
        self.close(discard=False)
        return True

    def close(self, *, discard: bool = True) -> None:
        """Close the file, and remove it unless it is to be found by a later run."""
        if self._file < 0:
            return
        if discard:
            with suppress(OSError):  # somebody removed it before
                self.path.unlink()
        os.close(self._file)
        self._file = -1

    def _open(self) -> bool:
        if self._file >= 0:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.open(self.path, flags, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _write(self, place: int, data: bytes) -> bool:
        whole = _LENGTH.pack(len(data)) + data
        try:
            if os.pwrite(self._file, whole, place) == len(whole):
                return True
            os.ftruncate(self._file, place)
        except OSError:
            pass
        return False


def kept_files(server: str) -> Iterator[tuple[Path, int]]:
    """What earlier runs left for a server, oldest first, each locked while it is looked at."""
    try:
        found = sorted(spool_folder(server).iterdir(), key=lambda path: path.stat().st_mtime)
    except OSError:
        return
    for path in found:
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path, file
        except BlockingIOError:
            continue  # its run goes on
        finally:
            os.close(file)


def kept_bytes(server: str) -> int:
    """What waits on disk for a server, in all."""
    total = 0
    with suppress(OSError):  # no folder: nothing waits
        for path in spool_folder(server).iterdir():
            with suppress(OSError):  # gone meanwhile
                total += path.stat().st_size
    return total


async def deliver(
    open_writer: Callable[[str], LogWriter], server: str, tell: Callable[[str], object]
) -> AsyncGenerator[int, None]:
    """Bring what earlier processes left to the server; yields the lines of each file.

    `open_writer` gives one that writes as a producer. A file is removed when all of it was stored
    or refused, and both are told. No error is raised: what could not be brought stays.
    """
    for path, file in kept_files(server):
        lines = 0
        writer: LogWriter | None = None
        try:
            for request in read_requests(file):
                if writer is None:
                    writer = open_writer(request.producer.id)
                await writer.pump.put_request(records_of(request), request.producer.sequence)
                lines += len(request.logs)
            if writer is not None:
                await writer.flush()
        except (StreamkitError, ValueError) as error:
            tell(f"what waits in {path} could not be delivered: {error}")
            if writer is None or writer.pump.failure is not None:
                continue  # it may be another time
        if writer is not None:
            await writer.close(0)
        path.unlink(missing_ok=True)
        yield lines


def read_requests(file: int) -> Iterator[WriteRequest]:
    """The requests of a file; one that was cut off by a crash is not there."""
    place = 0
    while len(head := os.pread(file, _LENGTH.size, place)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        data = os.pread(file, length, place + _LENGTH.size)
        if len(data) < length:
            return
        yield WriteRequest().parse(data)
        place += _LENGTH.size + length


def records_of(request: WriteRequest) -> list[tuple[LogEntry | JobReport, int]]:
    """The records of a request, with about their size, as an outbox takes them."""
    logs = [(entry, len(entry.message) + 128) for entry in request.logs]
    return [*logs, *((report, 256 + len(report.error)) for report in request.jobs)]


def request_of(
    producer: str, number: int, logs: Iterable[LogEntry] = (), jobs: Iterable[JobReport] = ()
) -> WriteRequest:
    """A request with its name."""
    return WriteRequest(
        producer=Producer(id=producer, sequence=number), logs=list(logs), jobs=list(jobs)
    )
