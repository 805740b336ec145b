"""betterproto messages, fast and correct: importing this package is all that it takes.

Every message class is compiled when it is first used. The classes, their fields and betterproto's
documented methods stay what they are; encoding and decoding are as strict as google.protobuf.

The rules where Python and protobuf differ:

- A naive datetime is UTC, as in google.protobuf. Nanoseconds are cut to microseconds, towards zero.
  A time that Python cannot hold becomes the nearest one that it can.
- Values are checked when they are encoded: integer ranges, types, text that is not UTF-8.
- Fields are written in the order of their numbers, unknown fields after them as they came.
  Timestamps, Durations and wrappers are Python values and keep no unknown fields of their own.
- An entry of a map with unknown fields in it is an unknown field as a whole. Field number 0 is
  refused, except inside of groups that nobody knows and of messages without any fields. Both are
  what google.protobuf does.
- betterproto records neither `packed = false` nor which wrapper a map holds: numbers are written
  packed, and a map's wrapper of an int is taken for an Int64Value, of a float for a DoubleValue.
- JSON is protobuf's, to a hundred levels. The names of the schema are taken from descriptors that
  lie beside the generated package: see message/names.py, also for what holds without them.
"""

from streamkit.codec.codec import StreamkitCodec, decode, encode, frame
from streamkit.codec.message.behaviour import take_over
from streamkit.codec.message.install import decoder_for, encoder_for, install
from streamkit.codec.message.json import from_json, to_json
from streamkit.codec.wire.apart import apart

__all__ = [
    "StreamkitCodec",
    "apart",
    "decode",
    "decoder_for",
    "encode",
    "encoder_for",
    "frame",
    "from_json",
    "install",
    "to_json",
]

take_over()
