"""The chunks of one stream under way in this process, for any number of readers.

Every reader goes at its own pace: the chunks are kept until the stream has ended, so a slow one delays
neither the others nor whoever adds. Pure asyncio: knows nothing of providers or servers.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import WaitTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Broadcast", "Chunk"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk: the provider's own object where the provider was asked here, and its bytes if it has any."""

    packed: bytes | None
    original: Any = None


class Broadcast:
    """Takes chunks from one side and gives all of them to each reader."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self._news: dict[asyncio.Event, None] = {}  # in the order in which they came

    def add(self, *chunks: Chunk) -> None:
        """Give chunks to everybody."""
        self.chunks.extend(chunks)
        for event in self._news:
            event.set()

    async def read(
        self, end: asyncio.Future[Any], *, patience: float | None = None
    ) -> AsyncGenerator[Chunk, None]:
        """Yield every chunk from the first on, until `end` is done and all are read.

        Raises `WaitTimeout` when there is nothing at all within `patience` seconds.
        """
        news = asyncio.Event()
        self._news[news] = None
        end.add_done_callback(wake := lambda _: news.set())
        position = 0
        try:
            while True:
                while position < len(self.chunks):
                    position += 1
                    yield self.chunks[position - 1]
                if end.done():
                    return
                await _wait(news, None if position else patience)
                news.clear()
        finally:
            end.remove_done_callback(wake)
            del self._news[news]


async def _wait(event: asyncio.Event, patience: float | None) -> None:
    try:
        async with asyncio.timeout(patience):
            await event.wait()
    except TimeoutError:
        raise WaitTimeout(f"nobody had a chunk within {patience:g} s") from None
