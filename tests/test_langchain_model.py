"""`cached(model, cache)`: a real model whose every call goes through the cache, streams included.

The provider is the stand-in server; it counts what reaches it.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import openai
import pytest
from langchain_core.callbacks import AsyncCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel, Field, PrivateAttr, create_model
from waiting import wait_until_async

from llmcache_plugins import CacheMiss, CachePolicy, ConfigError, PolicyRouter, ResponseCache
from llmcache_plugins.adapters.langchain import LangChainCache, cached, explain
from llmcache_plugins.policy import Refusal
from llmcache_plugins.testing.provider_server import Behaviour, ProviderServer, rate_limited, server_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from servers import Server

pytestmark = [
    # langchain-openai 0.3 dumps the SDK's answer with the parsed object still in it.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning:pydantic"),
]

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
WAYS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch", "streaming"]


@pytest.fixture
async def make(valkey: Server, namespace: str) -> AsyncIterator[Callable[..., LangChainCache]]:
    made: list[LangChainCache] = []

    def one(*, zero_usage: bool = False, **settings: Any) -> LangChainCache:
        options = {"namespace": namespace, **PATIENT, **settings}
        url = options.pop("url", valkey.url)
        made.append(LangChainCache.from_url(url, zero_usage=zero_usage, **options))
        return made[-1]

    yield one
    for cache in made:
        await cache.aclose()


@pytest.fixture
def cache(make: Callable[..., LangChainCache]) -> LangChainCache:
    return make()


def plain(stand_in: ProviderServer, **settings: Any) -> ChatOpenAI:
    options = {"model": "stand-in", "base_url": stand_in.base_url, "api_key": "test", "max_retries": 0}
    return ChatOpenAI(**{**options, "stream_usage": True, **settings})


async def ask(model: Any, way: str, question: Any = "Hi") -> Any:
    """Ask in one of the ways there are; return one message."""
    match way:
        case "ainvoke":
            return await model.ainvoke(question)
        case "invoke":
            return await asyncio.to_thread(model.invoke, question)
        case "batch":
            return (await asyncio.to_thread(model.batch, [question]))[0]
        case "abatch":
            return (await model.abatch([question]))[0]
        case "stream":
            return total(await asyncio.to_thread(lambda: list(model.stream(question))))
        case "astream":
            return total([chunk async for chunk in model.astream(question)])
        case _:
            return await model.ainvoke(question, stream=True)


def total(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


async def outcomes(cache: LangChainCache) -> dict[str, int]:
    return {str(name): count for name, count in (await cache.cache.stats()).outcomes.items() if count}


class Gated(BaseChatModel):
    """A model that cannot be told from a real one, and answers when it may."""

    setting: Any = None
    _calls: list[str] = PrivateAttr(default_factory=list)
    _gate: Any = PrivateAttr(None)
    _error: Any = PrivateAttr(None)
    _extra: Any = PrivateAttr(None)

    def __init__(self, *, gate: Any = None, error: Any = None, extra: Any = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._gate, self._error, self._extra = gate, error, extra

    @property
    def calls(self) -> list[str]:
        return self._calls

    @property
    def _llm_type(self) -> str:
        return "gated"

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self._calls.append("generate")
        return self._answer()

    async def _agenerate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self._calls.append("agenerate")
        if self._gate is not None:
            await self._gate.wait()
        return self._answer()

    def _answer(self) -> ChatResult:
        if self._error is not None:
            raise self._error
        extras = {"extra": self._extra} if self._extra else {}
        return ChatResult(generations=[ChatGeneration(message=AIMessage("said", additional_kwargs=extras))])


class Threaded(Gated):
    """The same, in chunks: one at once, the other after the gate. Like many models, only for threads."""

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        self._calls.append("stream")
        if self._error is not None:
            raise self._error
        for text in ("sa", "id"):
            yield ChatGenerationChunk(message=AIMessageChunk(text))
            if self._gate is not None:
                self._gate.wait()


class Streaming(Threaded):
    """The same, for tasks too."""

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._calls.append("astream")
        if self._error is not None:
            raise self._error
        for text in ("sa", "id"):
            yield ChatGenerationChunk(message=AIMessageChunk(text))
            if self._gate is not None:
                await self._gate.wait()


class Counting(BaseChatModel):
    """A model with a state: each answer is a number more. For pickling, at the top of a module."""

    _number: int = PrivateAttr(0)

    @property
    def _llm_type(self) -> str:
        return "counting"

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self._number += 1
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"{self._number}"))])


class TestHits:
    @pytest.mark.parametrize("first", WAYS)
    async def test_one_entry_serves_every_way_to_ask(
        self, stand_in: ProviderServer, cache: LangChainCache, first: str
    ):
        model = cached(plain(stand_in), cache)
        answers = [await ask(model, way) for way in (first, *WAYS)]
        assert stand_in.calls == 1
        assert len({answer.content for answer in answers}) == 1
        assert len({answer.id for answer in answers}) == len(answers)
        assert {answer.usage_metadata["total_tokens"] for answer in answers} == {
            answers[0].usage_metadata["total_tokens"]
        }
        assert {answer.response_metadata["model_name"] for answer in answers} == {"stand-in"}
        assert {answer.response_metadata["finish_reason"] for answer in answers} == {"stop"}
        marks = [answer.response_metadata.get("llmcache", {}).get("outcome") for answer in answers]
        assert marks == [None, *["hit"] * len(WAYS)]

    async def test_another_process_hits_too(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        for way in ("astream", "ainvoke"):
            await ask(cached(plain(stand_in), make()), way)
        assert stand_in.calls == 1

    async def test_it_takes_a_bare_response_cache(
        self, stand_in: ProviderServer, valkey: Server, namespace: str
    ):
        async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as bare:
            model = cached(plain(stand_in), bare)
            for way in ("astream", "ainvoke", "abatch", "streaming"):
                await ask(model, way)
            assert stand_in.calls == 1

    async def test_the_model_itself_stays_as_it_was(self, stand_in: ProviderServer, cache: LangChainCache):
        model = plain(stand_in)
        copy = cached(model, cache)
        assert type(model) is ChatOpenAI
        assert isinstance(copy, ChatOpenAI)
        assert (type(copy).__name__, type(copy).__module__) == (ChatOpenAI.__name__, ChatOpenAI.__module__)
        await copy.ainvoke("Hi")
        await model.ainvoke("Hi")
        assert stand_in.calls == 2

    async def test_different_questions_and_settings_are_different(
        self, stand_in: ProviderServer, cache: LangChainCache, monkeypatch: pytest.MonkeyPatch
    ):
        model = cached(plain(stand_in), cache)
        asked = [
            model.ainvoke("Hi"),
            model.ainvoke("Ho"),
            model.ainvoke([("system", "Be brief"), ("human", "Hi")]),
            model.ainvoke("Hi", stop=["x"]),
            model.ainvoke("Hi", temperature=0.5),
            model.bind(seed=1).ainvoke("Hi"),
            cached(plain(stand_in, temperature=0.7), cache).ainvoke("Hi"),
            cached(plain(stand_in, model="another"), cache).ainvoke("Hi"),
            cached(plain(stand_in, extra_body={"x": 2}), cache).ainvoke("Hi"),
            cached(plain(stand_in, default_headers={"x-tier": "gold"}), cache).ainvoke("Hi"),
        ]
        for number, one in enumerate(asked):
            await one
            assert stand_in.calls == number + 1

    async def test_what_is_no_part_of_the_question_makes_no_difference(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        await cached(plain(stand_in), cache).ainvoke("Hi")
        for settings in (
            {"api_key": "another"},
            {"max_retries": 5, "timeout": 9},
            {"tags": ["t"], "metadata": {"run": 1}, "name": "n", "verbose": False},
            {"streaming": True},
            {"default_headers": {"Authorization": "Bearer x"}},
        ):
            await cached(plain(stand_in, **settings), cache).ainvoke([HumanMessage("Hi", id="7")])
        assert stand_in.calls == 1

    async def test_a_setting_that_was_changed_later_counts(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = cached(plain(stand_in), cache)
        await model.ainvoke("Hi")
        model.temperature = 0.9
        await model.ainvoke("Hi")
        await model.model_copy(update={"temperature": 0.1}).ainvoke("Hi")
        assert stand_in.calls == 3
        assert [call.request.get("temperature") for call in stand_in.received] == [None, 0.9, 0.1]

    async def test_where_the_environment_sends_a_model_counts(
        self, stand_in: ProviderServer, cache: LangChainCache, monkeypatch: pytest.MonkeyPatch
    ):
        async with ProviderServer() as other:
            for server in (stand_in, other):
                monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
                await cached(ChatOpenAI(model="stand-in", api_key="k"), cache).ainvoke("Hi")
            assert (stand_in.calls, other.calls) == (1, 1)

    async def test_a_replayed_chat_of_streamed_turns_costs_nothing(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model, costs = cached(plain(stand_in), cache), []
        for way in ("astream", "ainvoke", "astream"):
            before, history = stand_in.calls, []
            for turn in ("one", "two", "three"):
                history.append(HumanMessage(turn))
                history.append(await ask(model, way, history))
            costs.append(stand_in.calls - before)
        assert costs == [3, 0, 0]

    @pytest.mark.skipif(not hasattr(AIMessage, "content_blocks"), reason="this line has no v1 blocks")
    async def test_blocks_that_were_streamed_are_those_that_were_not(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = cached(plain(stand_in, output_version="v1"), cache)
        costs = []
        for way in ("astream", "ainvoke", "astream"):
            before, history = stand_in.calls, []
            for turn in ("one", "two"):
                history.append(HumanMessage(turn))
                history.append(await ask(model, way, history))
            costs.append(stand_in.calls - before)
        assert costs == [2, 0, 0]

    async def test_several_generations_come_back(self, stand_in: ProviderServer, cache: LangChainCache):
        model = cached(plain(stand_in, n=3), cache)
        first = await model.agenerate([[HumanMessage("Hi")]])
        second = await model.agenerate([[HumanMessage("Hi")]])
        texts = [[generation.text for generation in result.generations[0]] for result in (first, second)]
        assert (len(texts[0]), texts[0]) == (3, texts[1])
        assert second.llm_output["token_usage"] == first.llm_output["token_usage"]
        assert stand_in.calls == 1

    async def test_what_one_caller_does_to_its_message_reaches_no_other(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = cached(plain(stand_in), cache)
        said = None
        for way in ("astream", "ainvoke", "astream", "ainvoke"):
            answer = await ask(model, way)
            said = said or answer.content
            assert answer.content == said
            answer.content = "changed"
            answer.response_metadata.clear()
        assert stand_in.calls == 1

    async def test_the_global_cache_is_not_asked_any_more(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache], namespace: str
    ):
        everywhere, own = make(namespace=namespace + "a"), make(namespace=namespace + "b")
        set_llm_cache(everywhere)
        try:
            await cached(plain(stand_in), own).ainvoke("Hi")
            assert await outcomes(everywhere) == {}
            assert await outcomes(own) == {"miss": 1}
        finally:
            set_llm_cache(None)

    async def test_usage_of_hits_is_zero_on_request(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        spent = []
        for model in (cached(plain(stand_in), make(zero_usage=True)), cached(plain(stand_in), make())):
            counter = UsageMetadataCallbackHandler()
            for way in ("ainvoke", "astream", "ainvoke"):
                await ask(model.with_config(callbacks=[counter]), way)
            spent.append(next(iter(counter.usage_metadata.values()))["total_tokens"])
        assert stand_in.calls == 1
        assert spent[1] == 3 * spent[0] > 0

    async def test_a_stream_that_told_no_usage_breaks_no_reader_of_usage(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = cached(plain(stand_in, stream_usage=False), cache)
        assert (await ask(model, "astream")).usage_metadata is None
        assert (await ask(model, "ainvoke")).usage_metadata["total_tokens"] == 0
        assert stand_in.calls == 1


class TestOptions:
    async def test_tenants_are_apart(self, stand_in: ProviderServer, cache: LangChainCache, namespace: str):
        for tenant in ("a", "b", "a"):
            await cached(plain(stand_in), cache, namespace=namespace + tenant).ainvoke("Hi")
        assert stand_in.calls == 2

    async def test_a_model_may_have_its_own_ttl_and_mode(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = plain(stand_in)
        with pytest.raises(CacheMiss):
            await cached(model, cache, mode="read_only").ainvoke("Hi")
        with pytest.raises(CacheMiss):
            await ask(cached(model, cache, mode="read_only"), "stream")
        await cached(model, cache, ttl=0).ainvoke("Hi")
        assert stand_in.calls == 1
        await cached(model, cache, ttl=60).ainvoke("Hi")
        await cached(model, cache, mode="refresh").ainvoke("Hi")
        await cached(model, cache, mode="off").ainvoke("Hi")
        assert stand_in.calls == 4
        for way in WAYS:
            await ask(cached(model, cache, mode="read_only"), way)
        assert stand_in.calls == 4

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            (lambda model, cache: cached(model.bind(seed=1), cache), "cache the model first"),
            (lambda model, cache: cached(OpenAI(api_key="k"), cache), "takes a chat model, not a OpenAI"),
            (lambda model, cache: cached(model, "redis://localhost"), "must be a LangChainCache"),
            (lambda model, cache: cached(model, cache, ttl=-1), "ttl is in seconds"),
            (lambda model, cache: cached(model, cache, policy={"ttl": 3}), "policy is a CachePolicy"),
            (lambda model, cache: cached(model, cache, mode="on"), "mode is one of"),
            (lambda model, cache: cached(model, cache, namespace=7), "namespace"),
        ],
        ids=["bound", "completion", "url", "ttl", "policy", "mode", "namespace"],
    )
    async def test_what_cannot_be_cached_is_said(
        self, stand_in: ProviderServer, cache: LangChainCache, wrong: Any, says: str
    ):
        with pytest.raises(ConfigError, match=says):
            wrong(plain(stand_in), cache)
        with pytest.raises(TypeError, match="unknown option 'tll'"):
            cached(plain(stand_in), cache, tll=3)

    async def test_caching_twice_asks_the_later_cache_only(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache], namespace: str
    ):
        first, second = make(namespace=namespace + "a"), make(namespace=namespace + "b")
        await cached(cached(plain(stand_in), first), second).ainvoke("Hi")
        assert (await outcomes(first), await outcomes(second)) == ({}, {"miss": 1})


class TestSharing:
    async def test_invokes_and_streams_of_several_processes_cost_one_call(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        stand_in.median_seconds = 0.2
        models = [cached(plain(stand_in), make()) for _ in range(2)]
        # Fewer threads than the loop's executor has: an asynchronous leader looks up addresses there.
        ways = ["ainvoke", "astream"] * 8 + ["invoke", "stream"] * 2
        answers = await asyncio.gather(*(ask(models[i % 2], way) for i, way in enumerate(ways)))
        assert stand_in.calls == 1
        assert len({answer.content for answer in answers}) == 1
        assert len({answer.id for answer in answers}) == len(answers)

    @pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
    async def test_followers_get_chunks_while_the_provider_is_still_speaking(
        self, make: Callable[..., LangChainCache], elsewhere: bool
    ):
        gate = asyncio.Event()
        model = Streaming(gate=gate)
        cache = make()
        leader = cached(model, cache).astream("Hi")
        assert (await anext(leader)).content == "sa"
        follower = cached(model, make() if elsewhere else cache).astream("Hi")
        chunk = await asyncio.wait_for(anext(follower), 10)
        assert chunk.content == "sa"
        assert not gate.is_set()
        gate.set()
        for stream in (leader, follower):
            assert "".join([chunk.content async for chunk in stream]) == "id"
        assert model.calls == ["astream"]

    async def test_threads_that_stream_get_chunks_while_the_provider_is_still_speaking(
        self, make: Callable[..., LangChainCache]
    ):
        gate = threading.Event()
        model = Streaming(gate=gate)

        def follow() -> list[str]:
            chunks = cached(model, make()).stream("Hi")
            said = [next(chunks).content]
            gate.set()
            return [*said, *(chunk.content for chunk in chunks)]

        def lead() -> list[str]:
            return [chunk.content for chunk in cached(model, make()).stream("Hi")]

        leading = asyncio.create_task(asyncio.to_thread(lead))
        await wait_until_async(lambda: model.calls, description="the provider is asked")
        assert "".join(await asyncio.wait_for(asyncio.to_thread(follow), 20)) == "said"
        assert "".join(await leading) == "said"
        assert model.calls == ["stream"]

    async def test_who_leaves_a_stream_early_takes_it_from_nobody(self, make: Callable[..., LangChainCache]):
        gate = asyncio.Event()
        model = cached(Streaming(gate=gate), make())
        async with aclosing(model.astream("Hi")) as leader:
            await anext(leader)
            follower = model.astream("Hi")
            await anext(follower)
        gate.set()
        assert "".join([chunk.content async for chunk in follower]) == "id"
        assert model.calls == ["astream"]

    async def test_a_thread_that_leaves_a_stream_early_takes_it_from_nobody(
        self, make: Callable[..., LangChainCache]
    ):
        gate, cache = threading.Event(), make()
        model = cached(Streaming(gate=gate), cache)

        def lead_and_leave() -> None:
            leader = model.stream("Hi")
            next(leader)
            follower = model.stream("Hi")
            next(follower)
            leader.close()
            gate.set()
            assert "".join(chunk.content for chunk in follower) == "id"

        await asyncio.wait_for(asyncio.to_thread(lead_and_leave), 20)
        assert model.calls == ["stream"]

    async def test_a_stream_that_all_have_left_ends_at_the_provider_and_is_not_stored(
        self, make: Callable[..., LangChainCache], valkey: Server, namespace: str
    ):
        cache = make()
        model = cached(Streaming(gate=asyncio.Event()), cache)
        async with aclosing(model.astream("Hi")) as stream:
            await anext(stream)
        await wait_until_async(
            lambda: not valkey.command("KEYS", f"llm:{{{namespace}.*}}:lease:*"), description="nobody leads"
        )
        model._gate.set()
        assert (await ask(model, "astream")).content == "said"
        assert model.calls == ["astream", "astream"]

    async def test_a_caller_that_is_cancelled_disturbs_no_other(self, make: Callable[..., LangChainCache]):
        gate = asyncio.Event()
        model = cached(Gated(gate=gate), make())
        callers = [asyncio.create_task(model.ainvoke("Hi")) for _ in range(3)]
        await wait_until_async(lambda: model.calls, description="the provider is asked")
        callers[0].cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await callers[0]
        assert [(await caller).content for caller in callers[1:]] == ["said", "said"]
        assert model.calls == ["agenerate"]

    async def test_a_blocking_call_on_a_loop_waits_for_no_call_of_that_loop(
        self, make: Callable[..., LangChainCache]
    ):
        gate = asyncio.Event()
        model = cached(Gated(gate=gate), make())
        leading = asyncio.create_task(model.ainvoke("Hi"))
        await wait_until_async(lambda: model.calls, description="the provider is asked")
        assert model.invoke("Hi").content == "said"
        gate.set()
        await leading
        assert model.invoke("Hi").response_metadata["llmcache"]["outcome"] == "hit"
        assert model.calls == ["agenerate", "generate"]

    async def test_only_who_calls_the_provider_is_limited(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        class Limiter(BaseRateLimiter):
            charged = 0

            def acquire(self, *, blocking: bool = True) -> bool:
                self.charged += 1
                return True

            async def aacquire(self, *, blocking: bool = True) -> bool:
                return self.acquire()

        limiter = Limiter()
        model = cached(plain(stand_in, rate_limiter=limiter), cache)
        for question in ("one", "two"):
            await asyncio.gather(*(ask(model, way, question) for way in WAYS))
        await asyncio.to_thread(model.invoke, "three")
        await asyncio.to_thread(lambda: list(model.stream("four")))
        assert (stand_in.calls, limiter.charged) == (4, 4)

    async def test_two_hundred_streams_cost_one(self, stand_in: ProviderServer, cache: LangChainCache):
        model = cached(plain(stand_in), cache)
        answers = await asyncio.gather(*(ask(model, "astream") for _ in range(200)))
        assert stand_in.calls == 1
        assert len({answer.content for answer in answers}) == 1


class TestErrors:
    @pytest.mark.parametrize("way", WAYS)
    async def test_the_application_gets_the_provider_s_error(
        self, stand_in: ProviderServer, cache: LangChainCache, way: str
    ):
        stand_in.behave(lambda _: server_error())
        with pytest.raises(openai.InternalServerError):
            await ask(cached(plain(stand_in), cache), way)
        stand_in.behave(lambda _: None)
        assert (await ask(cached(plain(stand_in), cache), way)).content

    @pytest.mark.parametrize("way", ["ainvoke", "astream"])
    async def test_a_limit_that_another_process_was_told_of_has_the_sdk_s_class(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache], way: str
    ):
        kinds = set()
        stand_in.behave(lambda _: rate_limited(retry_after=20))
        for _ in range(2):
            with pytest.raises(openai.RateLimitError) as caught:
                await ask(cached(plain(stand_in), make()), way)
            kinds.add(caught.type)
        assert stand_in.calls == len(kinds) == 1

    @pytest.mark.parametrize("way", ["ainvoke", "astream"])
    async def test_of_other_models_the_application_gets_the_error_by_its_own_call(
        self, make: Callable[..., LangChainCache], way: str
    ):
        class Refused(Exception):
            status_code = 422

        model = Streaming(error=Refused("no"))
        for _ in range(2):
            with pytest.raises(Refused):
                await ask(cached(model, make()), way)
        assert len(model.calls) == 2

    async def test_retries_and_fallbacks_work(self, stand_in: ProviderServer, cache: LangChainCache):
        model = cached(plain(stand_in), cache)
        stand_in.script(server_error())
        retried = await model.with_retry(
            retry_if_exception_type=(openai.InternalServerError,), wait_exponential_jitter=False
        ).ainvoke("Hi")
        assert retried.content
        assert stand_in.calls == 2
        stand_in.script(server_error())
        fallback = cached(plain(stand_in, model="another"), cache)
        answer = await model.with_fallbacks([fallback]).ainvoke("Ho")
        assert answer.response_metadata["model_name"] == "another"

    @pytest.mark.parametrize("way", WAYS)
    async def test_without_a_server_it_costs_what_it_costs_without_a_cache(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache], way: str
    ):
        model = cached(plain(stand_in), make(url="redis://127.0.0.1:1", lookup_budget=0.05))
        for number in range(3):
            assert (await ask(model, way, f"{number}")).content
        assert stand_in.calls == 3

    async def test_an_answer_without_a_stored_form_is_given_and_counted(
        self, make: Callable[..., LangChainCache]
    ):
        cache = make()
        model = cached(Gated(extra=object()), cache)
        for way in ("ainvoke", "invoke", "ainvoke", "invoke"):
            assert (await ask(model, way)).additional_kwargs["extra"] is model._extra
        stats = await cache.cache.stats()
        assert stats.refusals[Refusal.NO_CODEC] == len(model.calls) == 4

    async def test_callers_of_one_unstorable_answer_do_not_share_their_messages(
        self, make: Callable[..., LangChainCache]
    ):
        gate = asyncio.Event()
        model = cached(Gated(extra=object(), gate=gate), make())
        callers = [asyncio.create_task(model.ainvoke("Hi")) for _ in range(5)]
        await wait_until_async(lambda: model.calls, description="the provider is asked")
        gate.set()
        answers = [await caller for caller in callers]
        assert len({answer.id for answer in answers}) == len({id(answer) for answer in answers}) == 5


class TestBypass:
    async def test_what_depends_on_the_provider_s_memory_is_not_cached(
        self, stand_in: ProviderServer, cache: LangChainCache, caplog: pytest.LogCaptureFixture
    ):
        model = cached(plain(stand_in, use_previous_response_id=True), cache)
        with caplog.at_level(logging.WARNING, "llmcache_plugins"):
            for way in WAYS:
                with suppress(Exception):  # the stand-in need not know the API
                    await ask(model, way)
        assert (await outcomes(cache))["bypass"] == len(WAYS)
        assert len(caplog.records) == 1
        with pytest.raises(CacheMiss):
            await cached(plain(stand_in, use_previous_response_id=True), cache, mode="read_only").ainvoke(
                "Hi"
            )

    @pytest.mark.parametrize("way", ["ainvoke", "astream", "invoke", "stream"])
    async def test_an_argument_without_a_description_is_not_cached(
        self, cache: LangChainCache, way: str, caplog: pytest.LogCaptureFixture
    ):
        model = cached(Streaming(), cache)
        with caplog.at_level(logging.WARNING, "llmcache_plugins"):
            for _ in range(2):
                assert (await ask(model.bind(choose=lambda: None), way)).content == "said"
        assert len(model.calls) == 2
        assert await outcomes(cache) == {"bypass": 2}
        assert ["arguments.choose" in record.message for record in caplog.records] == [True]

    async def test_a_setting_without_a_description_is_not_cached(self, cache: LangChainCache):
        class Hooked(Gated):
            hook: Any = Field(None, exclude=True)

        for model in (Gated(setting={"f": object()}), Hooked(hook=lambda: 1)):
            await cached(model, cache).ainvoke("Hi")
        assert await outcomes(cache) == {"bypass": 2}
        model = cached(Gated(), cache)
        loop: list[Any] = []
        loop.append(loop)
        for _ in range(2):
            await model.bind(a=loop).ainvoke("Hi")
        assert await outcomes(cache) == {"bypass": 4}


class TestTools:
    @pytest.mark.parametrize("ways", [("ainvoke", "astream"), ("astream", "ainvoke"), ("stream", "invoke")])
    async def test_tool_calls_come_back_whole_and_in_chunks(
        self, stand_in: ProviderServer, cache: LangChainCache, ways: tuple[str, str]
    ):
        def weather(city: str) -> str:
            """Say the weather of a city."""
            return city

        model = cached(plain(stand_in), cache).bind_tools([weather], tool_choice="weather")
        first, second = [await ask(model, way) for way in ways]
        assert stand_in.calls == 1
        assert first.tool_calls == second.tool_calls
        assert [call["name"] for call in second.tool_calls] == ["weather"]

        def weather_of(city: str, day: str) -> str:
            """Say the weather of a city."""
            return city + day

        await cached(plain(stand_in), cache).bind_tools([weather_of], tool_choice="weather_of").ainvoke("Hi")
        assert stand_in.calls == 2

    async def test_structured_output_is_an_object_of_the_application_s_class(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        class Out(BaseModel):
            text: str

        stand_in.behave(lambda _: Behaviour(text='{"text": "fine"}'))
        model = cached(plain(stand_in), cache).with_structured_output(Out, method="json_schema")
        for _ in range(3):
            assert await model.ainvoke("Hi") == Out(text="fine")
        assert [part async for part in model.astream("Hi")][-1] == Out(text="fine")
        assert await asyncio.to_thread(model.invoke, "Hi") == Out(text="fine")
        assert stand_in.calls == 1

    async def test_a_class_counts_by_its_schema_and_not_by_its_name(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        stand_in.behave(lambda _: Behaviour(text='{"text": "fine", "more": 1}'))

        def model_of(**fields: Any) -> Any:
            out = create_model("Out", **fields)
            return out, cached(plain(stand_in), cache).with_structured_output(out, method="json_schema")

        for out, model in (model_of(text=(str, ...)), model_of(text=(str, ...))):  # the second: a new deploy
            assert type(await model.ainvoke("Hi")) is out
        assert stand_in.calls == 1
        out, model = model_of(text=(str, ...), more=(int, ...))
        assert (await model.ainvoke("Hi")).more == 1
        assert stand_in.calls == 2


class TestTheRestOfLangChain:
    async def test_callbacks_see_hits_begin_stream_and_end(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        class Seen(AsyncCallbackHandler):
            def __init__(self) -> None:
                self.events: list[str] = []
                self.provider: set[Any] = set()

            async def on_chat_model_start(self, *_: Any, **kwargs: Any) -> None:
                self.events.append("start")
                self.provider.add(kwargs["metadata"]["ls_provider"])
                assert kwargs["tags"] == ["mine"]

            async def on_llm_new_token(self, token: str, **_: Any) -> None:
                self.events.append("token")

            async def on_llm_end(self, *_: Any, **__: Any) -> None:
                self.events.append("end")

        model = cached(plain(stand_in), cache)
        await model.ainvoke("Hi")
        for way in ("ainvoke", "astream"):
            seen = Seen()
            await ask(model.with_config(callbacks=[seen], tags=["mine"]), way)
            assert (seen.events[0], seen.events[-1]) == ("start", "end")
            assert ("token" in seen.events) is (way == "astream")
            assert seen.provider == {"openai"}
        assert stand_in.calls == 1

    async def test_events_of_a_chain_stream_hits(self, stand_in: ProviderServer, cache: LangChainCache):
        chain = cached(plain(stand_in), cache) | RunnableLambda(lambda message: message.content)
        said = []
        for _ in range(2):
            events = [event async for event in chain.astream_events("Hi", version="v2")]
            chunks = [
                event["data"]["chunk"].content for event in events if event["event"] == "on_chat_model_stream"
            ]
            said.append("".join(chunks))
        assert said[0] == said[1] != ""
        assert stand_in.calls == 1

    async def test_configurable_fields_count(self, stand_in: ProviderServer, cache: LangChainCache):
        model = cached(plain(stand_in), cache).configurable_fields(temperature=ConfigurableField(id="t"))
        for _ in range(2):
            for temperature in (0.1, 0.2):
                await model.with_config(configurable={"t": temperature}).ainvoke("Hi")
        assert [call.request["temperature"] for call in stand_in.received] == [0.1, 0.2]

    async def test_a_model_that_keeps_a_state_keeps_it(self, cache: LangChainCache):
        model = cached(Counting(), cache)
        said = [(await ask(model, way, question)).content for question in "abac" for way in WAYS]
        assert said == [number for number in "1213" for way in WAYS]

    async def test_a_model_that_streams_only_in_threads_streams(self, cache: LangChainCache):
        model = cached(Threaded(), cache)
        assert [chunk.content async for chunk in model.astream("Hi")][:2] == ["sa", "id"]
        for way in WAYS:
            assert (await ask(model, way)).content == "said"
        assert model.calls == ["stream"]

    async def test_a_model_that_cannot_stream_still_cannot(self, cache: LangChainCache):
        model = cached(Gated(), cache)
        for way in WAYS:
            assert (await ask(model, way)).content == "said"
        assert len(model.calls) == 1

    async def test_its_settings_read_as_before(self, stand_in: ProviderServer, cache: LangChainCache):
        model = plain(stand_in, temperature=0.3)
        copy = cached(model, cache)
        assert copy.temperature == 0.3
        assert copy.lc_id() == model.lc_id()
        assert copy.get_num_tokens is not None
        assert copy.model_copy().invoke is not None


class TestPickling:
    async def test_a_copy_in_another_process_uses_the_same_entries_and_has_no_password(
        self, valkey: Server, make: Callable[..., LangChainCache]
    ):
        model = cached(Counting(), make(), ttl=60)
        assert (await model.ainvoke("Hi")).content == "1"
        again = pickle.loads(pickle.dumps(model))
        assert type(again).__name__ == "Counting"
        assert (await again.ainvoke("Hi")).content == "1"
        assert (await again.ainvoke("Ho")).content == "2"

    async def test_credentials_stay_where_they_are(
        self, tmp_path: Any, namespace: str, caplog: pytest.LogCaptureFixture
    ):
        url = "redis://somebody:hunter2@127.0.0.1:1/0"
        cache = LangChainCache.from_url(url, namespace=namespace, secret="topsecret")
        data = pickle.dumps(cached(Counting(), cache))
        assert not any(secret in data for secret in (b"hunter2", b"somebody", b"topsecret"))
        # A process with a cache of its own for the same place uses that.
        recipe = pickle.loads(data).__reduce__()[1][1]
        assert recipe.host() is cache
        del cache
        data = data.replace(namespace.encode(), namespace[::-1].encode())
        for _ in range(2):
            caplog.clear()
            with caplog.at_level(logging.WARNING, "llmcache_plugins"):
                stranger = pickle.loads(data)
            assert "without the credentials" in caplog.text
            assert type(stranger) is Counting
            assert [(await stranger.ainvoke("Hi")).content for _ in range(2)] == ["1", "2"]


class TestOneCall:
    """What the configuration of one call says, wherever in a chain it is given."""

    @pytest.mark.parametrize("way", WAYS)
    async def test_its_options_are_those_of_any_call(
        self, stand_in: ProviderServer, cache: LangChainCache, way: str
    ):
        model = cached(plain(stand_in), cache)
        apart = model.with_config(metadata={"llmcache": {"namespace": "elsewhere", "tags": ["doc:7"]}})
        for asked in (model, apart, apart, model):
            await ask(asked, way)
        assert stand_in.calls == 2
        await cache.cache.invalidate(tags=["doc:7"])
        await ask(apart, way)
        assert stand_in.calls == 2
        await cache.cache.invalidate(tags=["doc:7"], namespace="elsewhere")
        await ask(apart, way)
        await ask(model, way)
        assert stand_in.calls == 3

    async def test_a_chain_hands_it_on(self, stand_in: ProviderServer, cache: LangChainCache):
        chain = RunnableLambda(lambda text: f"{text}?") | cached(plain(stand_in), cache)
        for version in (1, 1, 2):
            await chain.ainvoke("Hi", config={"metadata": {"llmcache": {"data_version": version}}})
        assert stand_in.calls == 2

    @pytest.mark.parametrize("said", ["x", {"namspace": "x"}, {"ttl": -1}, {"tags": "doc:7"}])
    async def test_what_is_not_understood_is_not_cached_and_said_once(
        self, stand_in: ProviderServer, cache: LangChainCache, caplog: pytest.LogCaptureFixture, said: Any
    ):
        model = cached(plain(stand_in), cache)
        for _ in range(2):
            await model.ainvoke("Hi", config={"metadata": {"llmcache": said}})
        assert stand_in.calls == 2
        assert await outcomes(cache) == {"bypass": 2}
        assert len([one for one in caplog.messages if "not cached" in one]) == 1


class TestPolicies:
    async def test_a_policy_sees_a_flat_body_whichever_way_the_model_is_asked(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        seen: list[dict[str, Any]] = []

        def note(request: dict[str, Any]) -> bool:
            seen.append(request)
            return False

        cache = make(policy=PolicyRouter((note, "batch"), ("stand-in", CachePolicy(max_temperature=0.5))))
        model = plain(stand_in, temperature=0.7)
        set_llm_cache(cache)
        await cached(model, cache).ainvoke("Hi")
        await model.ainvoke("Hi")
        set_llm_cache(None)
        assert {request["model"] for request in seen} == {"stand-in"}
        assert {request["temperature"] for request in seen} == {0.7}
        assert (await cache.cache.stats()).refusals[Refusal.TEMPERATURE] == 2

    async def test_the_answers_of_a_model_are_forgotten_by_its_name(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = plain(stand_in)
        set_llm_cache(cache)
        for asked in (cached(model, cache), model):
            await asked.ainvoke("Hi")
        await cache.cache.invalidate(model="another")
        await cached(model, cache).ainvoke("Hi")
        assert stand_in.calls == 2
        await cache.cache.invalidate(model="stand-in")
        for asked in (cached(model, cache), model):
            await asked.ainvoke("Hi")
        set_llm_cache(None)
        assert stand_in.calls == 4

    async def test_of_those_who_find_a_stale_answer_by_the_hook_one_calls(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        cache = make(policy=CachePolicy(ttl=0.3, stale_while_revalidate=100))
        model = plain(stand_in, cache=cache)
        await model.ainvoke("Hi")

        async def is_stale() -> bool:
            hits = await asyncio.gather(*(model.ainvoke("Hi") for _ in range(10)))
            return any(
                hit.response_metadata["llmcache"]["outcome"] == "stale"
                for hit in hits[1:]
                if "llmcache" in hit.response_metadata
            )

        await wait_until_async(is_stale, description="it is stale")
        assert stand_in.calls == 2

    async def test_a_cached_model_serves_stale_while_one_call_refreshes(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        cache = make(policy=CachePolicy(ttl=0.01, stale_while_revalidate=100))
        model = cached(plain(stand_in), cache)
        await model.ainvoke("Hi")

        async def is_stale() -> bool:
            await model.ainvoke("Hi", config={"metadata": {"llmcache": {"mode": "read_only"}}})
            return (await outcomes(cache)).get("stale", 0) > 0

        await wait_until_async(is_stale, description="the answer is stale")
        await asyncio.gather(*(model.ainvoke("Hi") for _ in range(10)))
        await wait_until_async(lambda: stand_in.calls == 2, description="one refresh")


class TestExplain:
    @pytest.mark.parametrize("by_hook", [True, False], ids=["hook", "cached"])
    async def test_why_a_call_misses(self, stand_in: ProviderServer, cache: LangChainCache, by_hook: bool):
        def made(**settings: Any) -> ChatOpenAI:
            if by_hook:
                return plain(stand_in, cache=cache, **settings)
            return cached(plain(stand_in, **settings), cache)

        await made(temperature=0.1).ainvoke("Hi")
        assert (await explain(made(temperature=0.1), "Hi", cache)).outcome == "hit"
        said = await explain(made(temperature=0.2), "Hi", cache)
        assert (said.outcome, said.differences) == ("miss", ("temperature",))
        said = await explain(made(temperature=0.1), [HumanMessage("Ho")], cache)
        assert said.differences == ("messages[0].kwargs.content",)
        assert stand_in.calls == 1
