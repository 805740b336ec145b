"""A request of HTTP, taken apart: path, query, cookies."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from streamkit.errors import InvalidArgumentError
from streamkit.transport import WebCall

__all__ = ["WebRequest", "answer"]

_MOST_FIELDS = 1_000
"""Fields of one query; what the head of a request may hold is bounded before that."""


@dataclass(slots=True)
class WebRequest:
    """What is asked, beside the call that brings it."""

    call: WebCall
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str] = field(default_factory=dict)
    """The last value of each name."""

    @classmethod
    def of(cls, call: WebCall) -> WebRequest:
        """Take a request apart. InvalidArgumentError for a target that is none."""
        try:
            parts = urlsplit(call.target)
            query = parse_qsl(
                parts.query, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
            )
            path = unquote(parts.path, errors="strict")
        except ValueError:
            raise InvalidArgumentError("the address cannot be read") from None
        if not path.startswith("/") or "\x00" in path:
            raise InvalidArgumentError("the address cannot be read")
        return cls(call, path, query, dict(call.headers))

    @property
    def content_type(self) -> str:
        """Without its parameters, in lower case; "" when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def values(self, *names: str) -> list[str]:
        """All values that the query gives to any of these names."""
        return [value for name, value in self.query if name in names]

    def value(self, name: str, default: str = "") -> str:
        """The last value of a name in the query."""
        found = self.values(name)
        return found[-1] if found else default

    def cookies(self) -> dict[str, str]:
        """The cookies by name."""
        pairs = (pair.partition("=") for pair in self.headers.get("cookie", "").split(";"))
        return {name.strip(): value.strip() for name, _, value in pairs}


def answer(
    call: WebCall,
    status: int,
    text: str = "",
    *headers: tuple[str, str],
    kind: str = "text/plain; charset=utf-8",
) -> None:
    """Answer a request with a short text and be done with it."""
    data = text.encode()
    fields = [("content-type", kind), ("x-content-type-options", "nosniff"), *headers]
    call.start(status, fields, length=len(data))
    if data and call.method != "HEAD":
        call.write((data,))
    call.end()
