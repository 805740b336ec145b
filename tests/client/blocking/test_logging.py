"""StreamHandler, rule by rule."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamkit.client.blocking.logging import StreamHandler
from streamkit.errors import AuthError, InvalidArgumentError
from streamkit.generated.streamservice import ProducerServiceBase, WriteReply, WriteRequest
from streamkit.server import Server
from tests.client.blocking.logged import entries
from tests.client.servers import ThreadServer, until


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
