"""`RedLock` of aiocache around a look-up: get, lock, get again, call, set."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchmarks.peers import CONNECTIONS, TTL, Answer, Place
from benchmarks.provider import open_ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def open_answer(place: Place) -> AsyncIterator[Answer]:
    """Connect."""
    aiocache: Any = importlib.import_module("aiocache")
    locks: Any = importlib.import_module("aiocache.lock")
    pools: Any = importlib.import_module("redis.asyncio")
    at = urlsplit(place.url)
    cache = aiocache.RedisCache(
        endpoint=at.hostname,
        port=at.port or 6379,
        password=at.password,
        pool_max_size=CONNECTIONS,
        connection_pool_class=pools.BlockingConnectionPool,
        connection_pool_kwargs={"timeout": None},
    )
    async with open_ask(place.provider_url) as ask, cache:

        async def answer(question: str) -> str:
            found = await cache.get(question)
            if found is None:
                async with locks.RedLock(cache, question, lease=place.lease):
                    found = await cache.get(question)
                    if found is None:
                        found = await ask(question)
                        await cache.set(question, found, ttl=TTL)
            return str(found)

        yield answer
