"""`LiteLLMEmbedder`: vectors of the provider; its calls neither ask LiteLLM's cache nor fill it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import litellm
import pytest
from litellm_calls import (  # noqa: F401
    QUIET,
    Chat,
    cache,
    chat,
    make,
    outcomes,
    quiet,
    text_of,
    written,
)

np = pytest.importorskip("numpy")

from llmcache_plugins.adapters.litellm.embedder import LiteLLMEmbedder  # noqa: E402
from llmcache_plugins.errors import EmbeddingFailed  # noqa: E402
from llmcache_plugins.semantic.embedding import Embedding  # noqa: E402

if TYPE_CHECKING:
    from llmcache_plugins.adapters.litellm import LiteLLMCache
    from llmcache_plugins.testing.provider_server import ProviderServer

pytestmark = QUIET
MODEL = "openai/text-embedding-3-small"


def embedder(stand_in: ProviderServer, *, dim: int = 64, shorten: bool = False) -> LiteLLMEmbedder:
    return LiteLLMEmbedder(
        MODEL, dim=dim, max_tokens=8191, api_base=stand_in.base_url, api_key="test", shorten=shorten
    )


async def test_vectors_of_litellm(quiet: None, stand_in: ProviderServer):
    one = embedder(stand_in)
    rows = await one.embed(["a", "b"])
    assert (one.name, rows.shape, rows.dtype) == (f"litellm:{MODEL}", (2, 64), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert rows[1].tobytes() == (await one.embed(["b"]))[0].tobytes()
    assert stand_in.received[0].request["encoding_format"] == "float"
    assert (await embedder(stand_in, dim=16, shorten=True).embed(["a"])).shape == (1, 16)
    with pytest.raises(EmbeddingFailed, match="64 numbers where dim is 16"):
        await embedder(stand_in, dim=16).embed(["a"])


async def test_litellms_cache_is_neither_asked_nor_filled(cache: LiteLLMCache, chat: Chat, stand_in):
    one = embedder(stand_in)
    for _ in range(2):
        await one.embed(["a", "b"])
    await written(cache)
    assert stand_in.calls == 2
    await litellm.aembedding(**chat.to(model=MODEL, input=["a", "b"], encoding_format="float"))
    await written(cache)
    assert stand_in.calls == 3
    assert {str(outcome): number for outcome, number in (await outcomes(cache)).items() if number} == {
        "miss": 2
    }


async def test_it_embeds_while_a_call_of_litellm_is_under_way(cache: LiteLLMCache, chat: Chat, stand_in):
    """As a lookup does: it must not wait for the call in whose midst it was asked for."""
    embedding = Embedding(embedder(stand_in))

    async def ask() -> str:
        answer = await litellm.acompletion(**chat())
        await embedding.vector("Hi")
        return text_of(answer)

    async with asyncio.timeout(20):
        said = await asyncio.gather(*(ask() for _ in range(4)))
    await embedding.aclose()
    assert len(set(said)) == 1
    assert (stand_in.calls, stand_in.calls_by_model["text-embedding-3-small"]) == (2, 1)
