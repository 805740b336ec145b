"""google.protobuf's own classes for our messages, and the reading of frames with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _query_result() -> Any:
    data = files("streamkit.generated").joinpath("descriptors.binpb").read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.Add(file)
    described = pool.FindMessageTypeByName("streamservice.QueryResult")
    return message_factory.GetMessageClass(described)


QueryResult = _query_result()


def messages(frames: bytes | Sequence[bytes | memoryview]) -> Iterator[Any]:
    """The messages of whole gRPC frames, parsed by google.protobuf."""
    for data in bodies(frames):
        yield QueryResult.FromString(data)


def bodies(frames: bytes | Sequence[bytes | memoryview]) -> Iterator[bytes]:
    """The encoded messages of whole gRPC frames."""
    frames = frames if isinstance(frames, bytes) else b"".join(frames)
    place = 0
    while place < len(frames):
        assert frames[place] == 0, "a frame that says it is compressed"
        end = place + 5 + int.from_bytes(frames[place + 1 : place + 5], "big")
        yield frames[place + 5 : end]
        place = end
    assert place == len(frames)


def rows(frames: bytes) -> list[dict[str, str]]:
    return [dict(row.columns) for message in messages(frames) for row in message.rows]
