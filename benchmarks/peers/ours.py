"""This package: a gateway with its defaults, but for the lease and how long answers live."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from benchmarks.peers import TTL, Answer, Place
from benchmarks.provider import open_ask, query
from llmcache_plugins import CachePolicy, InferenceGateway, ResponseCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMESPACE = "bench"


def new_cache(url: str, *, lease: float) -> ResponseCache:
    """Return the cache that is measured."""
    return ResponseCache.from_url(url, namespace=NAMESPACE, lease_ttl=lease, policy=CachePolicy(ttl=TTL))


@contextlib.asynccontextmanager
async def open_answer(place: Place) -> AsyncIterator[Answer]:
    """Connect."""
    async with open_ask(place.provider_url) as ask:

        async def complete(asked: dict[str, Any]) -> str:
            return await ask(asked["messages"][0]["content"])

        async with InferenceGateway(complete, new_cache(place.url, lease=place.lease)) as gateway:

            async def answer(question: str) -> str:
                return str(await gateway.resolve(query(question)))

            yield answer
