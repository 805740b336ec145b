"""betterproto messages, fast and correct: importing this package is all that it takes.

Every message class is compiled when it is first used. The classes, their fields and betterproto's
documented methods stay what they are; encoding and decoding are as strict as google.protobuf.
"""

from streamkit.codec._behaviour import take_over
from streamkit.codec._codec import StreamkitCodec, decode, encode, frame
from streamkit.codec._install import decoder_for, encoder_for, install

__all__ = [
    "StreamkitCodec",
    "decode",
    "decoder_for",
    "encode",
    "encoder_for",
    "frame",
    "install",
]

take_over()
