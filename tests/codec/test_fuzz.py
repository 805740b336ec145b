"""What upb accepts is accepted with the same values, what upb refuses is refused."""

from __future__ import annotations

import gc
import multiprocessing
import random
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from google.protobuf.message import DecodeError as GoogleDecodeError

from streamkit.codec import decode, encode
from streamkit.errors import DecodeError
from tests.codec.mutations import fill, long_run, mutate, noise, varint
from tests.codec.peers import Peers, difference, plain_google, plain_ours

SEEDS = [1, 2, 3, 2024, 77_001]
"""Kept from run to run; a failure names its seed and input."""

slowest = (0.0, 0)
"""The most seconds of CPU time that one input took to be accepted or refused, and its bytes."""


def note_time(ours: Any, data: bytes) -> None:
    """Decode, once more or twice if that was slow: what else the machine did is not the input's."""
    global slowest
    best = 1.0
    for _ in range(3):
        begun = time.thread_time()
        with suppress(DecodeError):
            decode(ours, data)
        best = min(best, time.thread_time() - begun)
        if best <= slowest[0]:
            return
    slowest = best, len(data)


def check(ours: Any, google: Any, data: bytes, every_value: bool = True) -> bool:
    """Compare both decoders on one input; return whether it was accepted.

    Without `every_value` it is enough that what we write again equals what upb read.
    """
    try:
        theirs = google.FromString(data)
    except GoogleDecodeError:
        theirs = None
    note_time(ours, data)
    try:
        mine = decode(ours, data)
    except DecodeError as error:
        assert theirs is None, f"refused ({error}) what upb accepts: {data!r}"
        assert error.reason and error.path.startswith(ours.__name__), data
        return False
    assert theirs is not None, f"accepted what upb refuses: {data!r}"
    again = google.FromString(encode(mine))
    if again == theirs and not every_value:
        return True
    plain = plain_google(theirs)
    found = difference(plain_ours(mine), plain)
    assert not found, f"{found} in {data!r}"
    found = difference(plain_google(again), plain)
    assert not found, f"written again: {found} in {data!r}"
    assert decode(ours, encode(mine)) == mine
    return True


def fuzz(every: Peers, seed: int, count: int) -> tuple[int, int]:
    """Return how many inputs were accepted and refused."""
    rng = random.Random(seed)
    ours, google = every.ours.Every, every.google.Every
    numbers = [field.number for field in google.DESCRIPTOR.fields]
    accepted = done = 0
    while done < count:
        message = google()
        fill(rng, message, rng.choice([0.02, 0.05, 0.1, 0.3]))
        seed_data = message.SerializeToString()
        others = [seed_data[:40], noise(rng, numbers), noise(rng, numbers), b"\x0b\x0c"]
        accepted += check(ours, google, seed_data)
        accepted += check(ours, google, noise(rng, numbers))
        for turn in range(18):
            damaged = mutate(rng, seed_data, others)
            accepted += check(ours, google, damaged, every_value=turn % 6 == 0)
        done += 20
    return accepted, done - accepted


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_messages_are_judged_as_upb_judges_them(every: Peers, seed: int) -> None:
    accepted, refused = fuzz(every, seed, 600)
    assert accepted > 60 and refused > 60


def fuzz_runs(every: Peers, seed: int, count: int) -> tuple[int, int]:
    """The same with long runs of short fields, on their own and in sub-messages."""
    rng = random.Random(seed)
    ours, google = every.ours.Every, every.google.Every
    numbers = [field.number for field in google.DESCRIPTOR.fields]
    numbers += [17, 18, 43, 44, 77, 78, 79, 80, 81, 83, 91, 92, 107, 108, 109, 121, 122, 123] * 3

    def fits(field: bytes) -> bool:
        try:
            google.FromString(field)
        except GoogleDecodeError:
            return False
        return True

    accepted = done = 0
    while done < count:
        data = long_run(rng, numbers, fits)
        if rng.random() < 0.2:
            number = rng.choice([17, 18, 37, 44, 77, 78, 83, 121, 123])
            data = varint(number << 3 | 2) + varint(len(data)) + data
            data *= rng.choice([1, 1, 2, 3])
        accepted += check(ours, google, data)
        for _ in range(3):
            accepted += check(ours, google, mutate(rng, data, [b"\x0b\x0c", data[:40], data[-9:]]))
        done += 4
    return accepted, done - accepted


@pytest.mark.parametrize("seed", SEEDS)
def test_long_runs_are_judged_as_upb_judges_them(every: Peers, seed: int) -> None:
    accepted, refused = fuzz_runs(every, seed, 160)
    assert accepted > 40 and refused > 10


@pytest.mark.soak
def test_a_million_mutated_messages(every: Peers) -> None:
    begun = time.monotonic()
    accepted = refused = 0
    longest = (0.0, 0)
    # The generated modules cannot be imported by name: the processes are forks.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(mp_context=context, initializer=_keep, initargs=(every,)) as pool:
        for yes, no, most in pool.map(_fuzz_kept, range(1_000_000, 1_000_200)):
            accepted, refused, longest = accepted + yes, refused + no, max(longest, most)
    assert accepted + refused >= 1_000_000
    print(
        f"\n{accepted} accepted, {refused} refused in {time.monotonic() - begun:.0f} s,"
        f" the slowest, of {longest[1]} bytes, in {longest[0] * 1e3:.1f} ms"
    )
    assert longest[0] < 0.05


_kept: list[Peers] = []


def _keep(every: Peers) -> None:
    global slowest
    _kept.append(every)
    # Classes and expressions are compiled when they are first needed.
    fuzz_runs(every, 1, 1_000)
    slowest = 0.0, 0
    # What the test run has made is no garbage to look through in the middle of an input.
    gc.freeze()


def _fuzz_kept(seed: int) -> tuple[int, int, tuple[float, int]]:
    runs, others = fuzz_runs(_kept[0], seed, 250), fuzz(_kept[0], seed, 4_750)
    return runs[0] + others[0], runs[1] + others[1], slowest
