"""What stands in a status beside its message: the Any's of a google.rpc.Status."""

from __future__ import annotations

from dataclasses import dataclass

import betterproto
from betterproto.lib.google.protobuf import Any

from streamkit.codec import decode
from streamkit.errors import DecodeError

__all__ = ["details_in"]


@dataclass(eq=False, repr=False)
class _Status(betterproto.Message):
    details: list[Any] = betterproto.message_field(3)  # noqa: RUF009 - how betterproto declares


def details_in(status: bytes) -> list[Any]:
    """Return the details of an encoded google.rpc.Status; none of one that cannot be read."""
    try:
        return list(decode(_Status, status).details)
    except DecodeError:
        return []
