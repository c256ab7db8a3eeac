"""Any endpoint that speaks OpenAI's embeddings API, through a client of the application's.

Knows the client by what it can do (`client.embeddings.create`); imports no SDK.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.semantic.embedders.rows import as_rows, normalized, rows_of_answer, usage_of_answer
from llmcache_plugins.semantic.embedders.seam import Billed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.semantic.embedders.rows import Rows

__all__ = ["OpenAIEmbedder"]


class OpenAIEmbedder:
    """Vectors of an `openai.AsyncOpenAI`, or of anything with its `embeddings.create`.

    The client stays the application's, its time limits and retries too. `dim` is what the model returns;
    with `shorten` the model is asked for that many numbers (the API's `dimensions`, which not every model
    knows). `name` is to differ between two endpoints that serve different models under one name. `max_tokens`
    is the model's limit, None for a model without one.
    """

    concurrency = 4

    def __init__(
        self,
        client: Any,
        model: str,
        *,
        dim: int,
        max_tokens: int | None = 8191,
        name: str | None = None,
        shorten: bool = False,
    ) -> None:
        if not callable(getattr(getattr(client, "embeddings", None), "create", None)):
            raise ConfigError(
                f"OpenAIEmbedder needs a client with embeddings.create, not {type(client).__name__}"
            )
        self.name = f"openai:{model}" if name is None else name
        self.dim = dim
        self.max_tokens = max_tokens
        self._client = client
        # Floats: the SDK asks for base64 by default, which not every endpoint knows.
        self._options: dict[str, Any] = {"model": model, "encoding_format": "float"}
        if shorten:
            self._options["dimensions"] = dim

    async def embed(self, texts: Sequence[str]) -> Rows:
        """Return the vectors, shape (n, dim): one call of the endpoint.

        Raises what the client raises, and `EmbeddingFailed` for an answer that is not as asked for.
        """
        return (await self.embed_billed(texts)).rows

    async def embed_billed(self, texts: Sequence[str]) -> Billed:
        """Like `embed`, and say what the endpoint has billed."""
        answer = await self._client.embeddings.create(input=list(texts), **self._options)
        rows = rows_of_answer(answer, count=len(texts), name=self.name)
        return Billed(
            rows=normalized(as_rows(rows, count=len(texts), dim=self.dim, name=self.name)),
            model=self._options["model"],
            usage=usage_of_answer(answer),
        )
