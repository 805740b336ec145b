"""StreamHandler, rule by rule."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from streamkit.client.aio import AsyncClient
from streamkit.client.blocking.client import Client
from streamkit.client.blocking.logging import StreamHandler
from streamkit.errors import AuthError, InvalidArgumentError
from streamkit.generated.streamservice import (
    LogEntry,
    ProducerServiceBase,
    WriteReply,
    WriteRequest,
)
from streamkit.server import Server
from tests.client.servers import ThreadServer, until


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadServer]:
    with ThreadServer() as server:
        yield server


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    # Not registered anywhere: what the test runner hangs on the root logger is not concerned.
    log = logging.Logger("shop.orders", logging.DEBUG)
    yield log
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def entries(server: ThreadServer, service: str) -> list[LogEntry]:
    with Client(server.address) as client:
        return list(client.logs(service, lines=100_000))


def test_records_arrive_with_level_time_and_fields(
    server: ThreadServer, log: logging.Logger
) -> None:
    handler = StreamHandler("h-fields", server.address)
    log.addHandler(handler)
    before = time.time()
    log.debug("d")
    log.info("order %s", 7, extra={"user": "ada", "n": 3})
    log.warning("w")
    log.critical("c")
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("failed")
    handler.flush()
    got = entries(server, "h-fields")
    assert [(e.level, e.message.partition("\n")[0]) for e in got] == [
        ("debug", "d"),
        ("info", "order 7"),
        ("warn", "w"),
        ("error", "c"),
        ("error", "failed"),
    ]
    assert got[1].fields == {"logger": "shop.orders", "user": "ada", "n": "3"}
    assert got[3].fields["level"] == "CRITICAL"
    assert got[4].fields["exc_type"] == "ValueError"
    assert got[4].fields["exc_text"] == "ValueError: bad"
    assert "Traceback" in got[4].message, "one record, not one a line"
    assert "Traceback" not in str(got[4].fields), "once is enough"
    assert before - 1 < got[0].timestamp.timestamp() < time.time() + 1


class Detached:
    """As a row of an ORM whose session is gone."""

    def __str__(self) -> str:
        raise RuntimeError("the row is detached")

    __repr__ = __str__


def test_a_value_without_a_text_does_not_cost_its_record(
    server: ThreadServer, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = StreamHandler("h-detached", server.address)
    log.addHandler(handler)
    log.error("payment failed", extra={"user": Detached(), "order": 7})
    handler.flush()
    (entry,) = entries(server, "h-detached")
    assert entry.message == "payment failed"
    assert entry.fields["order"] == "7"
    assert "RuntimeError" in entry.fields["user"]
    assert capsys.readouterr().err == ""


def test_logging_neither_connects_nor_waits_nor_raises(log: logging.Logger) -> None:
    """A host that cannot be resolved, a port where nobody answers: the caller does not notice."""
    for address in ("no.such.host.invalid:1", "127.0.0.1:9"):
        handler = StreamHandler("h-away", address, capacity=100, shutdown_timeout=0.05)
        log.addHandler(handler)
        log.info("starts the thread")
        took = []
        for number in range(2000):
            started = time.perf_counter()
            log.info("line %s", number)
            took.append(time.perf_counter() - started)
        # A busy machine may take the processor away now and then, but not from one line in a
        # hundred; who connected or waited would be held up at each line, or once for seconds.
        assert sorted(took)[-20] < 0.1 and max(took) < 2
        assert handler.dropped > 0
        log.removeHandler(handler)
        handler.close()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_record_that_cannot_be_formatted_is_reported_the_standard_way(
    server: ThreadServer, log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = StreamHandler("h-bad", server.address)
    log.addHandler(handler)
    log.info("%s", Unprintable())
    log.info("two %s places %s", "one")
    log.info("good", extra={"x": "\ud800"})
    handler.flush()
    assert [(e.message, e.fields["x"]) for e in entries(server, "h-bad")] == [("good", "�")]
    assert "no text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("policy", "kept"), [("drop_oldest", range(15, 25)), ("drop_new", range(10))]
)
def test_the_queue_is_bounded_and_drops_are_counted_and_told(
    server: ThreadServer, log: logging.Logger, policy: Any, kept: range
) -> None:
    service = f"h-{policy}"
    handler = StreamHandler(service, server.address, capacity=10, overflow=policy)
    hold, held = threading.Event(), threading.Event()
    log.addHandler(handler)
    log.info("first")
    handler.flush()
    assert handler._portal is not None

    def block() -> None:
        held.set()
        hold.wait(10)

    handler._portal.loop.call_soon_threadsafe(block)
    held.wait(10)
    for number in range(25):
        log.info("%s", number)
    assert handler.dropped == 15
    hold.set()
    handler.flush()
    got = entries(server, service)
    texts = [entry.message for entry in got]
    assert texts[0] == "first"
    assert [text for text in texts if text.isdigit()] == [str(number) for number in kept]
    (told,) = [entry for entry in got if "dropped" in entry.message]
    assert (told.level, told.fields["dropped"]) == ("warn", "15")


def test_lines_travel_in_batches(server: ThreadServer, log: logging.Logger) -> None:
    handler = StreamHandler("h-batch", server.address)
    log.addHandler(handler)
    for number in range(3000):
        log.info("%s", number)
    handler.flush()
    assert handler._writer is not None
    assert handler._writer.pump.outbox._number < 300, "requests"
    assert [e.message for e in entries(server, "h-batch")] == [str(n) for n in range(3000)]


def test_own_records_are_ignored(server: ThreadServer) -> None:
    root = logging.getLogger()
    handler = StreamHandler("h-own", server.address)
    root.addHandler(handler)
    try:
        for name in ("streamkit", "streamkit.client", "grpclib.client", "hpack", "asyncio"):
            logging.getLogger(name).error("about the shipping")
        logging.getLogger("mine").error("about me")
        handler.flush()
        assert handler._portal is not None
        in_thread = logging.getLogger("mine").error
        handler._portal.loop.call_soon_threadsafe(in_thread, "from the shipping thread")
        handler.flush()
    finally:
        root.removeHandler(handler)
        handler.close()
    assert [entry.message for entry in entries(server, "h-own")] == ["about me"]


def test_a_server_that_is_away_is_told_once_and_gets_the_lines_later(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadServer() as server:
        handler = StreamHandler("h-later", server.address)
        log.addHandler(handler)
        log.info("1")
        handler.flush()
        server.do(server.proxy.refuse())
        for number in range(2, 6):
            log.info("%s", number)
            time.sleep(0.02)
        server.do(server.proxy.heal())
        handler.flush()
        assert [e.message for e in entries(server, "h-later")] == ["1", "2", "3", "4", "5"]
    assert capsys.readouterr().err.count("cannot be reached") == 1


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


def test_dict_config_works_again_and_again(server: ThreadServer) -> None:
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "ship": {
                "class": "streamkit.StreamHandler",
                "service": "h-config",
                "address": server.address,
                "level": "INFO",
            }
        },
        "loggers": {"configured": {"handlers": ["ship"], "level": "DEBUG", "propagate": False}},
    }
    for number in range(3):
        logging.config.dictConfig(config)
        logging.getLogger("configured").info("%s", number)
        logging.getLogger("configured").debug("not wanted")
    config["loggers"] = {"configured": {"handlers": [], "propagate": True}}
    logging.config.dictConfig(config)
    assert [entry.message for entry in entries(server, "h-config")] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "wrong", [{"service": ""}, {"service": "x", "capacity": 0}, {"service": "x", "overflow": "no"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        StreamHandler(**wrong)


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


class Refusing(ProducerServiceBase):
    async def write(self, requests: AsyncIterator[WriteRequest]) -> AsyncIterator[WriteReply]:
        raise AuthError("you may not write")
        yield


async def test_what_is_logged_after_a_final_refusal_is_counted(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Server([Refusing()], port=0) as server:
        handler = StreamHandler("h-refused", server.address, shutdown_timeout=5.0)
        log.addHandler(handler)
        log.info("refused")
        await asyncio.to_thread(handler.flush)
        log.info("refused as well: here the handler learns of it")
        await until(lambda: handler._failed)
        before = handler.dropped
        for _ in range(3):
            log.info("too late")
        assert handler.dropped == before + 3
        await asyncio.to_thread(handler.close)
        assert handler.dropped == 5
    said = capsys.readouterr().err
    assert said.count("you may not write") == 1


# ---- on disk while the server is away ----


def waited(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_lines_wait_on_disk_while_the_server_is_away(
    log: logging.Logger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streamkit.client.writing.spooled._PATIENCE", 0.0)
    with ThreadServer() as server:
        handler = StreamHandler("h-disk", server.address, capacity=500)
        log.addHandler(handler)
        log.info("0")
        handler.flush()
        server.do(server.proxy.refuse())
        numbers = iter(range(1, 5001))
        for number in numbers:
            log.info("%s", number)
            if number % 250 == 0:
                waited(lambda: not handler._queue)
        assert handler._spooled is not None
        spool = handler._spooled.spool
        assert spool.lines > 4000, "what memory does not hold"
        assert spool.path.stat().st_mode & 0o777 == 0o600
        server.do(server.proxy.heal())
        handler._shutdown_timeout = 30.0
        handler.flush()
        log.info("last")
        handler.flush()
        got = [entry.message for entry in entries(server, "h-disk")]
        assert got == [*map(str, range(5001)), "last"]
        assert spool.lines == 0
        assert spool.path.stat().st_size == 0
        handler.close()
        assert not spool.path.exists()
        assert (handler.dropped, handler.kept) == (0, 0)
    assert capsys.readouterr().err.count("cannot be reached") == 1


SCRIPT = """
import logging, sys, streamkit
handler = streamkit.StreamHandler("h-next", sys.argv[1], shutdown_timeout=float(sys.argv[2]))
logging.getLogger().addHandler(handler)
for line in sys.argv[3:]:
    logging.warning(line)
"""


async def test_what_is_left_at_the_end_is_brought_by_the_next_process() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"

    async def run(*arguments: str) -> str:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SCRIPT, address, *arguments),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 0
        return said.decode()

    said = await run("0.2", "one", "two")
    assert "2 log records of h-next wait in " in said
    assert "not delivered" not in said
    await run("0.2", "three")
    async with Server(journal=":memory:", port=port), AsyncClient(address) as client:
        said = await run("20", "four")
        assert said.count("delivered") <= 2
        got: list[str] = []
        async with client.logs("h-next", follow=True, start="all") as lines:
            async with asyncio.timeout(20):
                async for line in lines:
                    got.append(line.message)
                    if len(got) == 4:
                        break
        assert sorted(got) == ["four", "one", "three", "two"]
        assert got.index("one") < got.index("two")
        # What was brought is gone from the disk, and comes no second time.
        await run("20", "five")
        got = [line.message async for line in client.logs("h-next", lines=100)]
        assert sorted(got) == ["five", "four", "one", "three", "two"]


@pytest.mark.parametrize("spool", [0, 20_000])
def test_the_disk_has_a_bound_too(
    log: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spool: int,
) -> None:
    monkeypatch.setattr("streamkit.client.writing.spooled._PATIENCE", 0.0)
    handler = StreamHandler(
        "h-bound", "127.0.0.1:9", capacity=10, spool=spool, shutdown_timeout=0.05
    )
    log.addHandler(handler)
    for number in range(500):
        log.info("%s %s", number, "x" * 100)
    waited(lambda: handler.dropped > 0)
    if spool:
        waited(lambda: handler._spooled is not None and handler._spooled.spool.lines)
    if handler._spooled is not None and handler._spooled.spool.path.exists():
        assert handler._spooled.spool.path.stat().st_size <= spool
    log.removeHandler(handler)
    handler.close()
    said = capsys.readouterr().err
    if spool:
        assert 0 < handler.kept < 500
        assert f"{handler.kept} log records of h-bound wait in" in said
    else:
        assert handler.kept == 0
        assert 500 <= handler.dropped <= 502, "and the lines that would have told of it"
        assert "were not delivered" in said
