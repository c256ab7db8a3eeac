"""Follows a stream that another process has under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache.shelf import clock
from llmcache_plugins.cache.streams.broadcast import Chunk
from llmcache_plugins.cache.streams.publisher import packed_chunks
from llmcache_plugins.errors import ConfigError, RepositoryError, StreamInterrupted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.cache.streams.voyage import Voyage
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import Batch, Wait
    from llmcache_plugins.repository import Ear, ResponseRepository

__all__ = ["Tail"]

_ASK_AGAIN_AFTER = 0.1
"""Seconds between two requests to a server that does not answer."""


class Tail:
    """Adds another process's chunks to a broadcast: from the first, in order, each once."""

    def __init__(
        self, repository: ResponseRepository, key: CacheKey, voyage: Voyage, *, tasks: Tasks
    ) -> None:
        self._repository = repository
        self._config = repository.config
        self._key = key
        self._voyage = voyage
        self._tasks = tasks
        self._fence = ""
        self._count = 0
        self._is_at_end = False

    def begin(self, wait: Wait, *, asked_at: float) -> bool:
        """Take what there is of a stream under way, asked for at `asked_at` (the loop's clock).

        False when there is nothing yet, or its beginning is lost.
        """
        self._fence = wait.fence
        if not wait.batches or not self._take(wait.batches):
            return False
        self._voyage.is_under(wait.fence, confirmed_at=asked_at)
        return True

    async def follow(self, ear: Ear) -> None:
        """Take the rest as it comes, to the end.

        Raises `StreamInterrupted` when it breaks off: its leader died, or Redis kept this process waiting for
        longer than chunks are kept.
        """
        # What came while nobody listened was not heard.
        batches = await self._more()
        while batches is not None and self._take(batches) and not self._is_at_end:
            await ear.wait(self._config.poll_interval)
            batches = await self._more()
        if not self._is_at_end:
            raise _interrupted()

    async def _more(self) -> Sequence[Batch] | None:
        """Ask for more until there is an answer; None when there will be no more."""
        give_up_at = clock() + self._config.lease_ttl
        while clock() < give_up_at:
            asked = self._repository.leases.tail(self._key, fence=self._fence, count=self._count)
            try:
                tail = await Budget(self._config.lookup_budget).wait_for(self._tasks.spawn(asked))
            except (RepositoryError, ConfigError):
                await asyncio.sleep(_ASK_AGAIN_AFTER)
                continue
            return tail.batches if tail.is_there else None
        return None

    def _take(self, batches: Sequence[Batch]) -> bool:
        """Add what is new; False if the beginning is missing."""
        if all(map(self._take_one, batches)):
            return True
        if self._count:
            raise _interrupted()
        return False

    def _take_one(self, batch: Batch) -> bool:
        """Add what is new in a batch; False if something before it is missing."""
        try:
            chunks = packed_chunks(batch.data)
        except ValueError:
            return False
        missing = batch.last - len(chunks) - self._count
        if missing > 0:
            return False
        self._voyage.cast.add(*map(Chunk, chunks[-missing:]))
        self._count = max(self._count, batch.last)
        self._is_at_end = batch.is_end
        return True


def _interrupted() -> StreamInterrupted:
    return StreamInterrupted("the process that fetched this stream has gone, or its chunks are lost")
