"""A hit: a bare GET of redis-py, with either of its pools, against the repository and the gateway."""

from __future__ import annotations

import asyncio
import hashlib
import time

import redis.asyncio as aioredis

from benchmarks.servers import own_server
from benchmarks.timing import Timing, measure, print_rows
from llmcache_plugins import InferenceGateway, ResponseCache
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import Entry

KEYS = 200
ANSWER = "The quick brown fox jumps over the lazy dog, and then over the next one. " * 28  # 2 KB


async def run(url: str, concurrency: int) -> dict[str, Timing]:
    """Measure one level of concurrency."""
    calls = 2_000 if concurrency == 1 else 20_000
    rows: dict[str, Timing] = {}
    async with aioredis.Redis.from_url(url) as plain:
        for i in range(KEYS):
            await plain.set(f"bench:{i}", ANSWER)
        rows["redis-py GET, default pool"] = await measure(
            lambda i: plain.get(f"bench:{i % KEYS}"), concurrency=concurrency, calls=calls
        )
    pool = aioredis.BlockingConnectionPool.from_url(url, max_connections=32)
    async with aioredis.Redis(connection_pool=pool) as blocking:
        rows["redis-py GET, blocking pool of 32"] = await measure(
            lambda i: blocking.get(f"bench:{i % KEYS}"), concurrency=concurrency, calls=calls
        )
    await pool.aclose()
    async with ResponseCache.from_url(url, namespace="bench") as cache:
        now = time.time()
        entry = Entry(answer=PlainCodec().encode(ANSWER), created=now, fresh_until=now + 3600)
        keys = [
            CacheKey(digest=hashlib.sha256(str(i).encode()).hexdigest(), namespace="bench")
            for i in range(KEYS)
        ]
        for key in keys:
            await cache.repository.persist(key, entry)
        rows["repository.fetch"] = await measure(
            lambda i: cache.repository.fetch(keys[i % KEYS]), concurrency=concurrency, calls=calls
        )
        gateway = InferenceGateway(_provider, cache)
        queries = [
            {"model": "m", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(KEYS)
        ]
        for query in queries:
            await gateway.resolve(query)
        rows["gateway.resolve, a hit"] = await measure(
            lambda i: gateway.resolve(queries[i % KEYS]), concurrency=concurrency, calls=calls
        )
    return rows


async def _provider(_query: object) -> str:
    return ANSWER


def main() -> None:
    """Print a table per level of concurrency."""
    with own_server(with_log=True) as server:
        for concurrency in (1, 64, 256):
            rows = asyncio.run(run(server.socket_url, concurrency))
            print_rows(f"Reads of a 2 KB answer, {concurrency} at a time", rows)
