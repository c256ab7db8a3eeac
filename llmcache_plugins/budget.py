"""How long one call may wait for the repository, all its lookups together.

Counts time spent waiting for Redis, not for a busy event loop: what its thread spent computing is taken
off, a deadline that fires late says that the loop was blocked, and one that fires while the reply already
lies in the socket takes the reply.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

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
        own: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if future.done():
            _pass_on(own, future)
        passing = partial(_pass_on, own)
        future.add_done_callback(passing)
        try:
            return await self.receive(own)
        finally:
            future.remove_done_callback(passing)

    async def receive(self, future: asyncio.Future[T]) -> T:
        """Like `wait_for`, for a future that is the caller's alone: it is ended when the budget is spent."""
        if future.done():
            return future.result()
        waiting = _Waiting(self, future)
        try:
            return await future
        finally:
            waiting.end()


class _Waiting:
    """One wait of a budget."""

    __slots__ = (
        "_began",
        "_budget",
        "_computing",
        "_context",
        "_due",
        "_future",
        "_loop",
        "_stop_at",
        "_timer",
        "_turns",
    )

    def __init__(self, budget: Budget, future: asyncio.Future[Any]) -> None:
        self._budget = budget
        self._future = future
        self._loop = asyncio.get_running_loop()
        self._turns = 0
        self._began = self._loop.time()
        self._stop_at = self._began + _LONGEST * budget.seconds
        self._computing = time.thread_time()
        self._due = budget.left
        # A timer that was cancelled is kept until it would have fired, and its context with it: not the
        # caller's, and whatever hangs on that.
        self._context = Context()
        self._timer: asyncio.Handle = self._loop.call_at(
            self._began + self._due, self._look, context=self._context
        )

    def end(self) -> None:
        """Stop, and take what was spent off the budget."""
        self._timer.cancel()
        self._charge()

    def _charge(self) -> None:
        elapsed = self._loop.time() - self._began
        if elapsed > 1.5 * self._due:
            return  # the timer fired far too late: somebody blocked the loop, nobody knows since when
        if elapsed > self._due / 4:
            elapsed -= max(time.thread_time() - self._computing, elapsed - self._due, 0.0)
        self._budget.left -= elapsed

    def _look(self) -> None:
        """Go on waiting while there is something left, and give up otherwise."""
        if self._future.done():
            return
        self._charge()
        self._began, self._computing = self._loop.time(), time.thread_time()
        self._due = self._budget.left
        if self._due > _NOTHING and self._began < self._stop_at:
            self._timer = self._loop.call_later(self._due, self._look, context=self._context)
        elif self._turns < _GRACE_TURNS:
            self._turns += 1
            self._timer = self._loop.call_soon(self._look, context=self._context)
        else:
            self._future.set_exception(
                RepositoryUnavailable(f"no answer within the {self._budget.seconds:g} s budget")
            )


def _pass_on(own: asyncio.Future[T], ended: asyncio.Future[T]) -> None:
    if own.done():
        return
    if ended.cancelled():
        # By its owner, who is closing: that is no cancellation of whoever waits here.
        own.set_exception(RepositoryUnavailable("the connection was closed"))
    elif (error := ended.exception()) is not None:
        own.set_exception(error)
    else:
        own.set_result(ended.result())
