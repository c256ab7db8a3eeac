"""A chat model of LangChain, with one of the caches that there are for it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import TTL, Answer, Place
from benchmarks.provider import MODEL
from llmcache_plugins import CachePolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

_CONNECTIONS = 256
"""More than there are callers: the community's cache takes a pool that has run dry for a miss."""


@contextlib.asynccontextmanager
async def open_answer(place: Place, cache: str) -> AsyncIterator[Answer]:
    """Connect; `cache` is a key of `_OPENERS`."""
    async with open_model(place, cache) as model:

        async def answer(question: str) -> str:
            return str((await model.ainvoke(question)).content)

        yield answer


@contextlib.asynccontextmanager
async def open_model(place: Place, cache: str, *, ttl: int = TTL) -> AsyncIterator[Any]:
    """Give a ChatOpenAI with the cache. With `cache=` it looks up as it does after `set_llm_cache`.

    Answers live `ttl` seconds, if the cache knows such a thing.
    """
    models: Any = importlib.import_module("langchain_openai")
    async with _OPENERS[cache](place, ttl) as opened:
        yield models.ChatOpenAI(
            model=MODEL, base_url=place.provider_url, api_key="any", max_retries=0, cache=opened
        )


@contextlib.asynccontextmanager
async def _nothing(_place: Place, _ttl: int) -> AsyncIterator[bool]:
    yield False


@contextlib.asynccontextmanager
async def _memory(_place: Place, _ttl: int) -> AsyncIterator[Any]:
    caches: Any = importlib.import_module("langchain_core.caches")
    yield caches.InMemoryCache()


@contextlib.asynccontextmanager
async def _sqlite(_place: Place, _ttl: int) -> AsyncIterator[Any]:
    caches: Any = importlib.import_module("langchain_community.cache")
    with tempfile.TemporaryDirectory(prefix="llmcache-bench-") as directory:
        cache = caches.SQLiteCache(database_path=str(Path(directory, "langchain.db")))
        try:
            yield cache
        finally:
            cache.engine.dispose()


@contextlib.asynccontextmanager
async def _community(place: Place, ttl: int) -> AsyncIterator[Any]:
    caches: Any = importlib.import_module("langchain_community.cache")
    clients: Any = importlib.import_module("redis.asyncio")
    async with clients.Redis.from_url(place.url, max_connections=_CONNECTIONS) as client:
        yield caches.AsyncRedisCache(client, ttl=ttl)


@contextlib.asynccontextmanager
async def _redis(place: Place, ttl: int) -> AsyncIterator[Any]:
    # All there is of it is synchronous: its asynchronous half is LangChain's, which takes a thread for each.
    caches: Any = importlib.import_module("langchain_redis")
    cache = caches.RedisCache(redis_url=place.url, ttl=ttl)
    try:
        yield cache
    finally:
        cache.redis.close()


@contextlib.asynccontextmanager
async def _ours(place: Place, ttl: int, *, near_cache: bool = False) -> AsyncIterator[Any]:
    adapter: Any = importlib.import_module("llmcache_plugins.adapters.langchain")
    async with adapter.LangChainCache.from_url(
        place.url,
        namespace="bench",
        lease_ttl=place.lease,
        policy=CachePolicy(ttl=ttl),
        near_cache=near_cache,
    ) as cache:
        yield cache


_OPENERS: dict[str, Callable[[Place, int], AbstractAsyncContextManager[Any]]] = {
    "nothing": _nothing,
    "InMemoryCache": _memory,
    "SQLiteCache": _sqlite,
    "AsyncRedisCache": _community,
    "RedisCache": _redis,
    "LangChainCache": _ours,
    "near LangChainCache": functools.partial(_ours, near_cache=True),
}
