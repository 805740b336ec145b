"""Header blocks against hpack, and their short way against h2: whatever comes is the same."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hpack import Decoder, Encoder
from hpack.exceptions import HPACKError, OversizedHeaderListError

from streamkit.transport.client.attempt import WireAttempt
from streamkit.transport.client.request import ClientStream
from streamkit.transport.http2 import cutter
from streamkit.transport.http2.blocks import BlockReader, BlockWriter, CallHeaders
from streamkit.transport.http2.protocol import WireProtocol
from streamkit.transport.server import request, stream
from streamkit.transport.server.calls import Calls
from streamkit.transport.server.serving import Service
from tests.transport.fuzzing import LIMITS, Fuzzer, chunks
from tests.transport.http2.test_fuzz import Refusing
from tests.transport.memory import Sink
from tests.transport.raw import SUBSCRIBE, message
from tests.transport.services import PlainCodec, Streams, Writes, ask

NAMES = [":status", ":path", "content-type", "grpc-status", "x-id", "te", "x" * 200, "user-agent"]
VALUES = [
    "200",
    "0",
    "",
    "application/grpc",
    "trailers",
    "v" * 126,
    "v" * 127,
    "\xff\x80",
    "y" * 900,
]


def some_fields(rng: random.Random) -> list[tuple[str, str]]:
    return [
        (rng.choice(NAMES), rng.choice([*VALUES, str(rng.random())]))
        for _ in range(rng.randrange(9))
    ]


def raw(fields: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]


def test_the_reader_reads_what_hpack_reads() -> None:
    total = 0
    for seed in range(150):
        rng = random.Random(seed)
        encoder, reader, oracle = Encoder(), BlockReader(), Decoder()
        kept = 0
        lists = [some_fields(rng) for _ in range(3)]
        for _ in range(60):
            if rng.random() < 0.08:
                encoder.header_table_size = rng.choice([0, 40, 300, 4096])
            fields = rng.choice(lists) if rng.random() < 0.8 else some_fields(rng)
            block = encoder.encode(raw(fields), huffman=rng.random() < 0.5)
            found = list(oracle.decode(block, raw=True))
            read = reader.read(block)
            assert raw(read) == [tuple(field) for field in found], seed
            kept += read.kept
        total += kept
    assert total > 1000  # the same bytes came again, and meant the same


def test_the_reader_refuses_what_hpack_refuses() -> None:
    refused = 0
    for seed in range(1200):
        rng = random.Random(seed)
        encoder, reader, oracle = Encoder(), BlockReader(), Decoder()
        for _ in range(3):
            block = bytearray(encoder.encode(raw(some_fields(rng)), huffman=rng.random() < 0.5))
            for _ in range(rng.randrange(3)):
                if block:
                    block[rng.randrange(len(block))] = rng.choice([0, 0x1F, 0x3F, 0x7F, 0x80, 0xFF])
            if rng.random() < 0.2:
                del block[rng.randrange(len(block) + 1) :]
            data = bytes(block)
            try:
                expected = [tuple(field) for field in oracle.decode(data, raw=True)]
            except (HPACKError, IndexError):
                with pytest.raises(HPACKError):
                    reader.read(data)
                refused += 1
                break
            assert raw(reader.read(data)) == expected, seed
    assert refused > 150


def test_a_list_over_the_limit_is_refused_while_it_is_read() -> None:
    reader = BlockReader()
    reader.max_header_list_size = 1000
    first = BlockWriter().encode([("user-agent", "x" * 500)])
    reader.read(first)
    with pytest.raises(OversizedHeaderListError):
        reader.read(b"\xbe" * 100_000)


def test_what_is_kept_is_dropped_with_the_table() -> None:
    reader, writer = BlockReader(), BlockWriter()
    block = writer.encode([("te", "trailers")])
    indexed = writer.encode([("te", "trailers")])
    reader.read(block)
    assert not reader.read(indexed).kept
    twice = reader.read(indexed)
    assert twice.kept and reader.read(indexed) is twice
    reader.read(writer.encode([("user-agent", "another")]))
    assert reader.read(indexed) == [("user-agent", "another")]


def test_few_and_small_blocks_are_kept() -> None:
    reader, writer = BlockReader(), BlockWriter()
    for number in range(5000):
        block = b"\0\1n" + bytes([4]) + number.to_bytes(4, "big")
        reader.read(block)
        reader.read(block)
    large = b"\0\1n" + bytes([127, 200, 10]) + bytes(1479)
    for _ in range(3):
        reader.read(large)
    assert len(reader._known) <= 32
    assert sum(map(len, reader._known)) < 32 * 512
    for number in range(5000):
        writer.write(number, [("x-id", str(number))])
    assert len(writer._known) <= 32
    assert len(writer._once) <= 128


def test_what_blocks_begin_with_is_read_once_and_means_what_hpack_says() -> None:
    begun = 0
    for seed in range(60):
        rng = random.Random(seed)
        encoder, reader, oracle = Encoder(), BlockReader(), Decoder()
        begins = [raw([*some_fields(rng), (":method", "POST")]) for _ in range(2)]
        for number in range(60):
            if rng.random() < 0.03:
                encoder.header_table_size = rng.choice([0, 300, 4096])
            fields: list[Any] = list(rng.choice(begins))
            # Not indexed, as what differs from call to call is; or the head is another one.
            fields.append((b"x-own", str(number).encode(), rng.random() < 0.95))
            fields += raw(some_fields(rng))[: rng.randrange(2)]
            block = encoder.encode(fields, huffman=False)
            found = [tuple(field) for field in oracle.decode(block, raw=True)]
            read = reader.read(block)
            assert raw(read) == found, seed
            assert read.size == sum(len(name) + len(value) + 32 for name, value in read)
            assert read.odd == any(
                name == "content-length" or (name == ":status" and value[:1] == "1")
                for name, value in read
            )
            if read.head is not None:
                assert read[: len(read.head)] == read.head
                begun += 1
    assert begun > 200


def test_few_heads_are_kept_and_their_sizes_count() -> None:
    reader, writer = BlockReader(), BlockWriter()
    for _ in range(2):
        writer.encode([("user-agent", "x" * 500)])
    for number in range(5000):
        own = b"\0\1n" + bytes([4]) + number.to_bytes(4, "big")
        reader.read(b"\x82" * (number // 2 % 600) + own)
    assert len(reader._heads) <= 32
    assert max(map(len, reader._heads)) <= 512
    reader = BlockReader()
    reader.read(BlockWriter().encode([("user-agent", "x" * 500)]))
    for number in range(3):
        reader.read(b"\xbe\0\1n\1" + str(number).encode())
    reader.max_header_list_size = 600
    assert reader.read(b"\xbe\0\1n\0").head is not None
    with pytest.raises(OversizedHeaderListError):
        reader.read(b"\xbe\0\1n" + bytes([60]) + b"y" * 60)


def test_the_writer_is_read_by_hpack() -> None:
    for seed in range(150):
        rng = random.Random(seed)
        writer, oracle = BlockWriter(), Decoder()
        lists = [some_fields(rng) for _ in range(6)]
        for _ in range(60):
            if rng.random() < 0.05:
                writer.header_table_size = rng.choice([0, 100, 1000, 4096, 65536])
            if rng.random() < 0.5:
                key = rng.randrange(len(lists))
                fields, block = lists[key], writer.write(key, lists[key])
            else:
                fields = some_fields(rng)
                block = writer.encode(fields)
            found = [tuple(field) for field in oracle.decode(block, raw=True)]
            assert found == raw(fields), seed
            assert oracle.header_table_size <= 4096


def test_what_is_the_same_in_each_call_is_written_once() -> None:
    writer = BlockWriter()
    fields = [("user-agent", "a" * 100), ("authorization", "b" * 100)]
    sizes = [len(writer.encode([*fields, ("x-id", str(number))])) for number in range(4)]
    assert sizes[0] > 200 > sizes[1] > 100 > sizes[2] == sizes[3]


# The short way against h2 -----------------------------------------------------------------------


def only_h2(protocol: WireProtocol) -> None:
    """Leave every block to h2."""
    h2: Any = protocol._h2
    for name in ("request", "response", "open_request", "put_response"):
        setattr(h2, name, lambda *_, **__: False)


class Recorder(Calls):
    """Remembers what it was asked."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.asked: list[Any] = []

    def accept(self, stream: Any, headers: Any, release_stream: Any) -> None:
        self.asked.append((stream.id, [tuple(field) for field in headers]))
        super().accept(stream, headers, release_stream)

    def cancel(self, stream: Any) -> None:
        self.asked.append(("cancel", stream.id))
        super().cancel(stream)


async def server_round(seed: int, *, short: bool) -> tuple[bytes, list[Any], dict[int, Any]]:
    streams, writes = Streams(), Writes()
    calls = Recorder(Service([streams, writes], PlainCodec(), LIMITS))
    protocol = WireProtocol(calls, LIMITS, client=False)
    sink = Sink(protocol)
    fuzzer = Fuzzer(seed, client_role=False)
    if not short:
        only_h2(protocol)
    protocol.connection_made(sink)
    protocol.data_received(fuzzer.hello())
    for _ in range(60):
        if protocol.connection.dead:
            break
        for chunk in chunks(fuzzer.one(), fuzzer.random):
            protocol.data_received(chunk)
        for _ in range(12):
            await asyncio.sleep(0)
    states = {
        number: (stream.state_machine.state, stream.state_machine.trailers_received)
        for number, stream in protocol._h2.streams.items()
    }
    sink.close()
    await asyncio.wait_for(sink.lost.wait(), 5)
    if calls.tasks:
        await asyncio.wait(calls.tasks, timeout=5)
    return bytes(sink.written), calls.asked, states


async def client_round(seed: int, *, short: bool) -> tuple[bytes, list[Any]]:
    protocol = WireProtocol(Refusing(), LIMITS, client=True)
    sink = Sink(protocol)
    fuzzer = Fuzzer(seed, client_role=True)
    if not short:
        only_h2(protocol)
    protocol.connection_made(sink)
    protocol.data_received(fuzzer.hello())
    calls: list[ClientStream] = []
    for number in range(6):
        headers = CallHeaders("key", [(":method", "POST"), (":path", SUBSCRIBE)])
        headers.append(("x-id", str(number)))
        call = ClientStream(
            lambda _, h=headers: h,  # type: ignore[misc]  # bound now
            lambda call: call.close(),
            subtype="proto",
            max_message=LIMITS.max_message,
            send_buffer=LIMITS.send_buffer,
        )
        call.write(message(ask("count:1")))
        call.end()
        call.start(WireAttempt(call, protocol), "authority")
        calls.append(call)
        fuzzer.next_id += 2
    for _ in range(60):
        if protocol.connection.dead:
            break
        for chunk in chunks(fuzzer.one(), fuzzer.random):
            protocol.data_received(chunk)
        await asyncio.sleep(0)
    sink.close()
    await asyncio.wait_for(sink.lost.wait(), 5)
    ends = [(call.initial, call.trailers, repr(call.error), call.done) for call in calls]
    return bytes(sink.written), ends


@pytest.mark.parametrize("role", ["server", "client"])
async def test_the_short_way_is_h2s(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # No turn ends early, and no deadline comes, because the machine is busy.
    monkeypatch.setattr(cutter, "_TURN", 3600.0)
    monkeypatch.setattr(stream, "_TURN", 3600.0)
    monkeypatch.setattr(request, "decode_timeout", lambda value: 3600.0)
    play: Any = server_round if role == "server" else client_round
    for seed in range(40):
        short, long = await play(seed, short=True), await play(seed, short=False)
        assert short[0] == long[0], seed
        assert short[1:] == long[1:], seed


def test_there_is_no_header_at_index_0() -> None:
    with pytest.raises(HPACKError, match="index 0"):
        BlockReader().read(b"\x80")


@pytest.mark.parametrize("ending", [b"\x80" * 12 + b"\0", b"\xff" * 5 + b"\x7f"])
def test_an_integer_without_an_end_or_a_sense_is_refused(ending: bytes) -> None:
    """One of many bytes that add nothing, and one of few that add too much."""
    with pytest.raises(HPACKError, match="integer"):
        BlockReader().read(b"\xff" + ending)
