"""What a stream is expected to bring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TypeVar

__all__ = ["expect"]

T = TypeVar("T")


async def expect(stream: AsyncIterable[T], count: int, *, within: float = 1.0) -> list[T]:
    """The next `count` items of a stream, which must come within so many seconds, in all.

        placed, paid = await expect(orders, 2)

    Else an AssertionError says which came. More may follow: a stream that is its own iterator (a
    call of a stub, `streamkit.resume`, what `client.subscribe` gives) goes on where this ended.
    """
    items = aiter(stream)
    found: list[T] = []
    try:
        async with asyncio.timeout(within):
            while len(found) < count:
                found.append(await anext(items))
    except TimeoutError:
        why = f"no more within {within:g} s"
    except StopAsyncIteration:
        why = "then the stream ended"
    else:
        return found
    raise AssertionError(f"expected {count} items, got {len(found)}, {why}: {found!r}")
