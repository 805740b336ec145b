"""A message inside another is handled by its own compiled function, not by a detour each time."""

from __future__ import annotations

from streamkit.codec import decode, decoder_for, encode, encoder_for
from streamkit.generated.streamservice import Producer, Update, WriteRequest


def test_the_first_use_is_replaced() -> None:
    message = WriteRequest(producer=Producer("p", 1), updates=[Update(topic="a")])
    assert decode(WriteRequest, encode(message)) == message
    for function, linked in (
        (decoder_for(WriteRequest), ("scan_Producer", "scan_Update")),
        (encoder_for(WriteRequest), ("encode_Producer", "encode_all")),
    ):
        names = function.__globals__
        used = [name for name in names if name.startswith(linked)]
        assert used
        replaced = [name for name in used if "first" not in names[name].__qualname__]
        # Only what this message holds was ever used.
        assert len(replaced) >= 2, used
