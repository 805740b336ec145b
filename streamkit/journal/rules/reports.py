"""A request of job reports, applied to the states that are there: what both engines share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from streamkit.errors import AlreadyExistsError
from streamkit.generated.streamservice import JobReport
from streamkit.journal.base import ProducerId
from streamkit.journal.rules.dedupe import Answer
from streamkit.journal.rules.jobs import Job, reported

__all__ = ["Settled", "producer_of", "settle"]


@dataclass(slots=True)
class Settled:
    """What a request of reports comes to. Nothing of it is stored yet."""

    states: dict[str, Job] = field(default_factory=dict)
    """The last state of every job that was reported on."""
    events: list[Job] = field(default_factory=list)
    """Every change, in order, with its sequence."""
    after: list[Job | tuple[str, int]] = field(default_factory=list)
    """Per report the state after it, or job id and sequence of what a repeat was answered."""
    answers: dict[ProducerId, Answer] = field(default_factory=dict)
    """What to remember of the producers' new requests."""


def settle(
    reports: Sequence[JobReport],
    *,
    create: bool,
    now: datetime,
    next_sequence: int,
    stored: Callable[[str], Job | None],
    answered: Callable[[ProducerId], Answer | None],
) -> Settled:
    """Apply reports in order. Reports of one producer's request share its sequence.

    Raises AlreadyExistsError, InvalidArgumentError or PreconditionError for the whole request.
    """
    settled = Settled()
    known: dict[ProducerId, Answer | None] = {}
    sequences: dict[ProducerId, list[int]] = {}
    for report in reports:
        producer = producer_of(report)
        if producer is not None:
            if producer not in known:
                known[producer] = answered(producer)
            given = sequences.setdefault(producer, [])
            answer = known[producer]
            if answer is not None and len(given) < len(answer):
                settled.after.append((report.job_id, answer[len(given)]))
                given.append(answer[len(given)])
                continue
        job = settled.states.get(report.job_id) or stored(report.job_id)
        if create and job is not None:
            raise AlreadyExistsError(f"job {report.job_id!r} exists")
        changed = reported(job, report, now)
        if changed is not job:
            changed = replace(changed, sequence=next_sequence)
            next_sequence += 1
            settled.events.append(changed)
        elif not changed.ended:
            changed = replace(changed, reported_at=now)
        settled.states[changed.job_id] = changed
        settled.after.append(changed)
        if producer is not None:
            given.append(changed.sequence)
    for producer, given in sequences.items():
        if known[producer] is None:
            settled.answers[producer] = tuple(given)
    return settled


def producer_of(report: JobReport) -> ProducerId | None:
    """Who reports, if the report says so."""
    producer = report.producer
    if not producer.id and not producer.sequence:
        return None
    return ProducerId(producer.id, producer.sequence)
