"""TailLogs: levels, history, following."""

from __future__ import annotations

import asyncio

import pytest

from streamkit.errors import InvalidArgumentError
from streamkit.generated.streamservice import LogEntry, StartFrom
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.journal import Journal
from streamkit.transport import Channel
from tests.handlers.calls import rest, tail, take


async def write(journal: Journal, *lines: tuple[str, str, str]) -> None:
    await journal.append_logs(
        [LogEntry(service=service, level=level, message=text) for service, level, text in lines]
    )


async def numbered(journal: Journal, first: int, count: int, service: str = "api") -> None:
    await write(journal, *((service, "info", str(n)) for n in range(first, first + count)))


async def test_a_level_means_that_one_and_above(journal: Journal, channel: Channel) -> None:
    await write(
        journal,
        ("api", "debug", "d"),
        ("api", "info", "i"),
        ("api", "warn", "w"),
        ("web", "error", "other"),
        ("api", "error", "e"),
    )
    wanted = {"": "diwe", "debug": "diwe", "INFO": "iwe", "Warn": "we", "error": "e"}
    for level, messages in wanted.items():
        async with tail(channel, "api", log_level=level) as call:
            assert "".join(entry.message for entry in await rest(call)) == messages


async def test_without_following_the_last_hundred(journal: Journal, channel: Channel) -> None:
    await numbered(journal, 0, 150)
    async with tail(channel, "api") as call:
        assert [entry.message for entry in await rest(call)] == [str(n) for n in range(50, 150)]
    async with tail(channel, "api", lines=3) as call:
        assert [entry.message for entry in await rest(call)] == ["147", "148", "149"]


async def test_following_without_lines_gives_what_is_new(
    journal: Journal, channel: Channel
) -> None:
    await numbered(journal, 0, 5)
    async with tail(channel, "api", follow=True) as call:
        metadata = await call.initial_metadata()
        assert metadata["streamkit-position"] == "5"
        await numbered(journal, 5, 1)
        [entry] = await take(call, 1)
        assert (entry.message, entry.sequence, entry.level) == ("5", 6, "info")


async def test_lines_then_following_without_gap_or_repetition(
    journal: Journal, channel: Channel
) -> None:
    """Many tails begin while lines are being written; each sees one unbroken run."""
    begun = asyncio.Event()

    async def writer() -> None:
        for number in range(0, 2_000, 10):
            await numbered(journal, number, 10)
            if number == 200:
                begun.set()
            await asyncio.sleep(0)

    async def follow() -> int:
        async with tail(channel, "api", lines=50, follow=True) as call:
            numbers: list[int] = []
            while not numbers or numbers[-1] != 1_999:
                messages = await call.receive()
                assert messages
                numbers += [int(entry.message) for entry in messages]
        assert numbers == list(range(numbers[0], 2_000))
        return numbers[0]

    writing = asyncio.create_task(writer())
    await begun.wait()
    async with asyncio.TaskGroup() as group:
        follows = [group.create_task(follow()) for _ in range(20)]
    await writing
    assert all(follow.result() >= 160 for follow in follows)


async def test_services_by_pattern_and_several_at_once(journal: Journal, channel: Channel) -> None:
    await write(
        journal,
        ("api-eu", "info", "1"),
        ("api-us", "info", "2"),
        ("web", "info", "3"),
        ("job", "info", "4"),
    )

    async def seen(service: str, services: list[str]) -> str:
        async with tail(channel, service, services=services) as call:
            return "".join(entry.message for entry in await rest(call))

    assert await seen("", []) == "1234"
    assert await seen("api-*", []) == "12"
    assert await seen("api-us", ["web"]) == "23"
    assert await seen("", ["job", "*-eu"]) == "14"
    assert await seen("nobody", []) == ""


async def test_a_start_takes_the_place_of_lines(journal: Journal, channel: Channel) -> None:
    await numbered(journal, 0, 10)
    place = WirePosition(epoch=journal.epoch, sequence=7)
    async with tail(channel, "api", lines=5, start=StartFrom(after=place)) as call:
        assert [entry.message for entry in await rest(call)] == ["7", "8", "9"]
    async with tail(channel, "api", start=StartFrom(all=True)) as call:
        assert len(await rest(call)) == 10


@pytest.mark.parametrize(
    ("request_fields", "words"),
    [
        ({"lines": -1}, "lines must not be negative"),
        ({"log_level": "loud"}, "log_level must be debug, info, warn or error"),
        ({"services": [""]}, "must not be empty"),
    ],
)
async def test_bad_requests(
    channel: Channel, request_fields: dict[str, object], words: str
) -> None:
    async with tail(channel, "api", **request_fields) as call:
        with pytest.raises(InvalidArgumentError, match=words):
            await call.receive()
