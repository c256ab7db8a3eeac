"""Equivalent questions share an answer through each framework, where one argument says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import litellm
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from litellm_calls import QUIET, Chat, chat, make, quiet, written  # noqa: F401

from llmcache_plugins import Outcome, SemanticCacheLayer
from llmcache_plugins.adapters.langchain import LangChainCache, cached

if TYPE_CHECKING:
    from litellm_calls import Make
    from servers import Server

    from llmcache_plugins.testing.provider_server import ProviderServer

pytestmark = QUIET

PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
RESET, ALSO_RESET, OTHER = (
    "How do I reset my password?",
    "How do I reset my account password?",
    "Why do I reset my password?",
)


def layer() -> SemanticCacheLayer:
    return SemanticCacheLayer(similarity_threshold=0.9, budget=10.0)


class TestLangChain:
    def _model(self, stand_in: ProviderServer, **settings: Any) -> ChatOpenAI:
        return ChatOpenAI(
            model="stand-in", base_url=stand_in.base_url, api_key="test", max_retries=0, **settings
        )

    async def test_the_text_of_the_last_message_is_compared_and_all_else_is_equal(
        self, stand_in: ProviderServer, valkey: Server, namespace: str
    ):
        async with LangChainCache.from_url(
            valkey.url, namespace=namespace, semantic=layer(), **PATIENT
        ) as cache:
            model = self._model(stand_in, cache=cache)
            first = await model.ainvoke([SystemMessage("Be brief."), HumanMessage(RESET)])
            same = await model.ainvoke([SystemMessage("Be brief."), HumanMessage(ALSO_RESET)])
            assert same.content == first.content
            assert same.response_metadata["llmcache"]["outcome"] == "semantic_hit"
            assert same.response_metadata["llmcache"]["similarity"] >= 0.9
            assert same.id != first.id
            assert stand_in.calls == 1
            # A model, a setting, a system prompt, a conversation, a question: each is another matter.
            others = [
                (self._model(stand_in, cache=cache, temperature=0.1), ["Be brief.", ALSO_RESET]),
                (model.bind(stop=["x"]), ["Be brief.", ALSO_RESET]),
                (model, ["Be long.", ALSO_RESET]),
                (model, ["Be brief.", OTHER]),
            ]
            for calls, (asked, (system, text)) in enumerate(others, start=2):
                await asked.ainvoke([SystemMessage(system), HumanMessage(text)])
                assert stand_in.calls == calls
            await model.ainvoke(
                [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hi!"), HumanMessage(RESET)]
            )
            assert stand_in.calls == 6

    async def test_a_chat_that_cannot_be_read_back_is_no_question(
        self, stand_in: ProviderServer, valkey: Server, namespace: str
    ):
        """LangChain would have it compared as the JSON of all its messages, system prompt included."""
        async with LangChainCache.from_url(
            valkey.url, namespace=namespace, semantic=layer(), **PATIENT
        ) as cache:
            model = self._model(stand_in, cache=cache)
            for role in ("pirate", "lawyer"):
                odd = HumanMessage(RESET, additional_kwargs={"score": float("nan")})
                await model.ainvoke([SystemMessage(f"Answer as a {role}."), odd])
            assert stand_in.calls == 2
            assert (await cache.cache.stats()).semantic["no_question"] == 2

    async def test_synchronous_programs_and_cached_models_hit(
        self, stand_in: ProviderServer, valkey: Server, namespace: str
    ):
        async with LangChainCache.from_url(
            valkey.url, namespace=namespace, semantic=layer(), **PATIENT
        ) as cache:
            plain = self._model(stand_in, cache=cache)
            await asyncio.to_thread(plain.invoke, RESET)
            await asyncio.to_thread(plain.invoke, ALSO_RESET)
            assert stand_in.calls == 1
            model = cached(self._model(stand_in), cache)
            await model.ainvoke(RESET)
            calls = stand_in.calls
            assert "".join([chunk.content async for chunk in model.astream(ALSO_RESET)])
            assert (await model.ainvoke(ALSO_RESET)).response_metadata["llmcache"][
                "outcome"
            ] == "semantic_hit"
            assert stand_in.calls == calls


class TestLiteLLM:
    async def test_plain_and_streaming_calls_hit(self, stand_in: ProviderServer, make: Make, chat: Chat):
        cache = make(semantic=layer())
        first = await litellm.acompletion(**chat(RESET))
        await written(cache)
        same = await litellm.acompletion(**chat(ALSO_RESET))
        assert same.choices[0].message.content == first.choices[0].message.content
        stream = await litellm.acompletion(**chat(ALSO_RESET), stream=True)
        said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert said == first.choices[0].message.content
        assert stand_in.calls == 1
        await litellm.acompletion(**chat(OTHER))
        await litellm.acompletion(**chat(ALSO_RESET), temperature=0.1)
        await written(cache)
        assert stand_in.calls == 3
        assert (await cache.response_cache.stats()).outcomes[Outcome.SEMANTIC_HIT] == 2

    async def test_embeddings_are_not_compared(self, stand_in: ProviderServer, make: Make):
        cache = make(semantic=layer())
        for text in (RESET, ALSO_RESET):
            await litellm.aembedding(
                model="openai/stand-in", input=[text], api_base=stand_in.base_url, api_key="test"
            )
        assert stand_in.calls == 2
        await written(cache)
