"""Streams under way: how soon one that joins has its first chunk, and whether anybody loses one.

The leader and the followers are caches of their own on one event loop, as so many processes would be.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.servers import own_server
from llmcache_plugins import InferenceGateway, ResponseCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHUNKS = 200
PAUSE = 0.02
"""Seconds between two chunks."""
PROCESSES = 4
FOLLOWERS = 150
LATE = 50
JOINS = 40


@dataclass(slots=True)
class _Narrator:
    """Streams numbered chunks, and notes when each was given."""

    streams: int = 0
    given_at: dict[str, float] = field(default_factory=dict)

    async def complete(self, _query: Any) -> str:
        return "".join(str(number) for number in range(CHUNKS))

    async def stream(self, _query: Any) -> AsyncIterator[str]:
        self.streams += 1
        for number in range(CHUNKS):
            self.given_at[f"{number} "] = time.perf_counter()
            yield f"{number} "
            await asyncio.sleep(PAUSE)


async def _read(gateway: InferenceGateway, query: str) -> list[tuple[str, float]]:
    return [(chunk, time.perf_counter()) async for chunk in gateway.stream(query)]


async def _open(stack: AsyncExitStack, url: str) -> ResponseCache:
    cache = ResponseCache.from_url(url, namespace="streams", lookup_budget=5.0)
    return await stack.enter_async_context(cache)


async def _first_chunks(url: str) -> tuple[float, float]:
    """Return the median seconds of a lookup, and of the wait of a late joiner for its first chunk."""
    lookups, waits = [], []
    async with AsyncExitStack() as stack:
        leader = InferenceGateway(_Narrator(), await _open(stack, url))
        follower = InferenceGateway(_Narrator(), await _open(stack, url))
        for number in range(JOINS):
            began = time.perf_counter()
            await follower.cache.repository.fetch(follower.key_of(f"nothing {number}"))
            lookups.append(time.perf_counter() - began)
        leading = asyncio.create_task(_read(leader, "first chunks"))
        await asyncio.sleep(20 * PAUSE)
        for _ in range(JOINS):
            chunks = follower.stream("first chunks")
            began = time.perf_counter()
            await anext(chunks)
            waits.append(time.perf_counter() - began)
            await chunks.aclose()
        leading.cancel()
        await asyncio.wait((leading,))
    return statistics.median(lookups), statistics.median(waits)


async def _everybody(url: str) -> tuple[_Narrator, list[list[tuple[str, float]]]]:
    """Let many follow one stream, some from its middle on; return what each has read, and when."""
    narrator = _Narrator()
    async with AsyncExitStack() as stack:
        gateways = [InferenceGateway(narrator, await _open(stack, url)) for _ in range(PROCESSES)]
        leading = asyncio.create_task(_read(gateways[0], "everybody"))
        await asyncio.sleep(2 * PAUSE)
        readers = [asyncio.create_task(_read(gateways[i % PROCESSES], "everybody")) for i in range(FOLLOWERS)]
        await asyncio.sleep(CHUNKS / 2 * PAUSE)
        readers += [asyncio.create_task(_read(gateways[i % PROCESSES], "everybody")) for i in range(LATE)]
        return narrator, list(await asyncio.gather(leading, *readers))


def main() -> None:
    """Measure and print."""
    with own_server(with_log=True) as server:
        lookup, wait = asyncio.run(_first_chunks(server.socket_url))
        narrator, read = asyncio.run(_everybody(server.socket_url))
    expected = [f"{number} " for number in range(CHUNKS)]
    complete = sum([chunk for chunk, _ in chunks] == expected for chunks in read)
    delays = sorted(
        at - narrator.given_at[chunk] for chunks in read[1 : FOLLOWERS + 1] for chunk, at in chunks
    )
    print("\nstreams: joining one that another process has under way")
    print(f"  a lookup that misses: one round trip     {lookup * 1e6:>10,.0f} us")
    print(
        f"  first chunk after joining                {wait * 1e6:>10,.0f} us, {wait / lookup:.1f} times that"
    )
    print(f"streams: {FOLLOWERS} followers and {LATE} late joiners on {PROCESSES} caches, {CHUNKS} chunks")
    print(f"  provider's streams                       {narrator.streams:>10}")
    print(f"  readers with every chunk, in order, once {complete:>10} of {len(read)}")
    print(f"  a follower's chunk after the provider's  {statistics.median(delays) * 1e3:>10.1f} ms median")
    print(f"                                           {delays[int(len(delays) * 0.99)] * 1e3:>10.1f} ms p99")
