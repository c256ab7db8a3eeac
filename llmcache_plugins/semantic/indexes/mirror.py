"""What a process knows of the vectors of one namespace: rows by scope, and when each of them ends.

Knows nothing of Redis. Not for several threads at once: whoever uses a mirror holds its lock.
"""

from __future__ import annotations

import heapq
import threading
from itertools import islice
from typing import TYPE_CHECKING

from llmcache_plugins.semantic.indexes.block import Block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmcache_plugins.models import VectorRow
    from llmcache_plugins.semantic.indexes.reading import Reading

__all__ = ["Mirror"]


class Mirror:
    """Rows of one embedder in one namespace. Times are seconds of one clock, which the caller reads."""

    def __init__(self, dim: int) -> None:
        self.lock = threading.Lock()
        self.since: tuple[int, ...] = ()
        """Up to where the repository has been read."""
        self.read_at = float("-inf")
        """When the last reading that found the end began."""
        self.looked_over_at = float("-inf")
        self.reading: Reading | None = None
        """The last one that was begun."""
        self._dim = dim
        self._blocks: dict[str, Block] = {}
        self._scopes: dict[str, str] = {}  # digest -> scope, in the order in which they came
        self._ends: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []
        self._unseen: list[str] = []

    def __len__(self) -> int:
        return len(self._scopes)

    def block(self, scope: str) -> Block | None:
        """Return the rows of a scope, if there are any."""
        return self._blocks.get(scope)

    def put(self, row: VectorRow, vector: NDArray[np.float32], *, until: float) -> None:
        """Take a row in, or replace the one of its digest."""
        before = self._scopes.pop(row.digest, None)
        if before is not None and before != row.scope:
            self._take_out(row.digest, before)
        self._scopes[row.digest] = row.scope
        block = self._blocks.get(row.scope)
        if block is None:
            block = self._blocks[row.scope] = Block(self._dim)
        block.put(row.digest, vector=vector, text=row.text, canonical=row.canonical)
        self.keep(row.digest, until=until)

    def keep(self, digest: str, *, until: float) -> None:
        """Note when a row ends."""
        if digest not in self._scopes:
            return
        self._ends[digest] = until
        heapq.heappush(self._queue, (until, digest))
        if len(self._queue) > 2 * len(self._ends) + 64:
            self._queue = [(end, digest) for digest, end in self._ends.items()]
            heapq.heapify(self._queue)

    def remove(self, digest: str) -> None:
        """Take a row out, if there is one."""
        scope = self._scopes.pop(digest, None)
        if scope is not None:
            self._take_out(digest, scope)
            del self._ends[digest]

    def remove_ended(self, *, now: float) -> None:
        """Take out what has expired by now."""
        while self._queue and self._queue[0][0] <= now:
            end, digest = heapq.heappop(self._queue)
            if self._ends.get(digest) == end:
                self.remove(digest)

    def remove_oldest(self, rows: int) -> None:
        """Take so many rows out: those that came first."""
        for digest in list(islice(self._scopes, rows)):
            self.remove(digest)

    def some(self, most: int) -> list[str]:
        """Return the digests of some rows, others each time, all of them in turn."""
        if not self._unseen:
            self._unseen = list(self._scopes)
        page, self._unseen = self._unseen[-most:], self._unseen[:-most]
        return [digest for digest in page if digest in self._scopes]

    def _take_out(self, digest: str, scope: str) -> None:
        block = self._blocks[scope]
        block.remove(digest)
        if not len(block):
            del self._blocks[scope]
