"""What all connections of a door write in one turn of the loop."""

from __future__ import annotations

import asyncio

from streamkit.doors.http.outbox import Outbox


class _Sender:
    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.told: list[str] = []

    def flush_soon(self) -> None:
        if self.fails:
            raise RuntimeError("closed")
        self.told.append("flushed")

    def broken(self) -> None:
        self.told.append("broken")


async def test_a_response_that_cannot_be_written_holds_up_no_other() -> None:
    outbox, loop = Outbox(), asyncio.get_running_loop()
    senders = [_Sender(), _Sender(fails=True), _Sender()]
    for sender in senders:
        outbox.add(sender, loop)
    assert [sender.told for sender in senders] == [[], [], []]
    await asyncio.sleep(0)
    assert [sender.told for sender in senders] == [["flushed"], ["broken"], ["flushed"]]
    outbox.add(senders[0], loop)  # the next turn has a callback of its own
    await asyncio.sleep(0)
    assert senders[0].told == ["flushed", "flushed"]


def test_a_chunk_is_made_once_for_the_same_bytes() -> None:
    outbox = Outbox()
    data = bytes(range(30))
    chunk = outbox.chunk(data)
    assert chunk == b"1e\r\n" + data + b"\r\n"
    assert outbox.chunk(data) is chunk
    assert outbox.chunk(b"other") == b"5\r\nother\r\n"
    large = bytes(600_000)  # not kept
    assert outbox.chunk(large) is not outbox.chunk(large)
