"""When the next call may begin: so many requests and tokens a minute, and not while the provider wants rest.

Token buckets that may go into debt. A call takes what it is thought to need and the difference is settled
when its usage is known, so no call is too big to ever begin; in any `t` seconds at most `t / 60` of the
limit, a twelfth of it (five seconds' worth) and the last call begin.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmcache_plugins.loops import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bucket", "Pace"]

_MINUTE = 60.0
_BURST = 1 / 12


class Bucket:
    """A limit per minute. `clock` gives seconds."""

    def __init__(self, per_minute: float, *, clock: Callable[[], float]) -> None:
        self._rate = per_minute / _MINUTE
        self._most = max(1.0, per_minute * _BURST)
        self._clock = clock
        self._level = self._most
        self._at = clock()

    def wait(self) -> float:
        """Return the seconds until something may be taken; 0 if it may be now."""
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now
        # A whole unit, or requests would begin at a fraction of one.
        return max(0.0, (min(1.0, self._most) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        """Take an amount, whatever there is; a negative one is given back."""
        self._level -= amount


class Pace:
    """Of one run and its loop. Calls begin in the order in which they ask for their turn."""

    def __init__(self, *, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._clock = clock = asyncio.get_running_loop().time
        self._requests = Bucket(requests_per_minute, clock=clock) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute, clock=clock) if tokens_per_minute else None
        self._queue = asyncio.Lock()
        self._rest_until = 0.0
        self._ended = asyncio.Event()

    async def turn(self, tokens: int) -> bool:
        """Wait for the turn of a call that will need about so many tokens; False if there are no more."""
        async with self._queue:
            while (seconds := self._wait()) > 0 and not self._ended.is_set():
                await wait_at_most(self._ended, seconds)
            if self._ended.is_set():
                return False
            self._take(1, tokens)
            return True

    def settle(self, *, expected: int, needed: int | None) -> None:
        """Correct a turn by the tokens that its call needed; None if it was not made after all."""
        self._take(-1 if needed is None else 0, (needed or 0) - expected)

    def rest(self, seconds: float) -> None:
        """Let no call begin for so long."""
        self._rest_until = max(self._rest_until, self._clock() + seconds)

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not past the end."""
        await wait_at_most(self._ended, seconds)

    def end(self) -> None:
        """Let nobody wait any more: there are no more turns."""
        self._ended.set()

    def _wait(self) -> float:
        limits = (bucket.wait() for bucket in (self._requests, self._tokens) if bucket is not None)
        return max(self._rest_until - self._clock(), *limits, 0.0)

    def _take(self, requests: int, tokens: int) -> None:
        if self._requests is not None:
            self._requests.take(requests)
        if self._tokens is not None:
            self._tokens.take(tokens)
