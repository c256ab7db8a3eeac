"""Finding the nearest stored question: both indexes beside one round trip to the server, and what they weigh.

Random unit vectors, the hardest there are for HNSW; 99 of a hundred are of one scope, and the rest of
another. What is asked is a random vector too, to which none is near; whether a near one is found, as that of
a paraphrase, is a column of its own. All on one Redis with RediSearch, on a socket.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import time
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import redis.asyncio as aioredis

from benchmarks.servers import own_search_server
from benchmarks.tables import percentile, print_table
from llmcache_plugins import CacheConfig, CacheKey, ResponseRepository
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.keys import embedder_id
from llmcache_plugins.models import Entry
from llmcache_plugins.semantic.indexes import NumpyIndex, ServerIndex, VectorIndex

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from numpy.typing import NDArray

_NAMESPACE = "bench"
_EMBEDDER = "random"
_SCOPES = {"all but 1%": "a" * 64, "1%": "b" * 64}
_AT_ONCE = 256
_SEARCHES = 200
_NEAREST = 10
_NEAR = 0.85
"""Cosine of what is asked and of what is to be found."""
_TEXT = "How do I get back into my account when I have lost my phone? "  # 60 characters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """What is on the server: vectors, the scope of each, and the bytes they take there."""

    vectors: NDArray[np.float32]
    scopes: list[str]
    bytes_each: float
    used: int
    """What the server uses when it has no index."""


def main(words: Sequence[str] = ()) -> None:
    """Print a table of times, and one of sizes, for each number of vectors."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks vectors")
    parser.add_argument("--vectors", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--dim", type=int, default=384)
    asked = parser.parse_args(list(words))
    for number in asked.vectors:
        with own_search_server() as server:
            asyncio.run(_run(server.socket_url, number, asked.dim))


async def _run(url: str, number: int, dim: int) -> None:
    config = CacheConfig(namespace=_NAMESPACE, max_entries=None, socket_timeout=120.0)
    async with ResponseRepository(url, config=config) as repository, aioredis.Redis.from_url(url) as raw:
        stored = await _fill(repository, raw, number, dim)
        round_trip = await _times(lambda: repository.fetch(_key(0)))
        rows = [["one round trip (a hit of 200 bytes)", *_cells(round_trip, round_trip), "", "", "", ""]]
        sizes = [["the vectors themselves", "", f"{stored.bytes_each:,.0f}", ""]]
        mirror = NumpyIndex(repository.vectors, embedder=_EMBEDDER, dim=dim, max_rows=number)
        reading, weight = await _mirror(repository, number, dim), await _weigh(mirror)
        rows += await _search(mirror, stored, round_trip)
        sizes.append(["numpy", f"{weight / number:,.0f}", "0", f"{reading:.2f}"])
        await mirror.aclose()
        for algorithm in ("hnsw", "flat"):
            index = ServerIndex(repository.vectors, embedder=_EMBEDDER, dim=dim, algorithm=algorithm)
            began = time.perf_counter()
            await _indexed(index, raw, dim)
            building = time.perf_counter() - began
            sizes.append(
                [algorithm, "0", f"{(await _used(raw) - stored.used) / number:,.0f}", f"{building:.2f}"]
            )
            rows += await _search(index, stored, round_trip)
            await index.drop(_NAMESPACE)
            await _forgotten(raw, stored.used)
    head = [
        "",
        "p50 ms",
        "p99 ms",
        "round trips",
        "recall@10",
        f"near {_NEAR}",
        "p50 ms of 1%",
        "round trips",
    ]
    print_table(f"The nearest {_NEAREST} of {number:,} vectors of {dim} dimensions", head, rows)
    head = ["", "bytes in the process", "bytes on the server", "seconds to build"]
    print_table(f"Per vector ({4 * dim:,} bytes of numbers), {number:,} of them", head, sizes)


def _key(number: int) -> CacheKey:
    return CacheKey(digest=hashlib.sha256(str(number).encode()).hexdigest(), namespace=_NAMESPACE)


async def _fill(repository: ResponseRepository, raw: aioredis.Redis, number: int, dim: int) -> _Stored:
    rng = np.random.default_rng(number)
    vectors = rng.standard_normal((number, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    large, small = _SCOPES.values()
    scopes = [small if i % 100 == 0 else large for i in range(number)]
    now = time.time()
    entry = Entry(answer=PlainCodec().encode("an answer " * 20), created=now, fresh_until=now + 3600)
    fences: dict[int, str] = {}

    async def persist(i: int) -> None:
        fences[i] = (await repository.persist(_key(i), entry)).detail

    async def attach(i: int) -> None:
        left = await repository.vectors.attach(
            _key(i),
            fence=fences[i],
            embedder=embedder_id(_EMBEDDER, dim=dim),
            scope=scopes[i],
            text=f"{_TEXT}{i}",
            canonical=hashlib.sha256(str(i).encode()).hexdigest(),
            vector=vectors[i].tobytes(),
        )
        assert left, "the entry is there"

    await _all(persist, number)
    before = await _used(raw)
    await _all(attach, number)
    used = await _used(raw)
    return _Stored(vectors=vectors, scopes=scopes, bytes_each=(used - before) / number, used=used)


async def _all(do: Callable[[int], Awaitable[None]], number: int) -> None:
    for first in range(0, number, _AT_ONCE):
        await asyncio.gather(*(do(i) for i in range(first, min(first + _AT_ONCE, number))))


async def _used(raw: aioredis.Redis) -> int:
    return int((await raw.info("memory"))["used_memory"])


async def _mirror(repository: ResponseRepository, number: int, dim: int) -> float:
    """Return how many seconds a process takes to read all vectors."""
    index = NumpyIndex(repository.vectors, embedder=_EMBEDDER, dim=dim, max_rows=number)
    began = time.perf_counter()
    assert await index.count(_NAMESPACE) == number
    await index.aclose()
    return time.perf_counter() - began


async def _weigh(index: NumpyIndex) -> int:
    """Return how many bytes a mirror takes."""
    tracemalloc.start()
    await index.count(_NAMESPACE)
    weight, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return weight


async def _indexed(index: ServerIndex, raw: aioredis.Redis, dim: int) -> None:
    """Make the index, and wait until the server has read all vectors."""
    await index.count(_NAMESPACE)
    name = f"llm:{{{_NAMESPACE}.0}}:index:{embedder_id(_EMBEDDER, dim=dim)}"
    while True:
        info = await raw.execute_command("FT.INFO", name)
        pairs = info if isinstance(info, dict) else dict(zip(info[::2], info[1::2], strict=False))
        if float(pairs.get(b"percent_indexed", pairs.get("percent_indexed"))) >= 1:
            return
        await asyncio.sleep(0.05)


async def _forgotten(raw: aioredis.Redis, used: int) -> None:
    """Wait, for a while, until the server has given up the memory of an index that was dropped."""
    for _ in range(600):
        if await _used(raw) <= 1.02 * used:
            return
        await asyncio.sleep(0.05)


async def _search(index: VectorIndex, stored: _Stored, round_trip: list[float]) -> list[list[str]]:
    rng = np.random.default_rng(7)
    asked = rng.standard_normal((_SEARCHES, stored.vectors.shape[1]))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    large, small = _SCOPES.values()

    async def nearest(scope: str, i: int) -> list[str]:
        found = await index.nearest(_NAMESPACE, scope, asked[i], k=_NEAREST, at_least=-1.0)
        return [one.digest for one in found]

    of_all = iter(range(2 * _SEARCHES))
    of_few = iter(range(2 * _SEARCHES))
    everywhere = await _times(lambda: nearest(large, next(of_all) % _SEARCHES))
    within = await _times(lambda: nearest(small, next(of_few) % _SEARCHES))
    in_large = np.array([scope == large for scope in stored.scopes])
    hits = 0
    for i in range(0, _SEARCHES, 4):
        similarities = np.where(in_large, stored.vectors @ asked[i], -2.0)
        best = {_key(int(row)).digest for row in np.argpartition(-similarities, _NEAREST)[:_NEAREST]}
        hits += len(best & set(await nearest(large, i)))
    recall = hits / (_NEAREST * len(range(0, _SEARCHES, 4)))
    rows = rng.choice(np.flatnonzero(in_large), _SEARCHES)
    found = 0
    for i, row in enumerate(rows.tolist()):
        aside = asked[i] - (asked[i] @ stored.vectors[row]) * stored.vectors[row]
        near = _NEAR * stored.vectors[row] + np.sqrt(1 - _NEAR**2) * aside / np.linalg.norm(aside)
        neighbours = await index.nearest(_NAMESPACE, large, near, k=1, at_least=_NEAR - 0.01)
        found += bool(neighbours) and neighbours[0].digest == _key(row).digest
    return [
        [
            index.name,
            *_cells(everywhere, round_trip),
            f"{recall:.3f}",
            f"{found / _SEARCHES:.3f}",
            *_cells(within, round_trip)[::2],
        ]
    ]


async def _times(call: Callable[[], Awaitable[object]]) -> list[float]:
    for _ in range(_SEARCHES // 4):
        await call()
    times = []
    for _ in range(_SEARCHES):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return times


def _cells(times: list[float], round_trip: list[float]) -> list[str]:
    median = statistics.median(times)
    return [
        f"{median * 1e3:.3f}",
        f"{percentile(times, 99) * 1e3:.3f}",
        f"{median / statistics.median(round_trip):.1f}",
    ]
