"""`litellm.cache = LiteLLMCache...` with real calls over HTTP: what hits, what misses, what costs nothing.

The provider is the stand-in server; it counts what reaches it.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
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
    from litellm_calls import Make

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

    async def test_with_a_near_cache_they_ask_no_server(
        self, stand_in: ProviderServer, make: Make, chat: Chat
    ):
        cache = make(near_cache=True)
        answers = [await litellm.acompletion(**chat())]
        await written(cache)
        answers += [await litellm.acompletion(**chat(), cache={"ttl": 60}) for _ in range(9)]
        answers.append(await asyncio.to_thread(litellm.completion, **chat()))
        assert stand_in.calls == 1
        assert all(facts(one) == facts(answers[0]) for one in answers)
        assert (await cache.response_cache.stats()).found_near > 0
        # Where a call says more than its key tells, it is not for the near cache to answer.
        await litellm.acompletion(**chat(), cache={"s-maxage": 0.000001})
        await written(cache)
        assert stand_in.calls == 2

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

    async def test_the_key_of_one_answer_is_no_key_for_another(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        """LiteLLM shows the key of a hit, and lets the application name one."""
        await litellm.acompletion(**chat("A"))
        await written(cache)
        hit = await litellm.acompletion(**chat("A"))
        shown = hit._hidden_params["cache_key"]
        assert shown.startswith("llm:resp:")
        for named in (shown, str(shown), pickle.loads(pickle.dumps(shown)), copy.deepcopy(shown)):
            other = await litellm.acompletion(**chat("B"), cache_key=named)
            assert text_of(other) != text_of(hit)
            await written(cache)
        assert stand_in.calls == 2

    async def test_caching_false_asks_the_provider(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        for _ in range(2):
            await litellm.acompletion(**chat(), caching=False)
            await written(cache)
        assert stand_in.calls == 2

    async def test_what_the_application_does_to_its_answer_reaches_no_other(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        first = await litellm.acompletion(**chat())
        said_first = text_of(first)
        first.choices[0].message.content = "changed"
        await written(cache)
        second = await litellm.acompletion(**chat())
        assert text_of(second) == said_first
        second.choices[0].message.content = "changed too"
        assert text_of(await litellm.acompletion(**chat())) == said_first

    async def test_a_chat_is_cached_however_long_it_is(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        messages = [{"role": role, "content": str(n)} for n in range(10) for role in ("user", "assistant")]
        for _ in range(2):
            await litellm.acompletion(**{**chat(), "messages": messages})
            await written(cache)
        assert stand_in.calls == 1

    async def test_a_hit_keeps_the_answer_s_own_words_on_where_it_came_from(
        self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat
    ):
        first = await litellm.acompletion(**chat())
        await written(cache)
        hit = await litellm.acompletion(**chat())
        assert (hit.id, hit.created, hit.usage.total_tokens) == (
            first.id,
            first.created,
            first.usage.total_tokens,
        )
        stats = await cache.response_cache.stats()
        assert stats.saved_output_tokens == first.usage.completion_tokens

    @keeps_streams
    async def test_so_do_streams(self, stand_in: ProviderServer, cache: LiteLLMCache, chat: Chat):
        async def read() -> str:
            return text_of(await said(await litellm.acompletion(**chat(), stream=True)))

        texts = await asyncio.gather(*(read() for _ in range(20)))
        assert stand_in.calls == 1
        assert len(set(texts)) == 1
