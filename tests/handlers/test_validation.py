"""Every rule names the field that broke it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from streamkit.errors import InvalidArgumentError
from streamkit.generated.streamservice import (
    JobReport,
    LogEntry,
    Producer,
    StartFrom,
    Update,
)
from streamkit.generated.streamservice import Position as WirePosition
from streamkit.handlers.validation import (
    check_count,
    check_job_id,
    check_job_report,
    check_log_entries,
    check_reason,
    check_statuses,
    check_topics,
    check_updates,
    level_rank,
    producer_id,
    seconds,
    service_patterns,
    start_from,
)
from streamkit.journal.base import Position, ProducerId, Start


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (lambda: check_topics([]), "topics must not be empty"),
        (lambda: check_topics(["a", ""]), "topics[1] must not be empty"),
        (lambda: check_topics(["a..b"]), "topics[0] must not have an empty token"),
        (lambda: check_topics([".a"]), "topics[0] must not have an empty token"),
        (lambda: check_topics(["ord*"]), 'topics[0] has a "*" that is not a whole token'),
        (lambda: check_topics(["a.>.b"]), 'topics[0] has a ">" that is not the whole last token'),
        (lambda: check_topics(["a.b>"]), 'topics[0] has a ">"'),
        (lambda: check_topics(["a b"]), "topics[0] must not contain spaces"),
        (lambda: check_topics(["a\x1b"]), "topics[0] must not contain control characters"),
        (lambda: check_topics(["a" * 256]), "topics[0] must not be longer than 255"),
        (lambda: check_topics(["t"] * 1001), "topics must not hold more than 1000"),
        (lambda: check_topics(["*." * 16 + "*"]), 'topics[0] must not have more than 16 "*"'),
        (lambda: service_patterns("*a" * 17, []), 'service_name must not have more than 16 "*"'),
        (lambda: service_patterns("api\n", []), "service_name must not contain control"),
        (lambda: service_patterns("api", [""]), "services[0] must not be empty"),
        (lambda: check_job_id(""), "job_id must not be empty"),
        (lambda: check_count(-1, "lines"), "lines must not be negative"),
        (lambda: check_count(-5, "batch_size"), "batch_size must not be negative (it is -5)"),
        (lambda: seconds(timedelta(seconds=-2), "wait"), "wait must not be negative"),
        (lambda: seconds(timedelta.max, "wait"), "wait must not be longer than 366 days"),
        (lambda: start_from(StartFrom(last=1 << 63)), "start.last must be less than 2^63"),
        (
            lambda: start_from(StartFrom(after=WirePosition("e", (1 << 64) - 1))),
            "start.after.sequence must be less than 2^63",
        ),
        (lambda: level_rank("loud"), "log_level must be debug, info, warn or error"),
        (lambda: producer_id(Producer(id="p")), "producer.sequence must count from 1"),
        (lambda: producer_id(Producer(sequence=1)), "producer.id must not be empty"),
        (lambda: check_updates([Update(topic="")]), "updates[0].topic must not be empty"),
        (
            lambda: check_updates([Update(topic="a"), Update(topic="a.*")]),
            "updates[1].topic must not contain wildcards",
        ),
        (
            lambda: check_log_entries([LogEntry(message="x")], "logs"),
            "logs[0].service must not be empty",
        ),
        (
            lambda: check_log_entries([LogEntry(service="a*")], "entries"),
            'entries[0].service must not contain "*"',
        ),
        (lambda: check_job_report(JobReport()), "job_id must not be empty"),
        (
            lambda: check_job_report(JobReport(job_id="j", percentage=101), "jobs[3]."),
            "jobs[3].percentage must be from 0 to 100 (it is 101)",
        ),
        (lambda: check_job_report(JobReport(job_id="j", percentage=-1)), "percentage"),
        (
            lambda: check_job_report(JobReport(job_id="j", current_step="x" * 70_000)),
            "current_step must not be longer than 65536 characters (it has 70000)",
        ),
        (
            lambda: check_job_report(JobReport(job_id="j", error="x" * 300_000), "jobs[0]."),
            "jobs[0].error must not be longer",
        ),
        (lambda: check_reason("x" * 300_000), "reason must not be longer"),
        (lambda: check_job_report(JobReport(job_id="j", status="done")), "status must be one of"),
        (lambda: check_job_report(JobReport(job_id="j", status="lost")), "status must be one of"),
        (
            lambda: check_job_report(JobReport(job_id="j", status="running"), finish=True),
            "status must be one of cancelled, completed, failed",
        ),
        (lambda: check_job_report(JobReport(job_id="j", total=-1)), "total must not be negative"),
        (
            lambda: check_job_report(JobReport(job_id="j", heartbeat=timedelta(seconds=-1))),
            "heartbeat must not be negative",
        ),
        (
            lambda: check_job_report(JobReport(job_id="j", heartbeat=timedelta.max), "jobs[1]."),
            "jobs[1].heartbeat must not be longer than 366 days",
        ),
        (
            lambda: producer_id(Producer(id="p", sequence=1 << 63)),
            "producer.sequence must be less than 2^63",
        ),
        (lambda: check_statuses(["failed"] * 101), "statuses must not hold more than 100"),
        (lambda: check_statuses(["running", "odd"]), "statuses[1] must be one of"),
    ],
)
def test_what_is_wrong_is_named(check: Callable[[], object], words: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        check()
    assert raised.value.message.startswith(words)
    assert "\n" not in raised.value.message
    assert "\x1b" not in raised.value.message


def test_what_is_right_passes() -> None:
    assert check_topics(["orders.*", ">", "a.b.>", "orders.*"]) == ("orders.*", ">", "a.b.>")
    assert service_patterns("", []) == ()
    assert service_patterns("api-*", ["my service"]) == ("api-*", "my service")
    assert [level_rank(level) for level in ("", "debug", "INFO", "Warn", "error")] == [
        0,
        0,
        1,
        2,
        3,
    ]
    assert producer_id(Producer()) is None
    assert producer_id(Producer(id="p", sequence=3)) == ProducerId("p", 3)
    check_job_report(JobReport(job_id="j", percentage=0, status=""))
    check_job_report(JobReport(job_id="j", status="failed"), finish=True)
    assert check_statuses([]) == ()


@pytest.mark.parametrize(
    ("given", "level", "kept"),
    [
        ("info", "info", None),
        ("INFO", "info", None),
        ("", "info", None),
        ("Warning", "warn", "Warning"),
        ("CRITICAL", "error", "CRITICAL"),
        ("trace", "debug", "trace"),
        ("NOTICE", "info", "NOTICE"),
        ("audit", "info", "audit"),
    ],
)
def test_a_foreign_level_is_mapped_and_kept(given: str, level: str, kept: str | None) -> None:
    entry = LogEntry(service="s", level=given)
    check_log_entries([entry], "logs")
    assert entry.level == level
    assert entry.fields.get("level") == kept


def test_a_producers_own_level_field_is_left_alone() -> None:
    entry = LogEntry(service="s", level="fatal", fields={"level": "9"})
    check_log_entries([entry], "logs")
    assert (entry.level, entry.fields) == ("error", {"level": "9"})


def test_starts() -> None:
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    assert start_from(StartFrom()) is None
    assert start_from(StartFrom(new=True)) == Start()
    assert start_from(StartFrom(all=True)) == Start(all=True)
    assert start_from(StartFrom(last=5)) == Start(last=5)
    assert start_from(StartFrom(last=0)) == Start()
    assert start_from(StartFrom(since=moment)) == Start(since=moment)
    place = WirePosition(epoch="e", sequence=7)
    assert start_from(StartFrom(after=place)) == Start(after=Position("e", 7))
