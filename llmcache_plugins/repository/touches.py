"""Which entries were read lately, told to the server for one read in ten, and for the rest in a second.

An eviction order that no read ever changes is no LRU. A write for every hit would double the cost of a
hit, so reads are counted per entry and noted in the background. Not by time alone: new answers may fill the
bound within a second, and the entry that is read most would go with the rest. A process that is killed
loses at most a second of at most nine reads per entry.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError, RepositoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Touches"]

READS_PER_NOTE = 10
"""So many reads of one entry are not waited for."""
FLUSH_AFTER = 1.0
"""Seconds."""
MOST_MEMBERS = 256
"""A longer list for one bucket is not waited for."""


class Touches:
    """The reads of one event loop that the access log does not know of yet."""

    def __init__(self, *, note: Callable[[str, Sequence[str]], asyncio.Future[Any]]) -> None:
        """`note` tells the server of reads of a bucket; what it raises, and comes to, is of no interest."""
        self._note = note
        self._reads: dict[str, dict[str, int]] = defaultdict(dict)
        self._due: set[str] = set()
        self._under_way: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, *, root: str, member: str) -> None:
        """Remember one read of a bucket's entry."""
        reads = self._reads[root]
        count = reads[member] = reads.get(member, 0) + 1
        if count >= READS_PER_NOTE or len(reads) >= MOST_MEMBERS:
            self._note_soon(root)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER, self._time_is_up)

    async def flush(self) -> None:
        """Tell the server now."""
        self._cancel_timer()
        for root in list(self._reads):
            if (noting := self._begin(root)) is not None:
                await asyncio.wait((noting,))

    def _note_soon(self, root: str) -> None:
        """Tell the server of one bucket's reads, one script at a time: what comes meanwhile goes next."""
        self._due.add(root)
        if root not in self._under_way:
            self._under_way.add(root)
            self._note_next(root)

    def _note_next(self, root: str) -> None:
        noting = self._begin(root)
        if noting is None:
            self._under_way.discard(root)
        else:
            noting.add_done_callback(partial(self._noted, root))

    def _noted(self, root: str, _: object) -> None:
        if root in self._due:
            self._note_next(root)
        else:
            self._under_way.discard(root)

    def _begin(self, root: str) -> asyncio.Future[Any] | None:
        self._due.discard(root)
        reads = self._reads.pop(root, None)
        # An eviction order that misses a second of reads is no harm.
        with suppress(RepositoryError, ConfigError):
            return self._note(root, list(reads)) if reads else None
        return None

    def _time_is_up(self) -> None:
        self._timer = None
        for root in list(self._reads):
            self._note_soon(root)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
