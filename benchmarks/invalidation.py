"""Forgetting by tag: what it costs beside one trivial script, and beside a search for the keys.

All in one run, on one server and one connection. The entries are real ones, of a few hundred bytes; half of
them have the tag that is invalidated.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import time
from typing import TYPE_CHECKING, Any

import redis.asyncio as aioredis

from benchmarks.servers import own_server
from benchmarks.tables import print_table
from llmcache_plugins import CacheKey, ResponseCache, ResponseRepository
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.config import CacheConfig
from llmcache_plugins.models import Entry, Provenance

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_AT_ONCE = 256
_TRIALS = 25
_NAMESPACE = "bench"


def main(words: Sequence[str] = ()) -> None:
    """Print a table for each number of entries."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks invalidation")
    parser.add_argument("--entries", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    asked = parser.parse_args(list(words))
    for entries in asked.entries:
        with own_server() as server:
            asyncio.run(_run(server.socket_url, entries))


async def _run(url: str, entries: int) -> None:
    config = CacheConfig(namespace=_NAMESPACE, max_entries=None, commit_budget=5.0, socket_timeout=60.0)
    async with ResponseRepository(url, config=config) as repository, aioredis.Redis.from_url(url) as raw:
        cache = ResponseCache(repository)
        await _fill(repository, entries)
        sha = await raw.script_load("return 1")
        script = await _median(lambda: raw.evalsha(sha, 0))
        before = await _scripts(raw)
        by_tag = await _median(lambda: cache.invalidate(tags=["half"]))
        scripts = (await _scripts(raw) - before) / _TRIALS
        began = time.perf_counter()
        looked, deleted = await _scan_and_delete(raw)
        by_scan = time.perf_counter() - began
    print_table(
        f"Forgetting half of {entries:,} entries",
        ["", "ms", "of one EVALSHA", "commands"],
        [
            ["one EVALSHA (return 1)", f"{script * 1e3:.3f}", "1.0", "1"],
            ["invalidate(tags=[...])", f"{by_tag * 1e3:.3f}", f"{by_tag / script:.1f}", f"{scripts:.0f}"],
            [
                f"SCAN + UNLINK of all {deleted:,}",
                f"{by_scan * 1e3:.1f}",
                f"{by_scan / script:,.0f}",
                f"{looked:,}",
            ],
        ],
    )


async def _fill(repository: ResponseRepository, entries: int) -> None:
    now = time.time()

    async def persist(number: int) -> None:
        entry = Entry(
            answer=PlainCodec().encode("an answer " * 20),
            created=now,
            fresh_until=now + 3600,
            provenance=Provenance(model="m", tags=("half",) if number % 2 else ()),
        )
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        await repository.persist(CacheKey(digest=digest, namespace=_NAMESPACE), entry)

    for first in range(0, entries, _AT_ONCE):
        await asyncio.gather(*(persist(number) for number in range(first, min(first + _AT_ONCE, entries))))


async def _scan_and_delete(raw: aioredis.Redis) -> tuple[int, int]:
    """Do what is done without marks; nothing in a key says which tags its answer has, so all of them go."""
    commands = deleted = 0
    cursor: Any = None
    while cursor != 0:
        cursor, keys = await raw.scan(cursor or 0, match=f"llm:{{{_NAMESPACE}.0}}:resp:*", count=1000)
        commands += 1
        if keys:
            deleted += await raw.unlink(*keys)
            commands += 1
    return commands, deleted


async def _median(call: Callable[[], Awaitable[Any]]) -> float:
    times = []
    for _ in range(_TRIALS):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


async def _scripts(raw: aioredis.Redis) -> int:
    said = await raw.info("commandstats")
    return int(said.get("cmdstat_evalsha", {}).get("calls", 0))
