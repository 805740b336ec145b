"""Named parameters for databases that only know numbered ones: :name becomes $1, $2, ..."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streamkit.errors import QueryError

__all__ = ["numbered"]

_TOKEN = re.compile(
    r"""
      '(?:[^']|'')*'                               # a string
    | "(?:[^"]|"")*"                               # a quoted name
    | \$(?P<tag>[A-Za-z_]\w*)?\$.*?\$(?(tag)(?P=tag))\$  # a dollar-quoted string
    | --[^\n]*                                     # a comment to the end of the line
    | /\*.*?\*/                                    # a comment
    | ::                                           # a cast
    | (?<![\w:]):(?P<name>[A-Za-z_]\w*)            # a parameter
    """,
    re.VERBOSE | re.DOTALL,
)


def numbered(sql: str, parameters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Return the statement with $1, $2, ... for its :names, and the values in that order.

    Strings, quoted names, comments and casts are left alone. A name used twice is one number.
    Raises QueryError for a name without a value and a value without a place.
    """
    order: dict[str, int] = {}

    def replaced(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0]
        if name not in parameters:
            raise QueryError(f"parameter :{name} has no value")
        return f"${order.setdefault(name, len(order) + 1)}"

    rewritten = _TOKEN.sub(replaced, sql)
    unused = [name for name in parameters if name not in order]
    if unused:
        raise QueryError(f"parameter :{unused[0]} is not used in the query")
    return rewritten, [parameters[name] for name in order]
