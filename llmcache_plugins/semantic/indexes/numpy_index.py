"""The index for any Redis or Valkey: a mirror of the vectors in this process, searched with numpy.

A mirror is read from the repository in full at its first use and then in steps: whoever searches while the
last step is older than half a second waits for the next one, together with all others, and not for long. So
what another process adds is found within a second, and an idle process reads nothing. Rows expire here when
they expire there; what was evicted or invalidated is found out by looking at some rows at each step, and by
whoever meets one.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.keys import embedder_id, require_digest
from llmcache_plugins.loops import PerLoop, Tasks
from llmcache_plugins.models import VectorRow
from llmcache_plugins.semantic.indexes.arguments import (
    FLOAT32,
    canonical_digest,
    check_search,
    unit_rows,
    unit_vector,
)
from llmcache_plugins.semantic.indexes.mirror import Mirror
from llmcache_plugins.semantic.indexes.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import VectorPage
    from llmcache_plugins.semantic.indexes.block import Block
    from llmcache_plugins.semantic.indexes.seam import Neighbour, VectorStore

__all__ = ["NumpyIndex"]

READ_EVERY = 0.5
"""Seconds for which a mirror is good without asking the repository."""
PATIENCE = 0.05
"""Seconds a search waits for the mirror to be read; then it searches what there is."""
LOOK_OVER_EVERY = 2.0
"""Seconds between two looks at rows that may be gone."""
_LOOKED_OVER = 512
_ATTEMPTS = 3
"""To search rows that nobody changes meanwhile, before everybody has to wait."""
_PAGE_BYTES = 2 * 1024 * 1024
_BESIDE_A_VECTOR = 512
"""Bytes of a row that are not its vector, roughly: digests and text."""
MOST_NUMBERS_AT_ONCE = 1024 * 1024
"""A search that multiplies more (a third of a millisecond) is done beside the loop."""


class NumpyIndex:
    """A `VectorIndex` in this process, for one embedder. See the Protocol for what calls do and raise.

    `max_rows` bounds what all namespaces together keep here (a row takes 4 bytes for each dimension and
    about 1 KB): the mirror that was not used for longest goes first, and of a single one its oldest rows.
    """

    name = "numpy"

    def __init__(
        self,
        store: VectorStore,
        *,
        embedder: str,
        dim: int,
        max_rows: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 1:
            raise ConfigError(f"max_rows must be a whole number from 1, not {max_rows!r}")
        self._store = store
        self._embedder = embedder_id(embedder, dim=dim)
        self._dim = dim
        self._max_rows = max_rows
        self._clock = clock
        self._page = max(1, _PAGE_BYTES // (dim * FLOAT32.itemsize + _BESIDE_A_VECTOR))
        self._readers = PerLoop(Tasks)
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._mirrors: dict[str, Mirror] = {}  # in the order of their last use
        self._worker: ThreadPoolExecutor | None = None

    # -- VectorIndex -----------------------------------------------------------------------------------

    async def nearest(
        self, namespace: str, scope: str, vector: NDArray[Any], *, k: int, at_least: float
    ) -> list[Neighbour]:
        """See `VectorIndex`."""
        require_digest("scope", scope)
        check_search(k=k, at_least=at_least)
        asked = unit_vector(vector, dim=self._dim)
        mirror = self._mirror(namespace)
        await self._refresh(namespace, mirror, patience=PATIENCE)
        with mirror.lock:
            mirror.remove_ended(now=self._clock())
            block = mirror.block(scope)
            if block is None:
                return []
            if block.numbers <= MOST_NUMBERS_AT_ONCE:
                return block.best(block.similarities(block.rows(), asked), k=k, at_least=at_least)
        searching = asyncio.get_running_loop().run_in_executor
        return await searching(self._beside(), _search_aside, mirror, block, asked, k, at_least)

    async def same_text(self, namespace: str, scope: str, canonical: str) -> Neighbour | None:
        """See `VectorIndex`."""
        require_digest("scope", scope)
        mirror = self._mirror(namespace)
        await self._refresh(namespace, mirror, patience=PATIENCE)
        with mirror.lock:
            mirror.remove_ended(now=self._clock())
            block = mirror.block(scope)
            return block.same(canonical_digest(canonical)) if block is not None else None

    async def add(
        self, key: CacheKey, *, fence: str, scope: str, vector: NDArray[Any], text: str, canonical: str
    ) -> bool:
        """See `VectorIndex`."""
        unit = unit_vector(vector, dim=self._dim)
        row = VectorRow(
            digest=key.digest,
            scope=require_digest("scope", scope),
            text=text,
            canonical=canonical_digest(canonical),
            vector=unit.astype(FLOAT32).tobytes(),
            seconds=0.0,
        )
        began = self._clock()
        seconds = await self._store.attach(
            key,
            fence=fence,
            embedder=self._embedder,
            scope=row.scope,
            text=text,
            canonical=row.canonical,
            vector=row.vector,
        )
        if seconds is None:
            return False
        mirror = self._mirror(key.namespace)
        with mirror.lock:
            mirror.put(row, unit, until=began + seconds)
        self._keep_bound(mirror)
        return True

    async def forget(self, key: CacheKey) -> None:
        """See `VectorIndex`."""
        mirror = self._mirror(key.namespace)
        if await self._store.detach(key):
            with mirror.lock:
                mirror.remove(key.digest)

    async def count(self, namespace: str) -> int:
        """See `VectorIndex`."""
        mirror = self._mirror(namespace)
        await self._refresh(namespace, mirror, patience=None)
        with mirror.lock:
            mirror.remove_ended(now=self._clock())
            return len(mirror)

    async def drop(self, namespace: str) -> None:
        """See `VectorIndex`."""
        with self._lock:
            self._mirrors.pop(namespace, None)

    async def aclose(self) -> None:
        """See `VectorIndex`."""
        reading = self._readers.pop()
        if reading is not None:
            await reading.cancel()
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(wait=False)

    # -- mirrors ---------------------------------------------------------------------------------------

    def _mirror(self, namespace: str) -> Mirror:
        """Return the mirror of a namespace, as the one that was used last."""
        if self._pid != os.getpid():
            # Another thread of the parent's may have held the locks that were inherited.
            self._begin_anew()
        with self._lock:
            mirror = self._mirrors.pop(namespace, None) or Mirror(self._dim)
            self._mirrors[namespace] = mirror
            return mirror

    def _keep_bound(self, mirror: Mirror) -> None:
        """Keep to `max_rows`; `mirror` has just grown."""
        with self._lock:
            excess = sum(map(len, self._mirrors.values())) - self._max_rows
            for namespace, other in list(self._mirrors.items()):
                if excess <= 0:
                    return
                if other is not mirror:
                    excess -= len(self._mirrors.pop(namespace))
        if excess > 0:
            with mirror.lock:
                mirror.remove_oldest(excess)

    def _beside(self) -> ThreadPoolExecutor:
        # One for all: a search is as fast as memory is read, and two of them are not faster.
        with self._lock:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmcache-vectors")
            return self._worker

    # -- reading the repository ------------------------------------------------------------------------

    async def _refresh(self, namespace: str, mirror: Mirror, *, patience: float | None) -> None:
        """See to it that the mirror is not old, or is being read. Raises what the repository does."""
        with mirror.lock:
            if self._clock() - mirror.read_at < READ_EVERY:
                return
            if mirror.reading is None or mirror.reading.is_over:
                mirror.reading = Reading(self._readers.current().spawn(self._read(namespace, mirror)))
            reading = mirror.reading
        error = await reading.wait(patience)
        if error is not None:
            raise error

    async def _read(self, namespace: str, mirror: Mirror) -> None:
        while True:
            began = self._clock()
            page = await self._store.changes(
                namespace, embedder=self._embedder, since=mirror.since, most=self._page
            )
            self._take_in(mirror, page, now=began)
            if page.is_last:
                break
        mirror.read_at = began
        if len(mirror) > page.mentioned + _LOOKED_OVER:
            # Many have gone at once, as when a namespace is cleared: who meets them one by one finds nothing.
            # One more for what is left of the round that was begun, and for the rest of the last page.
            pages = len(mirror) // _LOOKED_OVER + 2
        else:
            pages = int(began - mirror.looked_over_at >= LOOK_OVER_EVERY)
        for _ in range(pages):
            await self._look_over(namespace, mirror)
            mirror.looked_over_at = began

    def _take_in(self, mirror: Mirror, page: VectorPage, *, now: float) -> None:
        matrix, is_ours = unit_rows([row.vector for row in page.rows], dim=self._dim)
        with mirror.lock:
            for row, vector, fits in zip(page.rows, matrix, is_ours, strict=True):
                if fits:
                    mirror.put(row, vector, until=now + row.seconds)
            mirror.since = page.since
            mirror.remove_ended(now=now)
        if page.rows:
            self._keep_bound(mirror)

    async def _look_over(self, namespace: str, mirror: Mirror) -> None:
        with mirror.lock:
            digests = mirror.some(_LOOKED_OVER)
        if not digests:
            return
        began = self._clock()
        left = await self._store.alive(namespace, digests)
        with mirror.lock:
            for digest, seconds in zip(digests, left, strict=True):
                mirror.keep(digest, until=began + seconds)
            mirror.remove_ended(now=began)


def _search_aside(
    mirror: Mirror, block: Block, asked: NDArray[np.float32], k: int, at_least: float
) -> list[Neighbour]:
    """Search a large block without holding its lock while numbers are multiplied."""
    for _ in range(_ATTEMPTS):
        with mirror.lock:
            rows, version = block.rows(), block.version
        similarities = block.similarities(rows, asked)
        with mirror.lock:
            # Else rows have changed their places meanwhile: what was computed may be of others.
            if block.version == version:
                return block.best(similarities, k=k, at_least=at_least)
    with mirror.lock:
        return block.best(block.similarities(block.rows(), asked), k=k, at_least=at_least)
