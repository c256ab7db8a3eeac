"""The seam between the semantic layer and whatever finds near vectors.

`VectorIndex` is what the layer sees; `VectorStore` what an index needs of the repository, which knows bytes
and nothing of indexes. What an index returns are candidates: whoever uses one reads its entry, and the
repository says whether that is still valid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import VectorMatch, VectorPage

__all__ = ["Neighbour", "VectorIndex", "VectorStore"]


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A stored question near to the one that was asked."""

    digest: str
    """Of the request that has the answer."""
    similarity: float
    """Cosine, -1 to 1."""
    text: str


class VectorIndex(Protocol):
    """Stored questions of one embedder, by namespace and scope.

    `scope` is 64 lowercase hexadecimal digits: only questions whose scope is equal, digit by digit, are ever
    found. `vector` is an array of shape (dim,) that has a direction; its length does not matter. Anything
    else is a `ConfigError`. Calls that ask the server raise `RepositoryUnavailable` or `RepositoryError`.
    May be used from several event loops and threads, and after a fork; a call that is cancelled disturbs
    nobody.
    """

    name: str
    """Which index it is, for people: `numpy`, `hnsw` or `flat`."""

    async def nearest(
        self, namespace: str, scope: str, vector: NDArray[Any], *, k: int, at_least: float
    ) -> list[Neighbour]:
        """Return at most `k` stored questions of a scope, the most similar first, none below `at_least`."""

    async def same_text(self, namespace: str, scope: str, canonical: str) -> Neighbour | None:
        """Return a stored question of a scope with this canonical text, if there is one; similarity 1."""

    async def add(
        self, key: CacheKey, *, fence: str, scope: str, vector: NDArray[Any], text: str, canonical: str
    ) -> bool:
        """Store a question beside its answer, for as long as that lives. Safe to repeat.

        Returns False, and stores nothing, when the entry of this fence is gone or was replaced. On return
        the question is found in this process; in others within a second.
        """

    async def forget(self, key: CacheKey) -> None:
        """Take a question away whose answer turned out to be gone; it stays if there is one again."""

    async def count(self, namespace: str) -> int:
        """Return how many questions are stored in a namespace; some may just have expired."""

    async def drop(self, namespace: str) -> None:
        """Give up what the index itself holds of a namespace. It is built anew at its next use."""

    async def aclose(self) -> None:
        """End what is under way on the running loop. The index may be used again."""


class VectorStore(Protocol):
    """What an index needs of the repository: `ResponseRepository.vectors`. `embedder` is an `embedder_id`."""

    async def attach(
        self,
        key: CacheKey,
        *,
        fence: str,
        embedder: str,
        scope: str,
        text: str,
        canonical: str,
        vector: bytes,
    ) -> float | None:
        """Lay a vector beside an entry; return how many seconds both live, None if the entry is gone."""

    async def detach(self, key: CacheKey) -> bool:
        """Take the vectors of a key away if its entry is gone; return whether it is."""

    async def changes(
        self, namespace: str, *, embedder: str, since: tuple[int, ...] = (), most: int = 512
    ) -> VectorPage:
        """Return vectors that were attached since a page that was read before."""

    async def alive(self, namespace: str, digests: Sequence[str]) -> list[float]:
        """Return for each digest how many seconds its vectors live on; 0 for those that are gone."""

    async def unable_to_search(self) -> str:
        """Return why the server cannot search by itself; nothing if it can."""

    async def ensure_index(self, namespace: str, *, embedder: str, dim: int, algorithm: str) -> bool:
        """Have the server index the vectors; return whether the index had to be made."""

    async def drop_index(self, namespace: str, *, embedder: str) -> None:
        """Have the server forget the index, never the vectors."""

    async def search(
        self, namespace: str, *, embedder: str, scope: str, vector: bytes, k: int
    ) -> list[VectorMatch] | None:
        """Return the nearest vectors of a scope, None when there is no index."""

    async def search_canonical(
        self, namespace: str, *, embedder: str, scope: str, canonical: str
    ) -> list[VectorMatch] | None:
        """Return questions of a scope with this canonical text, None when there is no index."""

    async def count_indexed(self, namespace: str, *, embedder: str) -> int | None:
        """Return how many vectors the server's index holds, None when there is no index."""

    def announce(self, text: str) -> None:
        """Log what is used and why, each thing once."""
