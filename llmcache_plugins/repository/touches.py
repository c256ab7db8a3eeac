"""Which entries were read lately, told to the server about once a second.

An eviction order that no read ever changes is no LRU. A write for every hit would double the cost of a
hit, so reads are collected and noted in the background. A process that is killed loses at most a second.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

__all__ = ["Touches"]

FLUSH_AFTER = 1.0
"""Seconds."""
MOST_MEMBERS = 256
"""A longer list for one bucket is not waited for."""


class Touches:
    """The reads of one event loop that the access log does not know of yet."""

    def __init__(
        self,
        *,
        note: Callable[[str, Sequence[str]], Coroutine[Any, Any, object]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._note = note
        self._spawn = spawn
        self._read: dict[str, dict[str, None]] = defaultdict(dict)
        self._timer: asyncio.TimerHandle | None = None

    def add(self, *, root: str, member: str) -> None:
        """Remember one read of a bucket's entry."""
        members = self._read[root]
        members[member] = None
        if len(members) >= MOST_MEMBERS:
            self._flush_soon(0.0)
        elif self._timer is None:
            self._flush_soon(FLUSH_AFTER)

    async def flush(self) -> None:
        """Tell the server now."""
        self._cancel_timer()
        read, self._read = self._read, defaultdict(dict)
        for root, members in read.items():
            await self._note(root, list(members))

    def _flush_soon(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, lambda: self._spawn(self.flush()))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
