"""Large messages come and go without the system's clearing their memory each time."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from streamkit.transport import run

async def work() -> int:
    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        [b"x" * (1 << 20) for _ in range(6)]
    before = faults()
    for _ in range(50):
        [b"x" * (1 << 20) for _ in range(6)]
    return faults() - before

print(run(work()))
"""
PAGES = 50 * 6 * (1 << 20) // os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("own", [False, True], ids=["by default", "set up by its user"])
def test_large_blocks_are_used_again(own: bool) -> None:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_"))
    }
    if own:
        environment["MALLOC_MMAP_THRESHOLD_"] = "131072"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
    )
    cleared = int(done.stdout) / PAGES
    assert (cleared > 0.5) is own, cleared
