"""Which index is used: the one that was named, or the best that the server can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.semantic.indexes.numpy_index import NumpyIndex
from llmcache_plugins.semantic.indexes.server_index import ServerIndex

if TYPE_CHECKING:
    from llmcache_plugins.semantic.indexes.seam import VectorIndex, VectorStore

__all__ = ["IndexName", "check_index_name", "choose"]

IndexName = Literal["auto", "numpy", "hnsw", "flat"]
"""`auto`: `hnsw` where the server has FT.SEARCH, `numpy` elsewhere. `flat` compares with every vector."""


def check_index_name(name: object) -> None:
    """Raise `ConfigError` for what is no name of an index."""
    if name not in get_args(IndexName):
        raise ConfigError(f"index must be one of {', '.join(map(repr, get_args(IndexName)))}, not {name!r}")


async def choose(
    store: VectorStore, *, embedder: str, dim: int, index: IndexName = "auto", max_rows: int = 100_000
) -> VectorIndex:
    """Return the index for an embedder (its name and dimension), and log once which it is, and why.

    `max_rows` is for `numpy`. Raises `ConfigError` for an index that this server cannot do, and
    `RepositoryUnavailable` when it does not answer: that may be tried again.
    """
    check_index_name(index)
    if index == "numpy":
        store.announce("semantic index: numpy, in this process (as asked)")
        return NumpyIndex(store, embedder=embedder, dim=dim, max_rows=max_rows)
    unable = await store.unable_to_search()
    if not unable:
        algorithm: Literal["hnsw", "flat"] = "flat" if index == "flat" else "hnsw"
        why = "as asked" if index != "auto" else "the server has FT.SEARCH"
        store.announce(f"semantic index: {algorithm}, on the server ({why})")
        return ServerIndex(store, embedder=embedder, dim=dim, algorithm=algorithm)
    if index != "auto":
        raise ConfigError(f'index="{index}" is not possible here: {unable}; use index="numpy"')
    store.announce(f"semantic index: numpy, in this process ({unable})")
    return NumpyIndex(store, embedder=embedder, dim=dim, max_rows=max_rows)
