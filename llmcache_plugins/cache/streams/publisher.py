"""Sends the chunks of a stream on to other processes, off the way of whoever reads it here."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from llmcache_plugins.cache.shelf import clock
from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.loops import wait_at_most

if TYPE_CHECKING:
    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import Lease
    from llmcache_plugins.repository import Leases

__all__ = ["Publisher", "packed_chunks"]


class Publisher:
    """Collects chunks and publishes them in batches: the first at once, then one every `stream_batch`.

    What a server that is away does not take is sent again, with what has come since. Nobody waits for that.
    """

    def __init__(
        self, leases: Leases, key: CacheKey, lease: Lease, *, config: CacheConfig, tasks: Tasks
    ) -> None:
        self._leases = leases
        self._key = key
        self._lease = lease
        self._config = config
        self._tasks = tasks
        self._sending: asyncio.Task[bool] | None = None
        self._pending: list[bytes] = []
        self._sent = 0
        self._sizes: deque[int] = deque()
        self._news = asyncio.Event()
        self._over = asyncio.Event()
        self._has_tried = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._has_tried.set())

    def add(self, packed: bytes | None) -> None:
        """Send a chunk soon. One that has no bytes ends the publishing: nobody could follow past it."""
        if packed is None:
            self.stop()
        elif not self._task.done():
            self._pending.append(packed)
            self._news.set()

    async def finish(self) -> None:
        """Send what is left, and that it was all; a server that is away is told later, if it is back soon."""
        self._over.set()
        self._news.set()
        self._tasks.spawn(self._stop_after(self._config.commit_budget))
        await self._has_tried.wait()

    def stop(self) -> None:
        """Send nothing more."""
        self._task.cancel()

    async def break_off(self) -> None:
        """Send nothing more, and wait a moment for what is under way: it must not arrive after the end."""
        self.stop()
        if self._sending is not None:
            await asyncio.wait((self._sending,), timeout=self._config.lookup_budget)

    async def _stop_after(self, seconds: float) -> None:
        try:
            await asyncio.wait((self._task,), timeout=seconds)
        finally:
            self.stop()

    async def _run(self) -> None:
        is_end, silent_since = False, clock()
        # One that is silent for longer than it may lead is taken for hung: nobody is kept waiting for it.
        while not is_end and clock() < silent_since + self._config.max_lead:
            # Whoever follows must not take a provider that thinks for a leader that died.
            if await self._news_within(self._config.renew_every):
                silent_since = clock()
            is_end = self._over.is_set()
            try:
                if not await self._send(is_end=is_end):
                    return
            except (RepositoryError, ConfigError):
                if is_end:
                    self._has_tried.set()
                is_end = False
                self._news.set()
                await asyncio.sleep(self._config.stream_batch)
            else:
                await wait_at_most(self._over, self._config.stream_batch)

    async def _news_within(self, seconds: float) -> bool:
        await wait_at_most(self._news, seconds)
        has_come = self._news.is_set()
        self._news.clear()
        return has_come

    async def _send(self, *, is_end: bool) -> bool:
        chunks = list(self._pending)
        if not (chunks or is_end or self._sent):
            return True
        data = msgspec.msgpack.encode(chunks)
        publishing = self._leases.publish(
            self._key,
            self._lease,
            first=self._sent + 1,
            last=self._sent + len(chunks),
            data=data,
            is_end=is_end,
            most=self._most(len(data) if chunks else 0),
        )
        # Not one of the cache's tasks: closing that does not end a stream.
        self._sending = asyncio.create_task(publishing)
        self._sending.add_done_callback(_read)
        is_there = await asyncio.shield(self._sending)
        del self._pending[: len(chunks)]
        self._sent += len(chunks)
        if chunks:
            self._sizes.append(len(data))
        return is_there

    def _most(self, size: int) -> int:
        """Return how many of the last batches may be kept, with one more of `size` bytes.

        The end of the stream, which has none, pushes nothing out: what comes before it may not be read yet.
        """
        total = size + sum(self._sizes)
        while size and self._sizes and total > self._config.max_stream_bytes:
            total -= self._sizes.popleft()
        return len(self._sizes) + 1


def _read(task: asyncio.Task[bool]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited may be gone; left unread it would be logged as a fault


def packed_chunks(data: bytes) -> list[bytes]:
    """Return the chunks of a batch. Raises `ValueError` for what is none."""
    return msgspec.msgpack.decode(data, type=list[bytes])
