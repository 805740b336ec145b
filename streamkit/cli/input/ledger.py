"""Which lines of which files were handed to the server: a small file that survives us.

Before a request with lines goes out, one line here says its number and where its lines are. After
a restart the requests that may not have arrived are made again from the same bytes, with the same
numbers, and the server stores none of them twice. The file is written anew when it has grown.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

from streamkit.cli.input.following import MOST_PLACES, Note
from streamkit.cli.input.generation import HISTORY, Batch, Place

__all__ = ["InUseError", "Ledger", "Request", "ledger_path"]

REWRITE_AT = 1024 * 1024
"""Bytes of the file."""


class InUseError(Exception):
    """Another process ships the same file to the same place."""


@dataclass(frozen=True, slots=True)
class Request:
    """Lines that went out under a number."""

    number: int
    key: str
    first: int
    place: Place
    count: int


def ledger_path(server: str, service: str, file: Path) -> Path:
    """Where the ledger of one file on its way to one service is."""
    import platformdirs

    name = f"{server}\n{service}\n{file.absolute()}"
    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    folder = platformdirs.user_state_path("streamkit", appauthor=False) / "ship"
    return folder / f"{digest}.jsonl"


class Ledger:
    """The ledger at `path`, locked for this process. OSError if it cannot be; InUseError."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self.producer = uuid4().hex
        self.number = 0
        """Of the last request."""
        self.outstanding: OrderedDict[int, Request] = OrderedDict()
        """Requests whose fate is not known."""
        self.places: dict[str, Place] = {}
        self.trails: dict[str, list[Place]] = {}
        """Where the requests ended, for every file that is not done with."""
        self._lock = os.open(
            path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUseError from None
            if not fresh:
                self._load()
            self._file = -1
            self._rewrite()
        except BaseException:
            os.close(self._lock)
            raise

    def seal(self, batch: Batch) -> int:
        """Note that a batch is about to go out; return the number of its request."""
        self.number += 1
        request = Request(self.number, batch.key, batch.first, batch.place, len(batch.lines))
        self.outstanding[request.number] = request
        self._reached(request)
        self._append(_shown(request) | {"d": next(iter(self.outstanding)) - 1})
        if self._size > REWRITE_AT:
            self._rewrite()
        return self.number

    def note(self, note: Note) -> None:
        """Keep a place that no request told of."""
        self._noted(*note)
        self._append(note._asdict())

    def _noted(self, key: str, place: Place, live: bool) -> None:
        self.places.pop(key, None)
        self.places[key] = place
        if live:
            self.trails[key] = [*self.trails.get(key, ()), place] if place.offset else []
        else:
            self.trails.pop(key, None)

    def settle(self, number: int) -> None:
        """The fate of the requests up to this one is known."""
        known = False
        while self.outstanding and next(iter(self.outstanding)) <= number:
            self.outstanding.popitem(last=False)
            known = True
        if known and not self.outstanding:
            # Else the next request says it: to ask about one of them again does no harm.
            self._append({"d": self.number})

    def close(self) -> None:
        """Write what is settled and let the next process have the file."""
        try:
            self._rewrite()
            os.close(self._file)
        finally:
            os.close(self._lock)

    def _reached(self, request: Request) -> None:
        self.places.pop(request.key, None)  # the last reached come last
        self.places[request.key] = request.place
        trail = self.trails.setdefault(request.key, [])
        trail.append(request.place)
        del trail[:-HISTORY]

    def _load(self) -> None:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return
        for line in text.splitlines():
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a process that was killed

    def _take(self, said: dict[str, object]) -> None:
        if isinstance(done := said.get("d"), int):
            for number in [number for number in self.outstanding if number <= done]:
                del self.outstanding[number]
        match said:
            case {"producer": str(producer), "number": int(number)}:
                self.producer, self.number = producer, number
            case {"trails": dict(trails)}:
                self.trails = {key: [Place(*p) for p in places] for key, places in trails.items()}
            case {"key": str(key), "place": list(place), "live": bool(live)}:
                self._noted(key, Place(*place), live)
            case {"places": dict(places)}:
                self.places |= {key: Place(*place) for key, place in places.items()}
            case {"n": int(number), "k": str(key), "a": int(first), "c": int(count)}:
                request = Request(number, key, first, Place(*said["p"]), count)  # type: ignore[misc]  # a line of another shape is caught
                self.outstanding[number] = request
                self.number = max(self.number, number)
                self._reached(request)

    def _append(self, said: dict[str, object]) -> None:
        data = json.dumps(said, separators=(",", ":")).encode() + b"\n"
        os.write(self._file, data)
        self._size += len(data)

    def _rewrite(self) -> None:
        """The same in fewer words, beside the file and then in its place."""
        for key in list(self.places)[:-MOST_PLACES]:
            del self.places[key]
        beside = self._path.with_suffix(".new")
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        before, self._file, self._size = self._file, file, 0
        try:
            self._append({"producer": self.producer, "number": self.number})
            self._append({"trails": self.trails})
            self._append({"places": self.places})
            for request in self.outstanding.values():
                self._append(_shown(request))
            os.replace(beside, self._path)
        finally:
            if before >= 0:
                os.close(before)


def _shown(request: Request) -> dict[str, object]:
    return {
        "n": request.number,
        "k": request.key,
        "a": request.first,
        "p": request.place,
        "c": request.count,
    }
