"""The index that the server keeps: `FT.SEARCH` with HNSW or FLAT, over the vectors that lie there anyway.

Nothing is kept here but which indexes are known to be there. One that has vanished is made anew by whoever
misses it; until the server has read the vectors again a search finds fewer of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from llmcache_plugins.errors import ConfigError, RepositoryError, RepositoryUnavailable
from llmcache_plugins.keys import embedder_id, require_digest
from llmcache_plugins.semantic.indexes.arguments import (
    FLOAT32,
    as_similarity,
    canonical_digest,
    check_search,
    unit_vector,
)
from llmcache_plugins.semantic.indexes.seam import Neighbour

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.semantic.indexes.seam import VectorStore

__all__ = ["ServerIndex"]

T = TypeVar("T")


class ServerIndex:
    """A `VectorIndex` on the server, for one embedder. See the Protocol for what calls do and raise."""

    def __init__(
        self, store: VectorStore, *, embedder: str, dim: int, algorithm: Literal["hnsw", "flat"] = "hnsw"
    ) -> None:
        if algorithm not in ("hnsw", "flat"):
            raise ConfigError(f"algorithm must be 'hnsw' or 'flat', not {algorithm!r}")
        self.name: str = algorithm
        self._store = store
        self._embedder = embedder_id(embedder, dim=dim)
        self._dim = dim
        self._is_there: set[str] = set()

    async def nearest(
        self, namespace: str, scope: str, vector: NDArray[Any], *, k: int, at_least: float
    ) -> list[Neighbour]:
        """See `VectorIndex`."""
        require_digest("scope", scope)
        check_search(k=k, at_least=at_least)
        asked = unit_vector(vector, dim=self._dim).astype(FLOAT32).tobytes()
        matches = await self._with_index(
            namespace,
            lambda: self._store.search(namespace, embedder=self._embedder, scope=scope, vector=asked, k=k),
        )
        return [
            Neighbour(digest=match.digest, similarity=similarity, text=match.text)
            for match in matches or ()
            if (similarity := as_similarity(1.0 - match.distance)) >= at_least
        ]

    async def same_text(self, namespace: str, scope: str, canonical: str) -> Neighbour | None:
        """See `VectorIndex`."""
        require_digest("scope", scope)
        digest = canonical_digest(canonical)
        found = await self._with_index(
            namespace,
            lambda: self._store.search_canonical(
                namespace, embedder=self._embedder, scope=scope, canonical=digest
            ),
        )
        return Neighbour(digest=found[0].digest, similarity=1.0, text=found[0].text) if found else None

    async def add(
        self, key: CacheKey, *, fence: str, scope: str, vector: NDArray[Any], text: str, canonical: str
    ) -> bool:
        """See `VectorIndex`."""
        require_digest("scope", scope)
        unit = unit_vector(vector, dim=self._dim)
        await self._ensure(key.namespace)
        seconds = await self._store.attach(
            key,
            fence=fence,
            embedder=self._embedder,
            scope=scope,
            text=text,
            canonical=canonical_digest(canonical),
            vector=unit.astype(FLOAT32).tobytes(),
        )
        return seconds is not None

    async def forget(self, key: CacheKey) -> None:
        """See `VectorIndex`."""
        await self._store.detach(key)

    async def count(self, namespace: str) -> int:
        """See `VectorIndex`. Those that only other embedders have seen count too."""
        counted = await self._with_index(
            namespace, lambda: self._store.count_indexed(namespace, embedder=self._embedder)
        )
        return counted or 0

    async def drop(self, namespace: str) -> None:
        """See `VectorIndex`."""
        self._is_there.discard(namespace)
        await self._store.drop_index(namespace, embedder=self._embedder)

    async def aclose(self) -> None:
        """See `VectorIndex`."""

    async def _ensure(self, namespace: str) -> None:
        if namespace not in self._is_there:
            await self._store.ensure_index(
                namespace, embedder=self._embedder, dim=self._dim, algorithm=self.name
            )
            self._is_there.add(namespace)

    async def _with_index(self, namespace: str, ask: Callable[[], Awaitable[T | None]]) -> T | None:
        """Ask, with the index made first if need be; None when it vanished while it was asked for."""
        await self._ensure(namespace)
        try:
            reply = await ask()
        except RepositoryUnavailable:
            raise
        except RepositoryError:
            # Somebody may have made another index under its name.
            reply = None
        if reply is None:
            self._is_there.discard(namespace)
            await self._ensure(namespace)
            reply = await ask()
        return reply
