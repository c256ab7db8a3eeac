"""Callers that give up at any moment, over a slow line: every answer belongs to its question.

A cancelled command that left its reply on a pooled connection once showed people the chats of others
(CVE-2023-28858, CVE-2023-28859).
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from faultproxy import FaultProxy
from waiting import wait_until_async

from llmcache_plugins import InferenceGateway, ResponseCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from servers import Server

TASKS = 500
QUESTIONS = 60
GIVEN_UP = 0.4
"""The share of callers that do not wait for their answer."""


class Provider:
    """Answers a question with its own text, in its own time."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    async def complete(self, query: dict[str, Any]) -> str:
        await asyncio.sleep(self.rng.uniform(0, 0.01))
        return answer_to(query)

    async def stream(self, query: dict[str, Any]) -> AsyncIterator[str]:
        for part in answer_to(query).split(" "):
            await asyncio.sleep(self.rng.uniform(0, 0.004))
            yield part + " "


def answer_to(query: dict[str, Any]) -> str:
    return f"this is the answer to {query['question']}"


async def _whole(chunks: AsyncIterator[str]) -> str:
    return "".join([chunk async for chunk in chunks]).strip()


@pytest.mark.parametrize("seed", [1, 2])
async def test_whoever_gives_up_when_every_answer_belongs_to_its_question(
    valkey: Server, namespace: str, seed: int
):
    rng = random.Random(seed)
    async with FaultProxy(valkey.tcp_url) as proxy:
        proxy.delay = 0.002
        caches = [
            ResponseCache.from_url(
                proxy.url, namespace=namespace, lookup_budget=5.0, socket_timeout=5.0, poll_interval=0.1
            )
            for _ in range(2)
        ]
        gateways = [InferenceGateway(Provider(rng), cache) for cache in caches]
        counts = {"answered": 0, "given up": 0}

        async def ask(query: dict[str, Any]) -> None:
            gateway = rng.choice(gateways)
            work: Coroutine[Any, Any, Any] = rng.choice(
                [
                    lambda: gateway.resolve(query),
                    lambda: gateway.resolve(query),
                    lambda: _whole(gateway.stream(query)),
                    lambda: gateway.resolve(query, mode="refresh"),
                    lambda: gateway.invalidate(query),
                ]
            )()
            await asyncio.sleep(rng.uniform(0, 0.4))
            task = asyncio.ensure_future(work)
            if rng.random() < GIVEN_UP:
                await asyncio.sleep(rng.uniform(0, 0.03))
                task.cancel()
            await asyncio.wait((task,))
            if task.cancelled():
                counts["given up"] += 1
            elif not isinstance(task.result(), bool):
                assert task.result().strip() == answer_to(query)
                counts["answered"] += 1

        queries = [{"question": number % QUESTIONS} for number in range(TASKS)]
        await asyncio.gather(*map(ask, queries))
        assert min(counts.values()) > TASKS / 10, counts

        proxy.delay = 0
        for cache in caches:
            await _is_at_rest(cache)
        await wait_until_async(
            lambda: not list(valkey.command("KEYS", f"llm:{{{namespace}.*}}:lease:*")),
            description="no lease is left",
        )
        await wait_until_async(
            lambda: not list(valkey.command("PUBSUB", "CHANNELS")), description="nobody is subscribed"
        )
        for query in queries[:QUESTIONS]:
            for gateway in gateways:
                assert (await gateway.resolve(query)).strip() == answer_to(query)
        for cache in caches:
            await cache.aclose()


async def _is_at_rest(cache: ResponseCache) -> None:
    link: Any = cache.repository._links.current()
    pool = link.topology._client.connection_pool
    await wait_until_async(
        lambda: not cache.in_flight() and not pool._in_use_connections and not link.wakes.channels,
        description="no call, no connection and no channel is in use",
    )
