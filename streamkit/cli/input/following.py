"""A file that grows and is rotated, as batches of lines, each with the place where it ends.

What is followed is a name. Behind it stand generations, one after the other: files that had the
name, or a copy of what was in them. A generation is known by its inode and by the bytes before the
place up to which it was read, so whatever was done to the name (renaming, copying and truncating,
a link that points elsewhere, in any order and also while nobody looked), what was read is not read
again and what was not read is read, oldest first. An old file is read on for as long as it grows.
What cannot be found again is told.

Files have no push that works everywhere, so they are looked at a few times a second.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from streamkit.cli.input.lines import LineSplitter, encoding_of
from streamkit.cli.input.rotations import candidates

__all__ = ["Batch", "Follower", "Note", "Place"]

CHUNK = 64 * 1024
MOST_LINES = 500
"""Of one batch."""
TAIL = 1024
"""Bytes before a place that are compared: files often begin alike."""
SETTLE = 2.0
"""Seconds that the writer of an old file has to end a line that it began."""
LINGER = 60.0
"""Seconds of quiet after which an old file is closed; where it still has a name it is opened again
when it grows."""
LOOK_EVERY = 0.5
MOST_PLACES = 4_096
"""Files whose place is remembered."""
HISTORY = 512
"""Places on the way to where a file was read, by which a copy of a part of it is known."""
MOST_OPEN = 128
"""Files open at a time; others wait until one of them is read to its end."""


class Place(NamedTuple):
    """Up to where a file was read, with what it takes to know the file again."""

    offset: int
    length: int
    """Of the bytes before the place that the digest is of."""
    digest: str

    @classmethod
    def after(cls, offset: int, before: bytes) -> Place:
        """The place at `offset`, given bytes that end there."""
        tail = before[-TAIL:]
        return cls(offset, len(tail), _digest(tail))


START = Place(0, 0, "")


class Note(NamedTuple):
    """A place that no batch tells of, and whether more is expected there."""

    key: str
    place: Place
    live: bool


class Batch(NamedTuple):
    """Lines of one file, whole."""

    key: str
    first: int
    """Where the first of them begins."""
    place: Place
    """Where the last one ends."""
    lines: list[str]


class _Generation:
    """One open file behind the name."""

    def __init__(self, key: str, name: str, file: FileIO, line: Place, now: float) -> None:
        self.key = key
        self.name = name
        self.file = file
        self.at = line
        """Up to where it was read."""
        self.line = line
        """Where its last whole line ended."""
        self.history = deque[Place](maxlen=HISTORY)
        self.grown = now
        head = os.pread(file.fileno(), 4, 0)
        known = encoding_of(head)[0] if line.offset else ""
        self.splitter = LineSplitter(place=line.offset, encoding=known)

    def read(self, now: float) -> list[Batch]:
        """The next lines; none if there are none yet. Raises _CutError for another content."""
        while data := self._next():
            self.grown = now
            first = self.splitter.place
            base = self.at.offset - self.at.length
            lines = self.splitter.feed(data[self.at.length :])
            self.at = Place.after(base + len(data), data)
            self.history.append(self.at)
            if lines:
                ends, batches = self.splitter.ends, []
                for index in range(0, len(lines), MOST_LINES):
                    some = lines[index : index + MOST_LINES]
                    end = ends[index + len(some) - 1]
                    place = Place.after(end, data[: end - base])
                    batches.append(Batch(self.key, first, place, some))
                    first = end
                    self.line = place
                return batches
        return []

    def _next(self) -> bytes:
        """The bytes before the place and new ones after it; empty if nothing is new.

        One read for both: what is before the place says that what comes after it belongs there.
        """
        at = self.at
        data = os.pread(self.file.fileno(), at.length + CHUNK, at.offset - at.length)
        if len(data) < at.length or _digest(data[: at.length]) != at.digest:
            raise _CutError
        return data if len(data) > at.length else b""

    def finish(self) -> Batch | None:
        """The last line if it has no end; no more of it is expected."""
        first = self.splitter.place
        lines = self.splitter.finish()
        self.line = self.at
        return Batch(self.key, first, self.at, lines) if lines else None


class _CutError(Exception):
    """The file no longer has the bytes that were read."""


class Follower:
    """The generations behind one name, read in order. Blocks: one thread uses it.

    `places` are those of an earlier run, and `trails` where it had been in the files that it had
    not done with; without any, reading starts at the start of the file, or `from_end`. Raises
    OSError if there is no file and there are no places. `tell` takes a line for the person about
    what is lost.
    """

    def __init__(
        self,
        path: Path,
        *,
        places: Mapping[str, Place] | None = None,
        trails: Mapping[str, Sequence[Place]] | None = None,
        from_end: bool = False,
        tell: Callable[[str], object] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._tell = tell
        self._clock = clock
        self._open: list[_Generation] = []
        """Oldest first."""
        self._places: dict[str, Place] = dict(places or {})
        """Of files that are not open."""
        self._copies: set[str] = set()
        """Files that hold what a file that is open holds, too."""
        self._orphans: list[_Orphan] = []
        self._ready: list[Batch | Note] = []
        self._current = ""
        """The file that has the name now, as far as we have seen."""
        self._looked = -LOOK_EVERY
        self._taken = 0.0
        if not self._places:
            self._begin(from_end=from_end)
        try:
            self._look(trails or {})
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every file."""
        for generation in self._open:
            generation.file.close()
        self._open.clear()

    def look(self) -> None:
        """Find out what became of the name, so that no file is gone before it is open.

        To be called several times a second, also while nobody takes the lines.
        """
        now = self._clock()
        try:
            moved, pause = _key(self._path.stat()) != self._current, LOOK_EVERY
        except OSError:
            moved, pause = False, 0.0  # what comes and goes in a moment is only seen by looking
        if moved or now >= self._looked + max(pause, 20 * self._taken):
            self._look()
            self._looked, self._taken = now, self._clock() - now

    def read(self) -> Batch | Note | None:
        """The next lines of the oldest file that has some; None if nothing is new.

        A note comes after the batches that it follows from: whoever keeps both in this order loses
        nothing by stopping in between.
        """
        now = self._clock()
        if self._ready:
            return self._ready.pop(0)
        for generation in list(self._open):
            try:
                if batches := generation.read(now):
                    self._ready += batches[1:]
                    return batches[0]
            except _CutError:
                self._look()
                return self.read()
            if generation.key == self._current or not self._has_successor():
                continue
            quiet = now - generation.grown
            if generation.splitter.unfinished:
                if quiet < SETTLE:
                    return None  # its successor comes after the line that is being written
                if batch := generation.finish():
                    return batch
            gone = quiet >= SETTLE and not os.fstat(generation.file.fileno()).st_nlink
            if quiet >= LINGER or gone or len(self._open) > MOST_OPEN // 2:
                self._retire(generation)
        return self._ready.pop(0) if self._ready else None

    def reread(self, first: int, place: Place) -> list[str] | None:
        """The lines that an earlier run read before a place; None if they are gone."""
        for name, _ in candidates(self._path):
            try:
                with open(name, "rb", buffering=0) as file:
                    if not _fits(file, place):
                        continue
                    known = encoding_of(os.pread(file.fileno(), 4, 0))[0] if first else ""
                    data = os.pread(file.fileno(), place.offset - first, first)
            except OSError:
                continue
            splitter = LineSplitter(place=first, encoding=known)
            return splitter.feed(data) + splitter.finish()
        return None

    # ---- what became of the name ----

    def _note(self, key: str, place: Place, live: bool) -> None:
        self._ready.append(Note(key, place, live))

    def _begin(self, *, from_end: bool) -> None:
        """The first look ever: what was rotated away before is not ours."""
        self._path.stat()
        for name, status in candidates(self._path):
            key, own, place = _key(status), name == str(self._path), START
            if from_end or not own:
                with open(name, "rb", buffering=0) as file:
                    place = _place_at(file, status.st_size)
            self._places[key] = place
            self._note(key, place, own)

    def _look(self, trails: Mapping[str, Sequence[Place]] | None = None) -> None:
        found = candidates(self._path)
        if self._find_cut():
            found = candidates(self._path)  # with the copies that were made before
        by_key = {generation.key: generation for generation in self._open}
        unknown: list[tuple[str, str]] = []
        for name, status in found:
            key = _key(status)
            if name == str(self._path):
                self._current = key
            if key in by_key:
                by_key[key].name = name
            elif not self._recognise(key, name, status.st_size, live=key in (trails or ())):
                unknown.append((key, name))
        if trails is not None:
            self._miss(trails, {_key(status) for _, status in found} - {key for key, _ in unknown})
        for key, name in unknown:
            self._consider(key, name)
        orphans, self._orphans = self._orphans, []
        for orphan in orphans:
            if orphan.live:
                self._give_up(orphan)
            self._note_anew(orphan)
        while len(self._places) > MOST_PLACES:
            self._places.pop(next(iter(self._places)))

    def _find_cut(self) -> bool:
        """Begin anew with files that no longer have the bytes that were read."""
        cut = [generation for generation in self._open if not _fits(generation.file, generation.at)]
        for old in cut:
            fresh = _Generation(old.key, old.name, old.file, START, self._clock())
            self._open[self._open.index(old)] = fresh
            self._orphans.append(
                _Orphan(
                    old.key,
                    old.name,
                    old.at,
                    list(old.history),
                    line=old.line,
                    splitter=old.splitter,
                )
            )
        return bool(cut)

    def _miss(self, trails: Mapping[str, Sequence[Place]], there: set[str]) -> None:
        """Find the files of an earlier run that were cut or removed while nobody looked."""
        open_now = {generation.key for generation in self._open}
        for key, place in list(self._places.items()):
            if key in there or key in open_now:
                continue
            del self._places[key]
            trail = trails.get(key, ())
            live = key in trails
            self._orphans.append(_Orphan(key, str(self._path), place, trail, live=live))

    def _recognise(self, key: str, name: str, size: int, *, live: bool) -> bool:
        """Whether a file was read before; it is opened if there is more of it, or will be."""
        place = self._places.get(key)
        if place is None:
            return False
        current = key == self._current
        if place.offset == size and not current and not live:
            return True
        if (file := _opened(name, key)) is None:
            return True  # rotated in this moment; the next look finds it
        if not _fits(file, place):
            file.close()
            return False
        generation = _Generation(key, name, file, place, self._clock())
        if place.offset == size:
            # It is quiet for longer than we are here.
            generation.grown -= max(0.0, time.time() - os.fstat(file.fileno()).st_mtime)
        self._add(generation)
        return True

    def _consider(self, key: str, name: str) -> None:
        """A file that was never seen, or has another content than the one that was."""
        current = key == self._current
        if len(self._open) >= MOST_OPEN and not current:
            return
        if (file := _opened(name, key)) is None:
            return
        size = os.fstat(file.fileno()).st_size
        for orphan in self._orphans:
            if not current and orphan.place.offset and _fits(file, orphan.place):
                self._orphans.remove(orphan)
                self._continue(orphan, key, name, file)
                return
        if current:
            self._add(_Generation(key, name, file, START, self._clock()))
        elif not size:
            file.close()  # nothing can be told of it yet
        elif any(_is_beginning(file, size, g.file) for g in self._open):
            # Not ours until the other one is cut and this one has what was not read of it.
            self._copies.add(key)
            file.close()
        elif key in self._copies or any(_was_read(file, size, o.history) for o in self._orphans):
            self._copies.discard(key)
            self._places[key] = _place_at(file, size)
            self._note(key, self._places[key], False)
            file.close()
        elif not all(_fits(g.file, g.at) for g in self._open):
            file.close()  # one was cut in this moment, and this may be its copy: at the next look
            self._looked -= LOOK_EVERY
        else:
            self._add(_Generation(key, name, file, START, self._clock()))

    def _add(self, generation: _Generation) -> None:
        self._places.pop(generation.key, None)
        self._copies.discard(generation.key)
        self._open.append(generation)

    def _continue(self, orphan: _Orphan, key: str, name: str, file: FileIO) -> None:
        """Read on in the copy of a file that was cut, before what that file holds now."""
        line = orphan.line or orphan.place
        copy = _Generation(key, name, file, line, self._clock())
        if orphan.splitter is not None:
            copy.splitter = orphan.splitter
            copy.at = orphan.place
        copy.history.extend(orphan.history)
        self._note(key, line, True)
        self._note_anew(orphan)
        self._add(copy)
        self._open.remove(copy)
        at = next((i for i, g in enumerate(self._open) if g.key == orphan.key), 0)
        self._open.insert(at, copy)

    def _note_anew(self, orphan: _Orphan) -> None:
        """What was read of that file is settled: it is read from its start, or gone."""
        if any(generation.key == orphan.key for generation in self._open):
            self._note(orphan.key, START, True)
        else:
            self._note(orphan.key, orphan.place, False)

    def _give_up(self, orphan: _Orphan) -> None:
        """Nothing has the rest of a file that was cut or is gone."""
        self._tell(
            f"{orphan.name} was cut or removed: what was written after byte {orphan.place.offset} "
            "and before that, if anything, is lost"
        )
        if orphan.splitter is not None:
            first = orphan.splitter.place
            if lines := orphan.splitter.finish():
                self._ready.append(Batch(orphan.key, first, orphan.place, lines))

    def _has_successor(self) -> bool:
        """Whether something was written to the file that has the name now."""
        return any(g.key == self._current and os.fstat(g.file.fileno()).st_size for g in self._open)

    def _retire(self, generation: _Generation) -> None:
        generation.file.close()
        self._open.remove(generation)
        self._places[generation.key] = generation.at
        self._note(generation.key, generation.at, False)


class _Orphan(NamedTuple):
    """What was read of a file that was cut, or is gone: a copy may have the rest."""

    key: str
    name: str
    place: Place
    history: Sequence[Place] = ()
    live: bool = True
    """Whether more was expected of it."""
    line: Place | None = None
    """Where its last whole line ended, if that is elsewhere."""
    splitter: LineSplitter | None = None


def _key(status: os.stat_result) -> str:
    return f"{status.st_dev}:{status.st_ino}"


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=12).hexdigest() if data else ""


def _opened(name: str, key: str) -> FileIO | None:
    """The file of that name if it still is the one that was seen."""
    try:
        file = open(name, "rb", buffering=0)  # noqa: SIM115
    except OSError:
        return None
    if _key(os.fstat(file.fileno())) == key:
        return file
    file.close()
    return None


def _place_at(file: FileIO, offset: int) -> Place:
    length = min(offset, TAIL)
    return Place.after(offset, os.pread(file.fileno(), length, offset - length))


def _fits(file: FileIO, place: Place) -> bool:
    """Whether the bytes before the place are in the file."""
    data = os.pread(file.fileno(), place.length, place.offset - place.length)
    return len(data) == place.length and _digest(data) == place.digest


def _is_beginning(file: FileIO, size: int, other: FileIO) -> bool:
    """Whether a file is the beginning of another one, by its own beginning and end."""
    length = min(size, TAIL)
    for offset in (0, size - length):
        mine = os.pread(file.fileno(), length, offset)
        if mine != os.pread(other.fileno(), length, offset):
            return False
    return True


def _was_read(file: FileIO, size: int, history: Sequence[Place]) -> bool:
    """Whether a file holds what was read of one that is gone, as far as it goes."""
    before = [place for place in history if place.offset <= size]
    return bool(before) and _fits(file, before[-1])
