"""Storing: a plain SET, the usual SET + access log in MULTI, and the repository's one script."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import redis.asyncio as aioredis

from benchmarks.reads import ANSWER
from benchmarks.servers import own_server
from benchmarks.timing import Timing, measure, print_rows
from llmcache_plugins import ResponseCache
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import Entry


async def run(url: str, concurrency: int) -> dict[str, Timing]:
    """Measure one level of concurrency."""
    calls = 1_000 if concurrency == 1 else 5_000
    rows: dict[str, Timing] = {}
    pool = aioredis.BlockingConnectionPool.from_url(url, max_connections=32)
    async with aioredis.Redis(connection_pool=pool) as client:

        async def set_and_log(i: int) -> Any:
            async with client.pipeline(transaction=True) as pipeline:
                pipeline.set(f"bench:{i}", ANSWER, ex=3600)
                pipeline.zadd("bench:log", {f"bench:{i}": time.time()})
                pipeline.zremrangebyrank("bench:log", 0, -10_001)
                return await pipeline.execute()

        rows["redis-py SET EX"] = await measure(
            lambda i: client.set(f"bench:{i}", ANSWER, ex=3600), concurrency=concurrency, calls=calls
        )
        rows["redis-py MULTI: SET, ZADD, trim"] = await measure(
            set_and_log, concurrency=concurrency, calls=calls
        )
    await pool.aclose()
    async with ResponseCache.from_url(url, namespace="bench") as cache:
        now = time.time()
        entry = Entry(answer=PlainCodec().encode(ANSWER), created=now, fresh_until=now + 3600)

        async def persist(i: int) -> Any:
            digest = hashlib.sha256(str(i).encode()).hexdigest()
            return await cache.repository.persist(CacheKey(digest=digest, namespace="bench"), entry)

        rows["repository.persist (zstd, log, bounds, marks)"] = await measure(
            persist, concurrency=concurrency, calls=calls
        )
    return rows


def main() -> None:
    """Print a table per level of concurrency."""
    with own_server(with_log=True) as server:
        for concurrency in (1, 64):
            rows = asyncio.run(run(server.socket_url, concurrency))
            print_rows(f"Writes of a 2 KB answer, {concurrency} at a time", rows)
