"""The lock of redis-py around a look-up: get, lock, get again, call, set."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import redis.asyncio as aioredis
from redis.exceptions import LockError

from benchmarks.peers import TTL, Answer, Place
from benchmarks.provider import open_ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


_CONNECTIONS = 300
"""More than a process has callers: with fewer, the release of a lock queues behind those who ask for it."""


@contextlib.asynccontextmanager
async def open_client(url: str, *, connections: int = _CONNECTIONS) -> AsyncIterator[Any]:
    """Give a client whose callers wait for a connection when all are in use."""
    pool = aioredis.BlockingConnectionPool.from_url(
        url, max_connections=connections, timeout=None, decode_responses=True
    )
    async with aioredis.Redis(connection_pool=pool) as client:
        try:
            yield client
        finally:
            await pool.aclose()


@contextlib.asynccontextmanager
async def open_answer(place: Place) -> AsyncIterator[Answer]:
    """Connect."""
    async with open_ask(place.provider_url) as ask, open_client(place.url) as client:

        async def answer(question: str) -> str:
            found: str | None = await client.get(question)
            if found is not None:
                return found
            lock = client.lock(f"lock:{question}", timeout=place.lease)
            await lock.acquire()
            try:
                found = await client.get(question)
                if found is None:
                    found = await ask(question)
                    await client.set(question, found, ex=TTL)
                return found
            finally:
                # It may have ended during the call, and be somebody else's by now.
                with contextlib.suppress(LockError):
                    await lock.release()

        yield answer
