"""Taking a large bytes field out of a message without copying it."""

from __future__ import annotations

from streamkit.codec.wire.scan import DEPTH, Malformed, length_at, skip, tag_at
from streamkit.errors import DecodeError

__all__ = ["apart"]


def apart(data: bytes | memoryview, number: int) -> tuple[bytes, memoryview]:
    """Return an encoded message without its bytes field `number`, and that field's value.

    The value is a view of `data`, empty when the field is not there. Raises DecodeError.
    """
    view = memoryview(data)
    wanted = number << 3 | 2
    rest: list[memoryview] = []
    value = view[:0]
    at = kept = 0
    end = len(view)
    try:
        while at < end:
            tag, after = tag_at(view, at, end)
            if tag == wanted:
                start, stop = length_at(view, after, end)
                value = view[start:stop]
                rest.append(view[kept:at])
                at = kept = stop
            else:
                at = skip(view, tag, after, end, DEPTH)
    except Malformed as error:
        raise DecodeError(error.reason) from None
    rest.append(view[kept:])
    return b"".join(rest), value
