"""What StreamHandler does when a process ends: it brings the last lines, and holds nothing up."""

from __future__ import annotations

import logging
import logging.config
import os
import socket
import subprocess
import sys
import time
import warnings

import pytest

from streamkit.client.blocking.logging import StreamHandler
from tests.client.blocking.logged import entries
from tests.client.servers import ThreadServer


@pytest.mark.parametrize("kind", ["refusing", "silent"])
def test_the_end_is_held_up_for_two_seconds_at_most(log: logging.Logger, kind: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if kind == "silent":
            listener.listen()
        host, port = listener.getsockname()
        handler = StreamHandler("h-end", f"{host}:{port}")
        log.addHandler(handler)
        log.info("lost")
        started = time.monotonic()
        logging.shutdown([lambda: handler])
        assert time.monotonic() - started < 6  # two seconds, and those of a busy machine
        assert handler.dropped == 1
        log.info("ignored")


def test_a_short_script_delivers_its_last_lines(server: ThreadServer) -> None:
    """Nothing but two lines and the end of the interpreter."""
    script = (
        "import logging, streamkit\n"
        f"logging.getLogger().addHandler(streamkit.StreamHandler('h-script', '{server.address}'))\n"
        "logging.error('one')\nlogging.error('two')\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
    print(f"script with handler: {time.monotonic() - started:.2f} s")
    assert [entry.message for entry in entries(server, "h-script")] == ["one", "two"]


def test_a_name_is_resolved_even_when_the_interpreter_ends(server: ThreadServer) -> None:
    port = server.address.rpartition(":")[2]
    script = (
        "import logging, streamkit\n"
        f"logging.getLogger().addHandler(streamkit.StreamHandler('h-name', 'localhost:{port}'))\n"
        "logging.error('by name')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
    assert [entry.message for entry in entries(server, "h-name")] == ["by name"]


def test_a_forked_child_ships_its_own_lines_only(server: ThreadServer, log: logging.Logger) -> None:
    handler = StreamHandler("h-fork", server.address)
    log.addHandler(handler)
    log.info("parent before")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork, from 3.12 on
        child = os.fork()
    if child == 0:
        code = 1
        try:
            log.info("child")
            handler.close()
            code = 0 if handler.dropped == 0 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    log.info("parent after")
    handler.flush()
    texts = sorted(entry.message for entry in entries(server, "h-fork"))
    assert texts == ["child", "parent after", "parent before"]


def test_a_forked_child_waits_for_nothing_of_its_parents(
    server: ThreadServer, log: logging.Logger
) -> None:
    handler = StreamHandler("h-waits", server.address, shutdown_timeout=30)
    log.addHandler(handler)
    log.info("parent")
    handler.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads and fork, from 3.12 on
        child = os.fork()
    if child == 0:
        began = time.monotonic()
        handler.flush()
        os._exit(int(time.monotonic() - began > 15))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


PROCESSES = """
import logging, multiprocessing, streamkit
log = logging.getLogger("app")
log.addHandler(streamkit.StreamHandler("h-processes", "{address}"))
log.warning("parent")
fork = multiprocessing.get_context("fork")
children = [fork.Process(target=log.warning, args=(f"child {{n}}",)) for n in range(3)]
for child in children:
    child.start()
for child in children:
    child.join()
"""


def test_what_a_process_of_multiprocessing_logs_last_arrives(server: ThreadServer) -> None:
    """It ends by os._exit: neither atexit nor logging.shutdown runs in it."""
    script = PROCESSES.format(address=server.address)
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=20)
    texts = sorted(entry.message for entry in entries(server, "h-processes"))
    assert texts == ["child 0", "child 1", "child 2", "parent"]


SEVERAL = """
import logging, streamkit, time, atexit, sys
log = logging.getLogger("app")
for number in range(5):
    log.addHandler(streamkit.StreamHandler(f"h-{number}", "127.0.0.1:9"))
log.warning("lost")
print(time.monotonic())
"""


def test_several_handlers_hold_the_end_up_no_longer_than_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL], capture_output=True, text=True, timeout=30, check=True
    )
    held_up = time.monotonic() - float(done.stdout)
    print(f"five handlers without a server held the end up for {held_up:.1f} s")
    assert held_up < 6, "two seconds, and those of a busy machine; one after the other ten"
    assert len(done.stderr.splitlines()) == 10, (
        "each says once that it is cut off, and what is lost"
    )
