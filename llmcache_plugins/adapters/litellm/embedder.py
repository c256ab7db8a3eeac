"""Vectors by `litellm.aembedding`, for whichever provider LiteLLM knows.

Owns that its calls pass every cache by: an embedding asked for in the middle of a lookup must neither wait
for one nor be stored by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import litellm

from llmcache_plugins.semantic.embedders.rows import as_rows, normalized, rows_of_answer, usage_of_answer
from llmcache_plugins.semantic.embedders.seam import Billed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.semantic.embedders.rows import Rows

__all__ = ["LiteLLMEmbedder"]


class LiteLLMEmbedder:
    """Vectors of a model in LiteLLM's spelling, such as `"mistral/mistral-embed"`.

    `dim` is what the model returns; with `shorten` it is asked for that many numbers, where it can be.
    `api_base` and `api_key` are LiteLLM's; without them it looks into the environment. `max_tokens` is the
    model's limit, None for a model without one. `name` is to differ between two places that serve different
    models under one name.
    """

    concurrency = 4

    def __init__(
        self,
        model: str,
        *,
        dim: int,
        max_tokens: int | None,
        name: str | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        shorten: bool = False,
    ) -> None:
        self.name = f"litellm:{model}" if name is None else name
        self.dim = dim
        self.max_tokens = max_tokens
        self._options: dict[str, Any] = {"model": model, "encoding_format": "float"}
        given = {"api_base": api_base, "api_key": api_key, "dimensions": dim if shorten else None}
        self._options.update({name: value for name, value in given.items() if value is not None})

    async def embed(self, texts: Sequence[str]) -> Rows:
        """Return the vectors, shape (n, dim): one `litellm.aembedding`.

        Raises what LiteLLM raises, and `EmbeddingFailed` for an answer that is not as asked for.
        """
        return (await self.embed_billed(texts)).rows

    async def embed_billed(self, texts: Sequence[str]) -> Billed:
        """Like `embed`, and say what the provider has billed."""
        answer = await litellm.aembedding(
            input=list(texts),
            # The first keeps LiteLLM from asking, the second from storing, in every version.
            caching=False,
            cache={"no-cache": True, "no-store": True},
            **self._options,
        )
        rows = rows_of_answer(answer, count=len(texts), name=self.name)
        return Billed(
            rows=normalized(as_rows(rows, count=len(texts), dim=self.dim, name=self.name)),
            model=self._options["model"],
            usage=usage_of_answer(answer),
        )
