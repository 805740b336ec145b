"""The table of jobs on narrow terminals."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from streamkit.cli.rendering.jobs import JobsTable
from streamkit.generated.streamservice import JobProgress

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
JOBS = [
    JobProgress(
        job_id=job_id,
        status="running",
        percentage=40,
        completed=400,
        total=1000,
        current_step="copying what is there",
        created_at=NOW - timedelta(minutes=5),
        updated_at=NOW - timedelta(seconds=5),
    )
    for job_id in ("nightly-import", "x")
]


@pytest.mark.parametrize("width", [24, 40, 50, 66, 80])
def test_the_id_and_the_status_of_a_job_can_be_read_however_narrow_it_is(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(JobsTable(JOBS, NOW))
    lines = capture.get().splitlines()
    assert len(lines) == 1 + len(JOBS) and max(map(len, lines)) <= width
    assert lines[0].startswith("JOB") and lines[2].startswith("x ")
    assert lines[1].startswith("nightly-import")
    assert all("running" in line for line in lines[1:])
    assert ("40% 400/1000" in lines[1]) == (width >= 32)
    assert ("s ago" in lines[1]) == (width >= 50)
    assert ("copying" in lines[1]) == (width >= 64)
    assert ("5m00s" in lines[1]) == (width >= 72)
