"""Orders in memory with a place for each, and streams of them: what streamkit has as `Hub`.

Each of the others needs it, and it is counted with each.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator


class Hub:
    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)
        self._items: list[str] = []
        self._changed = asyncio.Condition()

    async def publish(self, item: str) -> int:
        async with self._changed:
            self._items.append(item)
            self._changed.notify_all()
            return len(self._items)

    async def stream(self, epoch: str, after: int) -> AsyncIterator[tuple[int, str]]:
        number = after if epoch == self.epoch else 0
        while True:
            async with self._changed:
                while len(self._items) <= number:
                    await self._changed.wait()
            for item in self._items[number:]:
                number += 1
                yield number, item
