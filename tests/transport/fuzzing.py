"""Frames at random, for either role: a peer that is almost right, most of the time."""

from __future__ import annotations

import random
from collections.abc import Iterator

from hpack import Encoder

from streamkit.config import TransportLimits
from tests.transport.raw import PREFACE, PUBLISH, SUBSCRIBE, WRITE, message
from tests.transport.services import ask

LIMITS = TransportLimits(
    max_streams=20,
    resets=1000,
    settings=1000,
    empty_frames=10_000,
    max_frame=16_384,
    stream_window=65_535,
    connection_window=100_000,
    connection_buffer=200_000,
)


def frame(kind: int, flags: int, stream: int, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


class Fuzzer:
    """Makes frames: most are almost right, because noise ends a connection at once."""

    def __init__(self, seed: int, *, client_role: bool) -> None:
        self.random = random.Random(seed)
        self.encoder = Encoder()
        self.client_role = client_role
        self.next_id = 1

    def stream(self) -> int:
        chance = self.random
        if chance.random() < 0.005:
            return chance.choice((0, 2, 2**31 - 1, chance.randrange(2**31)))
        return chance.randrange(1, max(2, min(self.next_id, 30)), 2)

    def blob(self, most: int = 60) -> bytes:
        return self.random.randbytes(self.random.randrange(most))

    def fields(self) -> bytes:
        chance = self.random
        if self.client_role:
            pairs = self.opening() if chance.random() < 0.6 else []
            if chance.random() < 0.5:
                pairs += self.closing()
        else:
            path = chance.choice((SUBSCRIBE, PUBLISH, WRITE, "/x/y")).encode()
            pairs = [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            ]
        for _ in range(chance.randrange(3)):
            name = chance.choice(
                (b"x-a", b"x-bin", b"grpc-timeout", b"content-length", self.blob(6))
            )
            pairs.append((name, chance.choice((b"1", b"5m", b"YQ", self.blob(30)))))
        if chance.random() < 0.1:
            chance.shuffle(pairs)
        return self.encoder.encode(pairs)

    def opening(self) -> list[tuple[bytes, bytes]]:
        """What a response begins with."""
        chance = self.random
        status, kind = b"200", b"application/grpc"
        if chance.random() < 0.1:
            status = chance.choice((b"100", b"103", b"204", b"503", self.blob(4)))
        if chance.random() < 0.05:
            kind = chance.choice((b"text/html", self.blob(20)))
        pairs = [(b":status", status), (b"content-type", kind)]
        if chance.random() < 0.1:
            pairs.append((b"grpc-encoding", chance.choice((b"gzip", b"identity", b"br"))))
        return pairs

    def closing(self) -> list[tuple[bytes, bytes]]:
        """What a response ends with."""
        status = self.random.choice((b"0", b"0", b"5", b"11", b"14", b"99", self.blob(4)))
        return [(b"grpc-status", status), (b"grpc-message", self.blob(20))]

    def response(self) -> bytes:
        """A whole response that has nothing wrong with it, but perhaps the place where it comes."""
        stream = self.stream()
        data = b"".join(message(self.item()) for _ in range(self.random.randrange(4)))
        return (
            frame(1, 4, stream, self.encoder.encode(self.opening()))
            + frame(0, 0, stream, data)
            + frame(1, 5, stream, self.encoder.encode(self.closing()))
        )

    def item(self) -> bytes:
        """A message that can be decoded: one short string."""
        text = b"x" * self.random.randrange(100)
        return bytes((10, len(text))) + text

    def headers(self) -> bytes:
        chance = self.random
        if chance.random() < 0.005:
            return frame(1, 4, self.stream(), self.blob(100))
        stream = self.stream()
        if not self.client_role and chance.random() < 0.8:
            stream, self.next_id = self.next_id, self.next_id + 2
        return frame(1, 4 | chance.randrange(2), stream, self.fields())

    def body(self) -> bytes:
        chance = self.random
        topic = chance.choice(("count:2", "idle:x", "fail:gap", "big:500"))
        data = chance.choice(
            (
                message(ask(topic)),
                message(self.item()) * chance.randrange(1, 5),
                message(b""),
                message(self.blob(), 1),
                self.blob(),
            )
        )
        return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.3 else data

    def one(self) -> bytes:
        """One frame, rarely something that is none."""
        chance = self.random
        if self.next_id == 1:
            return self.headers()
        pick = chance.random()
        if self.client_role and pick < 0.1:
            return self.response()
        if pick < 0.3:
            return self.headers()
        if pick < 0.6:
            return frame(0, chance.choice((0, 0, 1)), self.stream(), self.body())
        if pick < 0.7:
            return frame(3, 0, self.stream(), chance.randbytes(4))
        if pick < 0.78:
            step = chance.choice((1, 100, 65_535, 1, 100, 65_535, 1, 100, 2**31 - 1))
            where = chance.choice((0, self.stream())) if step < 2**31 - 1 else self.stream()
            return frame(8, 0, where, step.to_bytes(4, "big"))
        if pick < 0.84:
            return frame(6, chance.choice((0, 0, 1)), 0, b"12345678")
        if pick < 0.90:
            code = chance.choice((1, 3, 4, 6, 99))
            value = chance.choice((0, 1, 100, 16_384, 65_535))
            if chance.random() < 0.05:
                code, value = chance.randrange(10), chance.choice((2**31 - 1, 2**32 - 1, 7))
            return frame(4, 0, 0, code.to_bytes(2, "big") + value.to_bytes(4, "big"))
        if pick < 0.92:
            return frame(4, 1, 0, b"")
        if pick < 0.94:
            return frame(2, 0, self.stream(), chance.randbytes(5))
        if pick < 0.95:
            return frame(7, 0, 0, self.stream().to_bytes(4, "big") + bytes(4) + self.blob())
        if pick < 0.96:
            body = self.body()
            padded = bytes([chance.randrange(min(len(body) + 1, 256))]) + body + b"x"
            return frame(0, 8, self.stream(), padded)
        if pick < 0.98:
            return frame(
                chance.randrange(10, 256), chance.randrange(256), self.stream(), self.blob()
            )
        if pick < 0.981:
            return frame(5, 4, self.stream(), chance.randbytes(4) + self.fields())
        if pick < 0.984:
            head = frame(1, chance.randrange(2), self.next_id, b"\x83\x86")
            return head + frame(9, chance.choice((0, 4, 4, 4)), self.next_id, b"\x84" * 9)
        if pick < 0.986:
            return frame(chance.randrange(10), chance.randrange(256), self.stream(), self.blob())
        return self.blob() if pick > 0.999 else self.headers()

    def hello(self) -> bytes:
        return (b"" if self.client_role else PREFACE) + frame(4, 0, 0, b"")


def chunks(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The data in pieces, as TCP might deliver it."""
    if chance.random() < 0.7:
        yield data
        return
    position = 0
    while position < len(data):
        step = chance.choice((1, 3, 9, 50, 1000))
        yield data[position : position + step]
        position += step
