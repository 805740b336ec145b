"""All that a message holds is weighed."""

from __future__ import annotations

from datetime import UTC, datetime
from sys import getsizeof

from streamkit.codec import encode
from streamkit.generated.streamservice import JobReport, LogEntry, PublishRequest, Update
from streamkit.journal import Weighed, weight_of

BIG = "v" * 1_000_000


def test_text_wherever_it_is() -> None:
    for message in (
        Update(topic="t", message=BIG),
        Update(topic="t", metadata={"k": BIG}),
        Update(topic="t", metadata={BIG: "v"}),
        LogEntry(service="s", fields={"k": BIG}, timestamp=datetime.now(UTC)),
        JobReport(job_id="j", error=BIG),
        JobReport(job_id="j", current_step=BIG),
    ):
        assert 1_000_000 < weight_of([message]) < 1_010_000
    received = PublishRequest().parse(encode(PublishRequest(updates=[Update(topic=BIG)] * 3)))
    assert 3_000_000 < weight_of(received.updates) < 3_010_000


def test_characters_of_four_bytes_and_many_small_entries() -> None:
    emoji = "\N{GRINNING FACE}" * 1_000_000
    assert weight_of([Update(message=emoji)]) > getsizeof(emoji) > 4_000_000
    assert weight_of([Update(metadata={f"{n}": "" for n in range(10_000)})]) > 1_000_000
    assert weight_of([Update()] * 1000) > 100_000


def test_it_is_done_once() -> None:
    weighed = Weighed([Update(message="x")])
    weighed.append(Update(message=BIG))
    assert weight_of(weighed) < 2000
