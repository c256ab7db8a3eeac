"""How long one call may wait for the repository, all its lookups together.

Counts time spent waiting for Redis, not for a busy event loop: what its thread spent computing is taken
off, a deadline that fires late says that the loop was blocked, and one that fires while the reply already
lies in the socket takes the reply.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from llmcache_plugins.errors import RepositoryUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["Budget"]

T = TypeVar("T")

_NOTHING = 0.001
"""Seconds too few to wait for."""
_GRACE_TURNS = 10
"""Turns of the loop from a reply in the socket to a future that is done, with some to spare."""
_LONGEST = 20
"""Times the budget: the most that a busy loop may stretch it."""


class Budget:
    """Seconds that may still be spent waiting."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.left = seconds

    async def wait_for(self, awaitable: Awaitable[T]) -> T:
        """Wait for a future or task that somebody else owns; it is never cancelled here.

        Raises `RepositoryUnavailable` when the budget is spent first, and whatever the awaitable raises.
        """
        future = asyncio.ensure_future(awaitable)
        if not future.done():
            await self._spend_on(future)
        if not future.done():
            raise RepositoryUnavailable(f"no answer within the {self.seconds:g} s budget")
        if future.cancelled():
            # By its owner, who is closing: that is no cancellation of whoever waits here.
            raise RepositoryUnavailable("the connection was closed")
        return future.result()

    async def _spend_on(self, future: asyncio.Future[T]) -> None:
        clock = asyncio.get_running_loop().time
        stop_at = clock() + _LONGEST * self.seconds
        while not future.done() and self.left > _NOTHING and clock() < stop_at:
            began, computing, due = clock(), time.thread_time(), self.left
            await _done_within(future, due)
            elapsed = clock() - began
            if elapsed > 1.5 * due:
                continue  # the timer fired far too late: somebody blocked the loop, nobody knows since when
            if elapsed > due / 4:
                elapsed -= max(time.thread_time() - computing, elapsed - due, 0.0)
            self.left -= elapsed
        for _ in range(_GRACE_TURNS):
            if future.done():
                break
            await asyncio.sleep(0)


async def _done_within(future: asyncio.Future[T], seconds: float) -> None:
    # asyncio.wait() for one future, at a third of its cost: every lookup waits here.
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(seconds, wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
