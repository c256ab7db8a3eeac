"""Bringing another answer while the old one is served: by one flight for each key, which nobody waits for.

Its callers have gone, and their time limits with them: it has one of its own. What was tried in vain rests
for a while: another process is about it, or the provider has just failed.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llmcache_plugins.errors import CacheMiss
from llmcache_plugins.singleflight import Flights

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmcache_plugins.config import CacheConfig
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks

__all__ = ["Refreshes"]

T = TypeVar("T")

LONGEST = 60.0
"""Seconds that a refresh may take. Whoever finds nothing to serve waits for it, as for any call."""
_MOST_RESTING = 4096


class Refreshes(Generic[T]):
    """The refreshes of one face. Usable from any thread."""

    def __init__(self, config: CacheConfig) -> None:
        self._flights: Flights[CacheKey, T] = Flights(on_abandon="cancel")
        self._rest = config.poll_interval
        self._longest = min(config.max_lead, LONGEST)
        self._rests_until: dict[CacheKey, float] = {}

    def may_begin(self, key: CacheKey) -> bool:
        """Say whether it is worth trying."""
        until = self._rests_until.get(key)
        if until is not None:
            if until > monotonic():
                return False
            self._rests_until.pop(key, None)
        return not self._flights.is_under_way(key)

    def begin(self, key: CacheKey, start: Callable[[], Coroutine[Any, Any, T]], *, tasks: Tasks) -> None:
        """Fly in the background, if it is worth trying. An error is counted where the provider was called."""
        if self.may_begin(key):
            tasks.spawn(self._bounded(key, start))

    async def fly(self, key: CacheKey, start: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Fly, and return what `Flights.join` does; the key rests if that raises.

        Raises `CacheMiss` when somebody else is about it, and what `start` raises.
        """
        if self._flights.is_under_way(key):
            raise CacheMiss("this answer is being refreshed")
        try:
            return await self._flights.join(key, start)
        except Exception:
            self._let_rest(key)
            raise

    def forget(self, key: CacheKey) -> None:
        """Let another refresh begin: this one has lost its lease."""
        self._flights.forget(key)

    def detach(self, matches: Callable[[CacheKey], bool]) -> None:
        """Do the same for all keys that match."""
        self._flights.detach(matches)

    def count(self) -> int:
        """Return how many are under way on the running loop."""
        return self._flights.count()

    async def _bounded(self, key: CacheKey, start: Callable[[], Coroutine[Any, Any, T]]) -> None:
        try:
            async with asyncio.timeout(self._longest):
                await self.fly(key, start)
        except TimeoutError:
            self._let_rest(key)
            raise

    def _let_rest(self, key: CacheKey) -> None:
        if len(self._rests_until) >= _MOST_RESTING:
            self._rests_until.clear()  # at worst each is tried once too often
        self._rests_until[key] = monotonic() + self._rest
