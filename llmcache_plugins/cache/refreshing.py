"""Bringing another answer while the old one is served: by one flight for each key, which nobody waits for.

What was tried in vain rests for a while: another process is about it, or the provider has just failed.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llmcache_plugins.errors import CacheMiss

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmcache_plugins.cache.job import FlightKey
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.singleflight import Flights

__all__ = ["Refreshes"]

T = TypeVar("T")

_REFRESH = "refresh"
"""The second part of the key of such a flight: who calls joins none of them."""
_MOST_RESTING = 4096


class Refreshes(Generic[T]):
    """The refreshes of one kind of flights. A key rests for `rest` seconds. Usable from any thread."""

    def __init__(self, flights: Flights[FlightKey, T], *, rest: float) -> None:
        self._flights = flights
        self._rest = rest
        self._rests_until: dict[CacheKey, float] = {}

    def may_begin(self, key: CacheKey) -> bool:
        """Say whether it is worth trying."""
        until = self._rests_until.get(key)
        if until is not None:
            if until > monotonic():
                return False
            self._rests_until.pop(key, None)
        return not self._flights.is_under_way((key, _REFRESH))

    def begin(self, key: CacheKey, start: Callable[[], Coroutine[Any, Any, T]], *, tasks: Tasks) -> None:
        """Fly in the background, if it is worth trying. An error is counted where the provider was called."""
        if self.may_begin(key):
            tasks.spawn(self.fly(key, start))

    async def fly(self, key: CacheKey, start: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Fly, and return what `Flights.join` does; the key rests if that raises.

        Raises `CacheMiss` when somebody else is about it, and what `start` raises.
        """
        if self._flights.is_under_way((key, _REFRESH)):
            raise CacheMiss("this answer is being refreshed")
        try:
            return await self._flights.join((key, _REFRESH), start)
        except Exception:
            if len(self._rests_until) >= _MOST_RESTING:
                self._rests_until.clear()  # at worst each is tried once too often
            self._rests_until[key] = monotonic() + self._rest
            raise
