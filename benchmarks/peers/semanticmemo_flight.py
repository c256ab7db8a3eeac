"""The single flight of semanticmemo: a lock of fixed TTL, followers wait for its message or poll."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

import redis.asyncio as aioredis

from benchmarks.peers import TTL, Answer, Place
from benchmarks.provider import open_ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def open_answer(place: Place) -> AsyncIterator[Answer]:
    """Connect."""
    package: Any = importlib.import_module("semanticmemo")
    async with open_ask(place.provider_url) as ask, _client(place.url) as client:
        config = package.RedisConfig(url=place.url, lock_ttl_ms=int(place.lease * 1000))
        manager = package.RedisSingleFlightManager(client=client, config=config)

        async def answer(question: str) -> str:
            async def load() -> str | None:
                found: str | None = await client.get(question)
                return found

            async def store(said: str) -> None:
                await client.set(question, said, ex=TTL)

            said: str = await manager.execute(
                f"lock:{question}", lambda: ask(question), result_loader=load, result_writer=store
            )
            return said

        yield answer


# More than there can be callers: each follower holds a connection of its own while it waits.
_CONNECTIONS = 2**20


@contextlib.asynccontextmanager
async def _client(url: str) -> AsyncIterator[Any]:
    async with aioredis.Redis.from_url(url, decode_responses=True, max_connections=_CONNECTIONS) as client:
        yield client
