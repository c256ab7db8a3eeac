"""`litellm.cache = LiteLLMCache...` with real calls over HTTP: what hits, what misses, what costs nothing.

The provider is the stand-in server; it counts what reaches it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import litellm
from litellm_calls import (  # noqa: F401
    QUIET,
    Chat,
    cache,
    chat,
    facts,
    keeps_streams,
    make,
    outcomes,
    quiet,
    said,
    text_of,
    written,
)

if TYPE_CHECKING:
    from llmcache_plugins.adapters.litellm import LiteLLMCache
    from llmcache_plugins.testing.provider_server import ProviderServer

pytestmark = QUIET


class TestHits:
    async def test_the_second_call_costs_nothing(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        first = await litellm.acompletion(**chat())
        await written(cache)
        second = await litellm.acompletion(**chat())
        assert stand_in.calls == 1
        assert facts(second) == facts(first)
        assert second._hidden_params["cache_hit"] is True
        assert await outcomes(cache) == {"miss": 1, "hit": 1}

    async def test_synchronous_calls_hit_too(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        first = await asyncio.to_thread(litellm.completion, **chat())
        second = await asyncio.to_thread(litellm.completion, **chat())
        third = await litellm.acompletion(**chat())
        assert stand_in.calls == 1
        assert facts(first) == facts(second) == facts(third)

    async def test_twenty_identical_calls_at_once_cost_one(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        answers = await asyncio.gather(*(litellm.acompletion(**chat()) for _ in range(20)))
        assert stand_in.calls == 1
        assert {answer.id for answer in answers} == {answers[0].id}

    async def test_so_do_threads(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        answers = await asyncio.gather(*(asyncio.to_thread(litellm.completion, **chat()) for _ in range(5)))
        assert stand_in.calls == 1
        assert len({text_of(answer) for answer in answers}) == 1

    @keeps_streams
    async def test_so_do_streams(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        async def read() -> str:
            return text_of(await said(await litellm.acompletion(**chat(), stream=True)))

        texts = await asyncio.gather(*(read() for _ in range(20)))
        assert stand_in.calls == 1
        assert len(set(texts)) == 1
