"""The states of the jobs that changed last, kept in memory up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict

from streamkit.journal.rules.jobs import Job

__all__ = ["KnownJobs"]

_COST = 1024
"""What a state holds beside its text."""


class KnownJobs:
    """States by job id. What was put in least lately is let go of first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._jobs: OrderedDict[str, tuple[Job, int]] = OrderedDict()
        self.size = 0

    def get(self, job_id: str) -> Job | None:
        found = self._jobs.get(job_id)
        return None if found is None else found[0]

    def forget(self, job_id: str) -> None:
        """Nothing is known of a job that is removed."""
        _, size = self._jobs.pop(job_id, (None, 0))
        self.size -= size

    def put(self, job: Job) -> None:
        _, before = self._jobs.pop(job.job_id, (None, 0))
        size = _COST + job.size
        self._jobs[job.job_id] = (job, size)
        self.size += size - before
        while self.size > self._most:
            _, (_, size) = self._jobs.popitem(last=False)
            self.size -= size
