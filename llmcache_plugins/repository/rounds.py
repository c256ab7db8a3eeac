"""What is done in the background, while there are calls.

Once a second what was counted goes to the ledger, and now and then the namespace is measured.

Owns the times. Nothing here waits for a server that is away, opens a connection, or raises.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.loops import PerLoop, running_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmcache_plugins.repository.ledger import Ledger
    from llmcache_plugins.repository.link import Link

__all__ = ["Rounds"]

EVERY = 1.0
"""Seconds."""
MEASURE_EVERY = 15.0
_LAST_ROUND = 0.5
"""Seconds that closing waits for it."""


class _Timer:
    """That of one event loop."""

    def __init__(self) -> None:
        self.handle: asyncio.TimerHandle | None = None
        self.measured_at = -MEASURE_EVERY
        self.walking: asyncio.Task[None] | None = None


class Rounds:
    """The rounds of one repository, on every loop on which it is called."""

    def __init__(
        self, *, links: PerLoop[Link], ledger: Ledger, measure: Callable[[Link], Awaitable[None]]
    ) -> None:
        self._links = links
        self._ledger = ledger
        self._measure = measure
        self._timers = PerLoop(_Timer)
        self._latest_loop: asyncio.AbstractEventLoop | None = None
        self._latest_timer = _Timer()

    def soon(self) -> None:
        """Go round within a second. From any thread; without a loop, somebody else's next round will do."""
        loop = running_loop()
        # Each hit asks: nearly always this loop's timer is the one that was set last.
        if loop is None or (loop is self._latest_loop and self._latest_timer.handle is not None):
            return
        timer = self._timers.current()
        if timer.handle is None:
            timer.handle = loop.call_later(EVERY, self._go, timer)
        self._latest_loop, self._latest_timer = loop, timer

    async def last(self, link: Link) -> None:
        """Go round once more, before a link is closed."""
        timer, self._latest_loop = self._timers.pop(), None
        if timer is not None and timer.handle is not None:
            timer.handle.cancel()
        with suppress(TimeoutError, RepositoryError, ConfigError):
            async with asyncio.timeout(_LAST_ROUND):
                if link.is_open and not link.is_known_bad and self._ledger.has_news:
                    await self._ledger.flush(link)

    def _go(self, timer: _Timer) -> None:
        timer.handle = None
        link = self._links.current()
        is_walking = timer.walking is not None and not timer.walking.done()
        if link.is_open and not link.is_known_bad and not is_walking:
            timer.walking = link.spawn(self._walk(link, timer))

    async def _walk(self, link: Link, timer: _Timer) -> None:
        with suppress(RepositoryError, ConfigError):
            if self._ledger.has_news:
                await self._ledger.flush(link)
            now = asyncio.get_running_loop().time()
            if now - timer.measured_at >= MEASURE_EVERY:
                timer.measured_at = now
                await self._measure(link)
