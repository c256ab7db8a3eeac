"""LangChain's `Embeddings`, known by their `aembed_documents`; imports nothing of LangChain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.semantic.embedders.rows import as_rows, normalized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.semantic.embedders.rows import Rows

__all__ = ["LangChainEmbedder"]


class LangChainEmbedder:
    """Vectors of any LangChain `Embeddings`.

    They do not say which model they are, how long their vectors are or how much they read, so `name`, `dim`
    and `max_tokens` (None = any length) do. Both sides of a comparison are embedded as documents. Embeddings
    without an async half of their own run in LangChain's threads.
    """

    concurrency = 4

    def __init__(self, embeddings: Any, *, name: str, dim: int, max_tokens: int | None) -> None:
        if not callable(getattr(embeddings, "aembed_documents", None)):
            raise ConfigError(
                f"LangChainEmbedder needs Embeddings with aembed_documents, not {type(embeddings).__name__}"
            )
        self.name = name
        self.dim = dim
        self.max_tokens = max_tokens
        self._embeddings = embeddings

    async def embed(self, texts: Sequence[str]) -> Rows:
        """Return the vectors, shape (n, dim): one `aembed_documents`.

        Raises what that raises, and `EmbeddingFailed` for a result that is not as promised.
        """
        rows = await self._embeddings.aembed_documents(list(texts))
        return normalized(as_rows(rows, count=len(texts), dim=self.dim, name=self.name))
