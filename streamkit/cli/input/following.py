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
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from streamkit.cli.input.generation import (
    START,
    Batch,
    CutError,
    Generation,
    Place,
    fits,
    is_beginning,
    key_of,
    opened,
    place_at,
    was_read,
)
from streamkit.cli.input.lines import LineSplitter, encoding_of
from streamkit.cli.input.rotations import candidates, settled

__all__ = ["Follower", "Note"]

SETTLE = 2.0
"""Seconds that the writer of an old file has to end a line that it began."""
LINGER = 60.0
"""Seconds of quiet after which an old file is closed; where it still has a name it is opened again
when it grows."""
LOOK_EVERY = 0.5
MOST_PLACES = 4_096
"""Files whose place is remembered."""
MOST_OPEN = 128
"""Files open at a time; others wait until one of them is read to its end."""


class Note(NamedTuple):
    """A place that no batch tells of, and whether more is expected there."""

    key: str
    place: Place
    live: bool


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
        self._open: list[Generation] = []
        """Oldest first."""
        self._places: dict[str, Place] = dict(places or {})
        """Of files that are not open."""
        self._copies: dict[str, Generation] = {}
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
            moved, pause = key_of(self._path.stat()) != self._current, LOOK_EVERY
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
            except CutError:
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
        for name, _ in settled(self._path):
            try:
                with open(name, "rb", buffering=0) as file:
                    if not fits(file, place):
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
        for name, status in settled(self._path):
            key, own, place = key_of(status), name == str(self._path), START
            if from_end or not own:
                with open(name, "rb", buffering=0) as file:
                    place = place_at(file, status.st_size)
            self._places[key] = place
            self._note(key, place, own)

    def _look(self, trails: Mapping[str, Sequence[Place]] | None = None) -> None:
        found = candidates(self._path) if trails is None else settled(self._path)
        if self._find_cut():
            found = settled(self._path)  # with the copies that were made before
        self._forget_copies({key_of(status) for _, status in found})
        by_key = {generation.key: generation for generation in self._open}
        unknown: list[tuple[str, str]] = []
        for name, status in found:
            key = key_of(status)
            if name == str(self._path):
                self._current = key
            if key in by_key:
                by_key[key].name = name
            elif not self._recognise(key, name, status.st_size, live=key in (trails or ())):
                unknown.append((key, name))
        if trails is not None:
            self._miss(
                trails, {key_of(status) for _, status in found} - {key for key, _ in unknown}
            )
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
        cut = [generation for generation in self._open if not fits(generation.file, generation.at)]
        for old in cut:
            fresh = Generation(old.key, old.name, old.file, START, self._clock())
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
        if (file := opened(name, key)) is None:
            return True  # rotated in this moment; the next look finds it
        if not fits(file, place):
            file.close()
            return False
        generation = Generation(key, name, file, place, self._clock())
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
        if (file := opened(name, key)) is None:
            return
        size = os.fstat(file.fileno()).st_size
        for orphan in self._orphans:
            if not current and orphan.place.offset and fits(file, orphan.place):
                self._orphans.remove(orphan)
                self._continue(orphan, key, name, file)
                return
        if current:
            self._add(Generation(key, name, file, START, self._clock()))
        elif not size:
            file.close()  # nothing can be told of it yet
        elif original := next((g for g in self._open if is_beginning(file, size, g.file)), None):
            # Not ours until the other one is cut and this one has what was not read of it.
            self._copies[key] = original
            file.close()
        elif self._was_read_before(key, file, size):
            self._copies.pop(key, None)
            self._places[key] = place_at(file, size)
            self._note(key, self._places[key], False)
            file.close()
        elif not all(fits(g.file, g.at) for g in self._open):
            file.close()  # one was cut in this moment, and this may be its copy: at the next look
            self._looked -= LOOK_EVERY
        else:
            self._add(Generation(key, name, file, START, self._clock()))

    def _was_read_before(self, key: str, file: FileIO, size: int) -> bool:
        """Whether it is a copy of what was read, as far as it goes."""
        original = self._copies.get(key)
        if original is not None and original.has_read(file, size):
            return True
        return any(was_read(file, size, orphan.history) for orphan in self._orphans)

    def _forget_copies(self, there: set[str]) -> None:
        for key in self._copies.keys() - there:
            del self._copies[key]

    def _add(self, generation: Generation) -> None:
        self._places.pop(generation.key, None)
        self._copies.pop(generation.key, None)
        self._open.append(generation)

    def _continue(self, orphan: _Orphan, key: str, name: str, file: FileIO) -> None:
        """Read on in the copy of a file that was cut, before what that file holds now."""
        line = orphan.line or orphan.place
        copy = Generation(key, name, file, line, self._clock())
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

    def _retire(self, generation: Generation) -> None:
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
