"""The buffer of a producer: bounds, packing, acknowledgement, sending again."""

from __future__ import annotations

import random

import pytest

from streamkit.client.writing.outbox import Outbox, Sealed
from streamkit.errors import InvalidArgumentError, LimitError
from streamkit.generated.streamservice import JobReport, LogEntry, Update, WriteReply


def fill(outbox: Outbox, count: int) -> None:
    for number in range(count):
        assert outbox.offer(Update(topic="a", message=str(number)), 10)


def ack(sealed: Sealed, code: int = 0) -> WriteReply:
    return WriteReply(producer_sequence=sealed.number, code=code)


def must(sealed: Sealed | None) -> Sealed:
    assert sealed is not None
    return sealed


def test_records_are_packed_in_order() -> None:
    outbox = Outbox("p", batch_records=3)
    fill(outbox, 7)
    sent = [must(outbox.next_request()) for _ in range(3)]
    assert outbox.next_request() is None
    assert [[u.message for u in s.request.updates] for s in sent] == [
        ["0", "1", "2"],
        ["3", "4", "5"],
        ["6"],
    ]
    assert [(s.request.producer.id, s.request.producer.sequence) for s in sent] == [
        ("p", 1),
        ("p", 2),
        ("p", 3),
    ]


def test_a_request_is_bounded_in_bytes_but_holds_at_least_one_record() -> None:
    outbox = Outbox("p", batch_size=100)
    for size in (60, 60, 500, 10):
        assert outbox.offer(Update(topic="a"), size)
    sizes = []
    while (sealed := outbox.next_request()) is not None:
        sizes.append(sealed.size)
    assert sizes == [60, 60, 500, 10]


def test_each_kind_of_record_has_its_place() -> None:
    outbox = Outbox("p")
    outbox.offer(Update(topic="a"), 1)
    outbox.offer(LogEntry(service="s"), 1)
    outbox.offer(JobReport(job_id="j"), 1)
    request = must(outbox.next_request()).request
    assert (len(request.updates), len(request.logs), len(request.jobs)) == (1, 1, 1)


def test_the_buffer_is_bounded_in_records_and_bytes() -> None:
    outbox = Outbox("p", records=2)
    fill(outbox, 2)
    assert outbox.full
    assert not outbox.offer(Update(topic="a"), 1)
    outbox = Outbox("p", size=100)
    assert outbox.offer(Update(topic="a"), 100)
    assert not outbox.offer(Update(topic="a"), 1)
    with pytest.raises(InvalidArgumentError):
        Outbox("p", records=0)


def test_what_is_sent_but_unanswered_still_takes_room() -> None:
    outbox = Outbox("p", records=2)
    fill(outbox, 2)
    sealed = must(outbox.next_request())
    assert outbox.full
    outbox.answer(ack(sealed))
    assert not outbox.full
    assert (outbox.acknowledged, len(outbox)) == (2, 0)


def test_a_record_that_no_server_takes_is_refused_at_once() -> None:
    with pytest.raises(LimitError):
        Outbox("p").offer(Update(topic="a"), 5_000_000)


def test_the_window_bounds_what_is_unanswered() -> None:
    outbox = Outbox("p", batch_records=1, window=2)
    fill(outbox, 3)
    first = must(outbox.next_request())
    assert outbox.next_request() is not None
    assert outbox.next_request() is None
    outbox.answer(ack(first))
    assert outbox.next_request() is not None


def test_after_a_break_the_unanswered_go_out_again_unchanged() -> None:
    outbox = Outbox("p", batch_records=2)
    fill(outbox, 6)
    first, second = must(outbox.next_request()), must(outbox.next_request())
    outbox.answer(ack(first))
    outbox.rewind()
    assert outbox.next_request() is second
    assert must(outbox.next_request()).number == 3


def test_an_answer_that_comes_twice_counts_once() -> None:
    outbox = Outbox("p")
    fill(outbox, 1)
    sealed = must(outbox.next_request())
    assert outbox.answer(ack(sealed)) is sealed
    assert outbox.answer(ack(sealed)) is None
    assert outbox.acknowledged == 1


def test_an_answer_out_of_order_is_a_fault() -> None:
    outbox = Outbox("p", batch_records=1)
    fill(outbox, 2)
    outbox.next_request()
    with pytest.raises(InvalidArgumentError):
        outbox.answer(WriteReply(producer_sequence=2))


def test_a_refusal_settles_and_counts() -> None:
    outbox = Outbox("p")
    fill(outbox, 3)
    outbox.answer(ack(must(outbox.next_request()), code=3))
    assert (outbox.acknowledged, outbox.refused, outbox.dropped, outbox.settled) == (0, 3, 3, 3)


def test_numbers_of_ones_own_grow_and_are_not_mixed_with_ours() -> None:
    outbox = Outbox("p")
    line = (LogEntry(message="a", service="s"), 10)
    assert outbox.offer_request([line], 7)
    for number in (7, 6):
        with pytest.raises(InvalidArgumentError, match=f"request {number} cannot follow 7"):
            outbox.offer_request([line], number)
    assert outbox.offer_request([line], 8)
    assert outbox.offer(*line)
    with pytest.raises(InvalidArgumentError, match="request 10 cannot follow"):
        outbox.offer_request([line], 10)


def test_giving_up_counts_what_was_held() -> None:
    outbox = Outbox("p", batch_records=2)
    fill(outbox, 5)
    outbox.next_request()
    assert outbox.abandon() == 5
    assert (outbox.dropped, len(outbox), outbox.settled) == (5, 0, outbox.accepted)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_breaks_every_record_is_stored_once_and_in_order(seed: int) -> None:
    """A server that dedups by number, connections that break at any moment."""
    chance = random.Random(seed)
    outbox = Outbox("p", records=50, batch_records=7, window=4)
    stored: list[str] = []
    last_number = 0
    unanswered: list[WriteReply] = []
    offered = 0
    while outbox.acknowledged < 500:
        step = chance.random()
        if step < 0.5 and offered < 500:
            offered += outbox.offer(Update(topic="a", message=str(offered)), 10)
        elif step < 0.75:
            sealed = outbox.next_request()
            if sealed is not None and chance.random() < 0.9:  # else lost on its way
                if sealed.number > last_number:
                    assert sealed.number == last_number + 1 or not unanswered
                    last_number = sealed.number
                    stored += [update.message for update in sealed.request.updates]
                unanswered.append(ack(sealed))
            elif sealed is not None:
                outbox.rewind()
                unanswered.clear()
        elif step < 0.95 and unanswered:
            outbox.answer(unanswered.pop(0))
        else:
            outbox.rewind()
            unanswered.clear()
        assert len(outbox) <= 50
    assert stored == [str(number) for number in range(500)]
