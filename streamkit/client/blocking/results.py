"""What a Client hands out beside streams and writers. Written by scripts/blocking.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamkit.client.blocking.handles import SyncJobBase, SyncQueryBase
from streamkit.generated.streamservice import (
    Column,
)

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["SyncJob", "SyncQuery"]


class SyncQuery(SyncQueryBase):
    """The result of one statement. Get it from `client.query()`; a context manager.

    Read it once, by rows (`for row in query`), by batches or as a whole. It is never run
    again after its first batch has arrived: a broken connection then raises ConnectError.
    """

    @property
    def schema(self) -> pyarrow.Schema | None:
        """Of an Arrow result, once it has begun to be read."""
        return self._twin.schema

    @property
    def total_rows(self) -> int:
        """As soon as the server knows it; 0 until then, exact at the end."""
        return self._twin.total_rows

    @property
    def total_batches(self) -> int:
        """As `total_rows`."""
        return self._twin.total_batches

    def start(self) -> None:
        """Run the statement and wait for its first batch. Raises QueryError for a wrong one."""
        self._portal.run(self._twin.start())

    def close(self) -> None:
        """Cancel what still runs, on the server too. May be called twice."""
        self._portal.run(self._twin.close())

    @property
    def columns(self) -> list[Column]:
        """Names and types in order. Empty if the query was made with `columns=False`."""
        return self._twin.columns

    def to_arrow(self) -> pyarrow.Table:
        """The whole result as an Arrow table. Needs pyarrow, and a query not started as rows."""
        return self._portal.run(self._twin.to_arrow())

    def to_pandas(self) -> pandas.DataFrame:
        """The whole result as a pandas frame. Needs pandas beside pyarrow."""
        return self._portal.run(self._twin.to_pandas())

    def to_polars(self) -> polars.DataFrame:
        """The whole result as a polars frame. Needs polars beside pyarrow."""
        return self._portal.run(self._twin.to_polars())


class SyncJob(SyncJobBase):
    """One running job. Get it from `client.job()`; use it as a context manager.

    Entering creates the job; leaving it finishes the job, unless `finish` was called: completed,
    or failed with the error that left the block, or cancelled if that was asked for. Reports
    survive an outage of the server like everything written by a client; while they wait, a newer
    `advance` takes the place of an older one.

    `cancel_requested` is set when somebody asked for the job to be cancelled: the work should end.
    """

    @property
    def id(self) -> str:
        """Once the block is entered: a job that has had its run gets the next number."""
        return self._twin.id

    @property
    def total(self) -> int:
        """Units to do, 0 if nobody knows."""
        return self._twin.total

    @property
    def service(self) -> str:
        """Of the job's own log lines."""
        return self._twin.service

    @property
    def completed(self) -> int:
        """Units done."""
        return self._twin.completed

    def update(
        self,
        percentage: int | None = None,
        step: str | None = None,
        completed: int | None = None,
        total: int | None = None,
    ) -> None:
        """Report progress. Every call is one report; waits only while the buffer is full."""
        self._portal.run(self._twin.update(percentage, step, completed, total))

    def log(self, message: str, level: str = "info", **fields: object) -> None:
        """Write a line to the job's log; waits only while the buffer is full."""
        self._portal.run(self._twin.log(message, level, **fields))

    def finish(
        self, status: str = "completed", error: str = "", exit_code: int | None = None
    ) -> None:
        """End the job and wait until the end is stored. A second call does nothing.

        Raises what kept the reports from arriving within ten seconds.
        """
        self._portal.run(self._twin.finish(status, error, exit_code))

    def finish_quietly(self, status: str = "completed", error: str = "") -> None:
        """As `finish`, but a report that does not arrive is only counted and told as an event."""
        self._portal.run(self._twin.finish_quietly(status, error))

    def close(self) -> None:
        """Stop reporting, at once and without an end: the server will count the job as lost."""
        self._portal.run(self._twin.close())
