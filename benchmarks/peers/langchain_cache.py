"""A chat model of LangChain with `RedisCache` of langchain-redis."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from benchmarks.peers import TTL, Answer, Place
from benchmarks.provider import MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def open_answer(place: Place) -> AsyncIterator[Answer]:
    """Connect."""
    models: Any = importlib.import_module("langchain_openai")
    caches: Any = importlib.import_module("langchain_redis")
    settings: Any = importlib.import_module("langchain_core.globals")
    settings.set_llm_cache(caches.RedisCache(redis_url=place.url, ttl=TTL))
    model = models.ChatOpenAI(model=MODEL, base_url=place.provider_url, api_key="any", max_retries=0)

    async def answer(question: str) -> str:
        return str((await model.ainvoke(question)).content)

    yield answer
