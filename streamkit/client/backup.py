"""A backup of a server's store, into a file that is whole or not there."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from streamkit.errors import ConnectError, PreconditionError
from streamkit.generated.streamservice import BackupChunk, BackupRequest
from streamkit.transport import ClientCall

__all__ = ["save_backup"]


async def save_backup(
    call: ClientCall[BackupRequest, BackupChunk], path: str | os.PathLike[str]
) -> int:
    """Write what a server sends beside `path`, and rename it when it is whole; return its bytes.

    PreconditionError where the file cannot be written, ConnectError when the end is missing;
    nothing is left behind then.
    """
    target = os.fspath(path)
    handle, beside = _beside(target)
    try:
        with os.fdopen(handle, "wb") as file:
            size = written = 0
            async with call:
                async for chunk in call:
                    size = chunk.size or size
                    with _explained(target):
                        await asyncio.to_thread(file.write, chunk.data)
                    written += len(chunk.data)
            if not written or written != size:
                raise ConnectError(f"the backup ended after {written} of {size} bytes")
            with _explained(target):
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
                os.replace(beside, target)
    finally:
        with suppress(FileNotFoundError):  # it has its own name by now
            os.unlink(beside)
    return written


def _beside(target: str) -> tuple[int, str]:
    folder, name = os.path.split(os.path.abspath(target))
    with _explained(target):
        found = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    return found


@contextmanager
def _explained(target: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PreconditionError(f"cannot write {target}: {error.strerror}") from None
