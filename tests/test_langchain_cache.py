"""`set_llm_cache(LangChainCache...)` with real models: ChatOpenAI over HTTP, and completion models.

The provider is the stand-in server; it counts what reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import sys
import textwrap
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from command import run
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from waiting import wait_until_async

from llmcache_plugins import CacheMiss, ResponseCache
from llmcache_plugins.adapters.langchain import LangChainCache
from llmcache_plugins.cache import Errand
from llmcache_plugins.testing.provider_server import (
    Behaviour,
    ProviderServer,
    hanging,
    rate_limited,
    server_error,
    truncated,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from langchain_core.caches import BaseCache
    from servers import Server

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}


@pytest.fixture
async def make(valkey: Server, namespace: str) -> AsyncIterator[Callable[..., LangChainCache]]:
    made: list[LangChainCache] = []

    def one(**settings: Any) -> LangChainCache:
        options = {"namespace": namespace, **PATIENT, **settings}
        made.append(LangChainCache.from_url(options.pop("url", valkey.url), **options))
        return made[-1]

    yield one
    for cache in made:
        await cache.aclose()


@pytest.fixture
def cache(make: Callable[..., LangChainCache]) -> LangChainCache:
    return make()


def chat(stand_in: ProviderServer, cache: BaseCache, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="stand-in", base_url=stand_in.base_url, api_key="test", max_retries=0, cache=cache, **settings
    )


class Completion(LLM):
    """A completion model as LangChain has them; waits at its gate."""

    gate: Any = None
    calls: list[str]

    @property
    def _llm_type(self) -> str:
        return "completion"

    def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        self.calls.append(prompt)
        if self.gate is not None:
            self.gate.wait(30)
        return f"answer to {prompt}"

    async def _acall(self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        self.calls.append(prompt)
        if self.gate is not None:
            await self.gate.wait()
        return f"answer to {prompt}"


class Saying(BaseChatModel):
    """A chat model that says the message it is given to say."""

    says: Any
    calls: int = 0

    @property
    def _llm_type(self) -> str:
        return "saying"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "saying"}

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.calls += 1
        return ChatResult(generations=[ChatGeneration(message=self.says.model_copy(deep=True))])


class TestHits:
    async def test_the_second_call_costs_nothing_and_says_so(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = chat(stand_in, cache)
        first, second = await model.ainvoke("Hi"), await model.ainvoke("Hi")
        assert second.content == first.content
        assert second.id != first.id
        assert second.response_metadata["llmcache"]["outcome"] == "hit"
        assert stand_in.calls == 1

    async def test_a_chat_that_is_replayed_costs_nothing(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = chat(stand_in, cache)
        costs = []
        for _ in range(3):
            before, history = stand_in.calls, []
            for turn in ("one", "two", "three"):
                history.append(HumanMessage(turn))
                history.append(await model.ainvoke(history))
            costs.append(stand_in.calls - before)
        assert costs == [3, 0, 0]

    async def test_different_questions_models_and_parameters_are_different(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        await chat(stand_in, cache).ainvoke("Hi")
        await chat(stand_in, cache).ainvoke("Ho")
        await chat(stand_in, cache, temperature=0.5).ainvoke("Hi")
        await chat(stand_in, cache).bind(stop=["x"]).ainvoke("Hi")
        assert stand_in.calls == 4

    async def test_what_one_caller_does_to_its_message_reaches_no_other(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = chat(stand_in, cache)
        first = await model.ainvoke("Hi")
        said = first.content
        first.content = "changed"
        second = await model.ainvoke("Hi")
        assert second.content == said
        second.content = "changed too"
        assert (await model.ainvoke("Hi")).content == said

    async def test_nor_what_it_does_while_the_answer_is_being_stored(self, cache: LangChainCache):
        """The cache is handed the application's own message."""
        message = AIMessage("said", additional_kwargs={"a": [1]})
        storing = asyncio.create_task(cache.aupdate("p", "s", [ChatGeneration(message=message)]))
        for _ in range(3):
            await asyncio.sleep(0)
        message.content = "changed"
        message.additional_kwargs["a"].append(2)
        await storing
        found = await cache.alookup("p", "s")
        assert found is not None
        assert found[0].text == "said"
        assert found[0].message.additional_kwargs == {"a": [1]}

    async def test_nor_what_one_of_those_who_waited_does_to_it(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        answers = await asyncio.gather(*(chat(stand_in, cache).ainvoke("Hi") for _ in range(3)))
        said = answers[0].content
        for answer in answers:
            assert answer.content == said
            answer.content = "changed"
            answer.response_metadata.clear()
        assert (await chat(stand_in, cache).ainvoke("Hi")).content == said
        assert stand_in.calls == 1

    async def test_several_generations_come_back_together(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = chat(stand_in, cache, n=3)
        first, second = [await model.agenerate([[HumanMessage("Hi")]]) for _ in range(2)]
        assert len(first.generations[0]) == 3
        assert [one.text for one in second.generations[0]] == [one.text for one in first.generations[0]]
        assert stand_in.calls == 1

    async def test_no_generations_are_no_hit(self, cache: LangChainCache):
        """LangChain takes an empty list for a hit, and fails on it."""
        await cache.aupdate("p", "s", [])
        assert await cache.alookup("p", "s") is None

    async def test_instructions_to_langchains_loader_stay_data(
        self, cache: LangChainCache, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("LLMCACHE_TEST_SECRET", "must-not-leak")
        payload = {"lc": 1, "type": "secret", "id": ["LLMCACHE_TEST_SECRET"]}
        said = AIMessage(
            [json.dumps(payload), {"type": "text", "text": json.dumps(payload)}],
            additional_kwargs={"x": payload},
            response_metadata={"x": [payload]},
            tool_calls=[{"name": "f", "args": payload, "id": "1"}],
        )
        model = Saying(says=said, cache=cache)
        await model.ainvoke("Hi")
        hit = await model.ainvoke("Hi")
        assert model.calls == 1
        assert hit.content == said.content
        assert hit.additional_kwargs == said.additional_kwargs
        assert hit.response_metadata["x"] == [payload]
        assert hit.tool_calls[0]["args"] == payload
        assert "must-not-leak" not in repr(hit)

    async def test_what_would_not_come_back_as_it_is_is_given_but_not_stored(self, cache: LangChainCache):
        model = Saying(says=AIMessage("yes", additional_kwargs={"x": {1, 2}}), cache=cache)
        answers = await asyncio.gather(*(model.ainvoke("Hi") for _ in range(3)))
        assert [answer.additional_kwargs["x"] for answer in answers] == [{1, 2}] * 3
        assert model.calls == 3
        assert (await cache.cache.stats()).refusals == {"no_codec": 3}

    # langchain-openai 0.3 dumps the SDK's answer with the parsed object still in it.
    @pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning:pydantic")
    async def test_structured_output_never_breaks_and_hits_where_the_key_tells_the_schema(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        class Out(BaseModel):  # the stand-in gives every tool these two
            topic: str
            limit: int

        calls = []
        for schema, how in (
            (Out, "json_schema"),
            ({"title": "Out", **Out.model_json_schema()}, "json_schema"),
            (Out, "function_calling"),
        ):
            text = '{"topic": "said", "limit": 1}' if how == "json_schema" else None
            stand_in.behave(lambda _call, text=text: Behaviour(text=text))
            model = chat(stand_in, cache).with_structured_output(schema, method=how)
            before = stand_in.calls
            first, second = [await model.ainvoke("Hi") for _ in range(2)]
            assert first == second
            assert isinstance(first, dict if isinstance(schema, dict) else Out)
            calls.append(stand_in.calls - before)
        assert calls == [2, 1, 1]

    async def test_a_truncated_answer_is_given_and_asked_for_again(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        stand_in.script(truncated())
        model = chat(stand_in, cache)
        reasons = [(await model.ainvoke("Hi")).response_metadata["finish_reason"] for _ in range(3)]
        assert reasons == ["length", "stop", "stop"]
        assert stand_in.calls == 2
        assert (await cache.cache.stats()).refusals == {"truncated": 1}

    async def test_a_class_of_the_process_in_the_key_is_not_cached_and_named_once(
        self, stand_in: ProviderServer, cache: LangChainCache, caplog: pytest.LogCaptureFixture
    ):
        class Out(BaseModel):
            text: str

        model = chat(stand_in, cache).bind(response_format=Out)
        with caplog.at_level(logging.WARNING, "llmcache_plugins"):
            for _ in range(2):
                with contextlib.suppress(Exception):
                    await model.ainvoke("Hi")
        assert stand_in.calls == 2
        assert (await cache.cache.stats()).outcomes == {"bypass": 2}
        assert len([record for record in caplog.records if "not cached" in record.message]) == 1
        assert "stand-in" not in caplog.text

    async def test_it_is_used_whatever_it_holds(self, cache: LangChainCache):
        """langchain-core 0.3 asks `if llm_cache:`."""
        assert bool(cache) is True
        assert not hasattr(cache, "__len__")

    async def test_an_answer_can_be_put_in_without_a_lookup_and_be_cleared(self, cache: LangChainCache):
        await cache.aupdate("p", "s", [Generation(text="x")])
        assert await cache.alookup("p", "s") == [Generation(text="x")]
        await cache.aclear()
        assert await cache.alookup("p", "s") is None

    async def test_tenants_are_apart(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache], namespace: str
    ):
        for tenant in ("a", "b"):
            await chat(stand_in, make(namespace=namespace + tenant)).ainvoke("Hi")
        assert stand_in.calls == 2


class TestCallbacks:
    async def test_a_hit_of_a_chat_model_begins_and_ends_and_one_of_a_completion_model_does_not(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        """As with every cache: LangChain decides it."""
        for model, expected in ((chat(stand_in, cache), 2), (Completion(cache=cache, calls=[]), 0)):
            await model.ainvoke("Hi")
            hearing = Hearing()
            await model.ainvoke("Hi", {"callbacks": [hearing]})
            assert len(hearing.heard) == expected

    @pytest.mark.parametrize("is_async", [True, False], ids=["ainvoke", "invoke"])
    @pytest.mark.parametrize("kind", ["chat", "completion"])
    @pytest.mark.parametrize("is_cached", [True, False], ids=["cached", "not cached"])
    async def test_callbacks_of_others_hear_what_they_heard_before(
        self, cache: LangChainCache, is_async: bool, kind: str, is_cached: bool
    ):
        """The cache listens to LangChain's callbacks too, of all models of the process."""
        where = cache if is_cached else False
        model: Any = Completion(cache=where, calls=[])
        if kind == "chat":
            model = Saying(says=AIMessage("yes"), cache=where)
        handlers = [Hearing(), HearingAsync()]
        if is_async:
            await model.ainvoke("Hi", {"callbacks": handlers})
        else:
            await asyncio.to_thread(model.invoke, "Hi", {"callbacks": handlers})
        assert [handler.heard for handler in handlers] == [["start", "end"]] * 2

    @pytest.mark.parametrize("is_async", [True, False], ids=["ainvoke", "invoke"])
    async def test_a_message_of_the_application_s_own_kind_may_be_sent(
        self, cache: LangChainCache, is_async: bool
    ):
        """LangChain makes a text of a chat for some handlers, and can do so of its own messages only."""
        model = Saying(says=AIMessage("yes"), cache=cache)
        for _ in range(2):
            chat = [Whisper(content="Hi", type="whisper")]
            answer = await (model.ainvoke(chat) if is_async else asyncio.to_thread(model.invoke, chat))
            assert answer.content == "yes"
        assert model.calls == 1

    @pytest.mark.parametrize(("zero_usage", "counted"), [(False, 3), (True, 1)], ids=["as said", "zero"])
    async def test_whoever_counts_usage_may_have_hits_count_nothing(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache], zero_usage: bool, counted: int
    ):
        model = chat(stand_in, make(zero_usage=zero_usage))
        counting = UsageMetadataCallbackHandler()
        first = await model.ainvoke("Hi", {"callbacks": [counting]})
        for _ in range(2):
            await model.ainvoke("Hi", {"callbacks": [counting]})
        (usage,) = counting.usage_metadata.values()
        assert usage["total_tokens"] == counted * first.usage_metadata["total_tokens"] > 0

    async def test_only_who_asks_the_provider_is_limited(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        class Limiter(BaseRateLimiter):
            asked = 0

            def acquire(self, *, blocking: bool = True) -> bool:
                raise AssertionError

            async def aacquire(self, *, blocking: bool = True) -> bool:
                self.asked += 1
                return True

        limiter = Limiter()
        model = chat(stand_in, cache, rate_limiter=limiter)
        await asyncio.gather(*(model.ainvoke("Hi") for _ in range(5)))
        await model.ainvoke("Hi")
        assert limiter.asked == stand_in.calls == 1

    async def test_a_hit_costs_no_more_tasks_than_one_of_a_dict(
        self, stand_in: ProviderServer, cache: LangChainCache, monkeypatch: pytest.MonkeyPatch
    ):
        """LangChain makes tasks for every handler that a call has: there is to be none of ours."""

        async def tasks_of_a_hit(model: ChatOpenAI) -> int:
            await model.ainvoke("Hi")
            made: list[object] = []

            def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
                made.append(coro)
                return asyncio.Task(coro, loop=loop, **options)

            asyncio.get_running_loop().set_task_factory(factory)
            await model.ainvoke("Hi")
            asyncio.get_running_loop().set_task_factory(None)
            return len(made)

        calls = stand_in.calls
        ours = await tasks_of_a_hit(chat(stand_in, cache))
        monkeypatch.setattr("langchain_core.tracers.context._configure_hooks", [])
        assert ours == await tasks_of_a_hit(chat(stand_in, InMemoryCache()))
        assert stand_in.calls == calls + 2


class Hearing(BaseCallbackHandler):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_llm_start(self, *_: Any, **__: Any) -> None:
        self.heard.append("start")

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.heard.append("end")


class HearingAsync(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.heard: list[str] = []

    async def on_llm_start(self, *_: Any, **__: Any) -> None:
        self.heard.append("start")

    # 0.3 forgets to go on to `on_llm_start` where it awaits nothing.
    on_chat_model_start = on_llm_start

    async def on_llm_end(self, *_: Any, **__: Any) -> None:
        self.heard.append("end")


class Whisper(BaseMessage):
    """Not one of the kinds of message that LangChain knows."""


class TestStreams:
    async def test_a_stream_of_the_model_itself_asks_no_cache(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        """LangChain asks none there; `cached(model)` does."""
        model = chat(stand_in, cache)
        await model.ainvoke("Hi")
        for _ in range(2):
            assert len([chunk async for chunk in model.astream("Hi")]) > 1
        assert stand_in.calls == 3

    async def test_a_call_whose_pieces_are_watched_is_stored_whole_and_hits_without_pieces(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = chat(stand_in, cache)

        async def step(prompt: str) -> Any:
            return await model.ainvoke(prompt)

        pieces, contents = [], []
        for _ in range(2):
            events = [event async for event in RunnableLambda(step).astream_events("Hi", version="v2")]
            pieces.append([event for event in events if event["event"] == "on_chat_model_stream"])
            contents.append(events[-1]["data"]["output"].content)
        assert len(pieces[0]) > 1
        assert pieces[1] == []
        assert contents[0] == contents[1] == (await model.ainvoke("Hi")).content
        assert stand_in.calls == 1


class TestWhatLangChainDoesNotTell:
    """What the two strings leave out, no cache can tell apart. These pin it: docs/langchain.md says so."""

    async def test_a_model_that_is_changed_in_place_is_the_same_and_one_that_is_bound_is_not(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        model = chat(stand_in, cache, temperature=0.1)
        await model.ainvoke("Hi")
        model.temperature = 0.9
        await model.ainvoke("Hi")
        await model.model_copy(update={"temperature": 0.8}).ainvoke("Hi")
        assert stand_in.calls == 1
        await model.bind(temperature=0.9).ainvoke("Hi")
        await chat(stand_in, cache, temperature=0.9).ainvoke("Hi")
        assert stand_in.calls == 3

    async def test_what_a_call_of_a_completion_model_is_given_but_for_stop(self, cache: LangChainCache):
        model = Completion(cache=cache, calls=[])
        await model.ainvoke("Hi")
        await model.ainvoke("Hi", temperature=1.5)
        await model.bind(temperature=0.0).ainvoke("Hi")
        assert model.calls == ["Hi"]
        await model.ainvoke("Hi", stop=["x"])
        assert model.calls == ["Hi", "Hi"]

    async def test_where_the_environment_sends_a_model(
        self, stand_in: ProviderServer, cache: LangChainCache, monkeypatch: pytest.MonkeyPatch
    ):
        async with ProviderServer() as other:
            for server in (stand_in, other):
                monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
                model = ChatOpenAI(model="stand-in", api_key="test", max_retries=0, cache=cache)
                await model.ainvoke("Hi")
            assert (stand_in.calls, other.calls) == (1, 0)
            for server in (stand_in, other):
                await chat(server, cache).ainvoke("Hi")
            assert (stand_in.calls, other.calls) == (2, 1)


class TestSharing:
    async def test_twenty_at_once_cost_one_call_here_and_elsewhere(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        models = [chat(stand_in, make()) for _ in range(2)]
        answers = await asyncio.gather(*(models[i % 2].ainvoke("Hi") for i in range(20)))
        assert stand_in.calls == 1
        assert len({answer.content for answer in answers}) == 1
        assert len({answer.id for answer in answers}) == 20

    async def test_a_batch_pays_for_each_question_once(self, stand_in: ProviderServer, cache: LangChainCache):
        questions = [f"question {number % 70}" for number in range(100)]
        answers = await chat(stand_in, cache).abatch(questions)
        assert len(answers) == 100
        assert stand_in.calls == 70

    async def test_when_a_call_fails_one_of_those_who_wait_calls(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        stand_in.script(server_error())
        model = chat(stand_in, cache)
        outcomes = await asyncio.gather(*(model.ainvoke("Hi") for _ in range(10)), return_exceptions=True)
        assert sum(isinstance(outcome, Exception) for outcome in outcomes) == 1
        assert stand_in.calls == 2

    async def test_when_a_call_is_cancelled_one_of_those_who_wait_calls_at_once(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        stand_in.script(hanging())
        here, there = (chat(stand_in, make(poll_interval=30.0)) for _ in range(2))
        leader = asyncio.create_task(here.ainvoke("Hi"))
        await stand_in.called(1)
        followers = [asyncio.create_task(model.ainvoke("Hi")) for model in (here, there)]
        await asyncio.wait(followers, timeout=0.1)
        leader.cancel()
        answers = await asyncio.wait_for(asyncio.gather(*followers), 5)
        assert answers[0].content == answers[1].content
        assert stand_in.calls == 2

    async def test_a_retry_is_a_call_of_its_own_and_waits_for_nobody(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        stand_in.script(rate_limited(retry_after=0.01), server_error())
        model = chat(stand_in, cache).with_retry(stop_after_attempt=3, wait_exponential_jitter=False)
        answer = await asyncio.wait_for(model.ainvoke("Hi"), 10)
        assert isinstance(answer, AIMessage)
        assert stand_in.calls == 3

    async def test_a_fallback_gets_its_answer(self, stand_in: ProviderServer, cache: LangChainCache):
        stand_in.script(server_error())
        model = chat(stand_in, cache).with_fallbacks([chat(stand_in, cache, temperature=0.1)])
        assert isinstance(await asyncio.wait_for(model.ainvoke("Hi"), 5), AIMessage)
        assert stand_in.calls == 2


class TestCompletionModels:
    async def test_crossed_batches_do_not_wait_for_one_another(self, cache: LangChainCache):
        model = Completion(cache=cache, calls=[])
        both = await asyncio.wait_for(
            asyncio.gather(model.agenerate(["A", "B"]), model.agenerate(["B", "A"])), 5
        )
        texts = [[one[0].text for one in result.generations] for result in both]
        assert texts == [["answer to A", "answer to B"], ["answer to B", "answer to A"]]

    async def test_a_batch_that_asks_twice_does_not_wait_for_itself(self, cache: LangChainCache):
        model = Completion(cache=cache, calls=[])
        result = await asyncio.wait_for(model.agenerate(["A", "A"]), 5)
        assert [one[0].text for one in result.generations] == ["answer to A"] * 2
        assert (await model.ainvoke("A")) == "answer to A"
        assert len(model.calls) == 2

    async def test_twenty_at_once_cost_one_call(self, cache: LangChainCache):
        model = Completion(cache=cache, calls=[])
        assert set(await asyncio.gather(*(model.ainvoke("A") for _ in range(20)))) == {"answer to A"}
        assert model.calls == ["A"]

    async def test_a_task_that_lives_on_after_a_failed_call_holds_nobody_up(
        self, make: Callable[..., LangChainCache]
    ):
        class Failing(Completion):
            async def _acall(
                self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any
            ) -> str:
                raise ValueError("no")

        here, there = make(poll_interval=30.0), make(poll_interval=30.0)
        has_failed, go_on = asyncio.Event(), asyncio.Event()

        async def lives_on() -> None:
            with pytest.raises(ValueError, match="no"):
                await Failing(cache=here, calls=[]).ainvoke("A")
            has_failed.set()
            await go_on.wait()

        task = asyncio.create_task(lives_on())
        await has_failed.wait()
        llm = Completion(cache=there, calls=[])
        assert await asyncio.wait_for(llm.ainvoke("A"), 5) == "answer to A"
        go_on.set()
        await task


class TestNearCache:
    """What was read a moment ago is at hand, in tasks and threads, with a server or without."""

    async def test_hits_are_messages_of_their_own_and_say_that_they_hit(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        cache = make(near_cache=True)
        model = chat(stand_in, cache)
        messages = [await model.ainvoke("Hi") for _ in range(20)]
        assert stand_in.calls == 1
        assert (await cache.cache.stats()).found_near > 0
        assert len({message.id for message in messages}) == 20
        assert len({id(message.response_metadata) for message in messages}) == 20
        assert {m.response_metadata["llmcache"]["outcome"] for m in messages[1:]} == {"hit"}
        assert {message.content for message in messages} == {messages[0].content}

    async def test_threads_and_a_loops_own_thread_ask_no_server(
        self, make: Callable[..., LangChainCache], valkey: Server
    ):
        cache = make(near_cache=True, lookup_budget=0.05)
        generations = [Generation(text="stored")]
        await cache.aupdate("p", "s", generations)

        async def at_hand() -> bool:
            assert await cache.alookup("p", "s") == generations
            return (await cache.cache.stats()).found_near > 0

        await wait_until_async(at_hand, description="it is at hand")
        assert await cache.alookup("p", "s") == generations
        valkey.pause()
        try:
            found = [cache.lookup("p", "s"), await asyncio.to_thread(cache.lookup, "p", "s")]
        finally:
            valkey.resume()
        assert found == [generations, generations]

    async def test_what_is_cleared_is_gone(self, make: Callable[..., LangChainCache]):
        cache = make(near_cache=True)
        for clear in (cache.aclear, lambda: asyncio.to_thread(cache.clear)):
            await cache.aupdate("p", "s", [Generation(text="stored")])
            for _ in range(2):
                assert await cache.alookup("p", "s") is not None
            await clear()
            assert await asyncio.create_task(cache.alookup("p", "s")) is None

    async def test_nothing_odd_raises(self, make: Callable[..., LangChainCache]):
        cache: Any = make(near_cache=True)
        assert await cache.alookup(None, 7) is None


class TestSync:
    @pytest.fixture
    def in_thread(self) -> Callable[[Callable[[], Any]], Any]:
        """Run in a thread without a loop, as a synchronous program does."""

        def run(work: Callable[[], Any]) -> Any:
            return asyncio.get_running_loop().run_in_executor(None, work)

        return run

    async def test_a_synchronous_program_hits(
        self, stand_in: ProviderServer, cache: LangChainCache, in_thread: Callable[..., Any]
    ):
        model = chat(stand_in, cache)
        first = await in_thread(lambda: model.invoke("Hi"))
        second = await in_thread(lambda: model.invoke("Hi"))
        assert first.content == second.content == (await model.ainvoke("Hi")).content
        assert stand_in.calls == 1

    async def test_threads_share_one_call(
        self, stand_in: ProviderServer, cache: LangChainCache, in_thread: Callable[..., Any]
    ):
        model = chat(stand_in, cache)
        answers = await asyncio.gather(*(in_thread(lambda: model.invoke("Hi")) for _ in range(8)))
        assert len({answer.content for answer in answers}) == 1
        assert stand_in.calls == 1

    async def test_a_batch_in_threads_pays_once_for_each(
        self, stand_in: ProviderServer, cache: LangChainCache, in_thread: Callable[..., Any]
    ):
        model = chat(stand_in, cache)
        answers = await in_thread(lambda: model.batch(["a", "b", "a", "b", "a"]))
        assert len(answers) == 5
        assert stand_in.calls == 2

    async def test_tokens_of_a_call_in_a_thread_cost_no_event_loops(
        self, cache: LangChainCache, in_thread: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ):
        """LangChain makes one for each event that an asynchronous handler wants to hear of in a thread."""

        class Talking(Completion):
            def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
                for token in ["one", "two", "three"]:
                    run_manager.on_llm_new_token(token)
                return super()._call(prompt)

        made: list[object] = []
        runner = asyncio.Runner
        monkeypatch.setattr(asyncio, "Runner", lambda: made.append(None) or runner())
        assert await in_thread(lambda: Talking(cache=cache, calls=[]).invoke("p")) == "answer to p"
        assert made == []

    async def test_a_failed_call_holds_nobody_up(
        self, stand_in: ProviderServer, cache: LangChainCache, in_thread: Callable[..., Any]
    ):
        stand_in.script(server_error())
        model = chat(stand_in, cache)
        failed, answered = await asyncio.wait_for(
            asyncio.gather(
                *(in_thread(lambda: model.invoke("Hi")) for _ in range(2)), return_exceptions=True
            ),
            10,
        )
        assert sorted(isinstance(one, Exception) for one in (failed, answered)) == [False, True]

    async def test_on_a_running_loop_it_hits_and_waits_for_no_call(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        generations = [ChatGeneration(message=AIMessage("stored"))]
        await cache.aupdate("p", "s", generations)
        found = cache.lookup("p", "s")
        assert found is not None
        assert found[0].text == "stored"
        asked = asyncio.create_task(_only_look_up(cache, "q"))
        await asyncio.sleep(0)
        assert cache.lookup("q", "s") is None  # led by a task of this very loop: it would wait for ever
        cache.update("q", "s", generations)
        asked.cancel()
        await asyncio.wait((asked,))

    async def test_a_server_that_hangs_holds_up_a_running_loop_for_no_longer_than_a_lookup_may_take(
        self, make: Callable[..., LangChainCache], valkey: Server
    ):
        cache = make(lookup_budget=0.05, commit_budget=60.0, socket_timeout=60.0, connect_timeout=60.0)
        generations = [Generation(text="stored")]
        cache.update("p", "s", generations)
        await wait_until_async(lambda: cache.lookup("p", "s") == generations, description="it is stored")
        valkey.pause()
        began = time.monotonic()
        assert cache.lookup("p", "s") is None
        cache.update("q", "s", generations)
        assert time.monotonic() - began < 5
        valkey.resume()
        cache.update("p", "s", generations)

    async def test_even_in_its_own_thread_it_waits_for_no_longer_than_a_lookup_may_take(
        self, make: Callable[..., LangChainCache]
    ):
        """An observer that asks a model, say."""

        class Asking:
            answers: list[Any] = []  # noqa: RUF012 - of one test

            def on_event(self, _event: Any) -> None:
                if not self.answers:
                    self.answers.append(None)
                    self.answers.append(cache.lookup("q", "s"))

        asking = Asking()
        cache = make(observers=[asking], lookup_budget=0.05, connect_timeout=0.05, commit_budget=0.05)
        await asyncio.wait_for(asyncio.to_thread(cache.lookup, "p", "s"), 5)
        assert asking.answers == [None, None]

    async def test_a_thread_of_its_own_is_started_when_it_is_needed(
        self, stand_in: ProviderServer, cache: LangChainCache, in_thread: Callable[..., Any]
    ):
        await chat(stand_in, cache).ainvoke("Hi")
        assert not background_threads()
        await in_thread(lambda: chat(stand_in, cache).invoke("Hi"))
        assert [thread.daemon for thread in background_threads()] == [True]

    async def test_closing_it_under_a_thread_that_waits_lets_the_thread_call(
        self,
        make: Callable[..., LangChainCache],
        in_thread: Callable[..., Any],
        caplog: pytest.LogCaptureFixture,
    ):
        cache, gate = make(commit_budget=0.05), threading.Event()
        slow, model = Completion(cache=cache, calls=[], gate=gate), Completion(cache=cache, calls=[])
        try:
            leading = in_thread(lambda: slow.invoke("A"))
            await wait_until_async(lambda: slow.calls, description="it calls", timeout=10)
            following = in_thread(lambda: model.invoke("A"))
            await wait_until_async(lambda: callers(cache) == 2, description="the other one waits", timeout=10)
            await in_thread(cache.close)
            assert await asyncio.wait_for(following, 10) == "answer to A"
        finally:
            gate.set()
        assert await asyncio.wait_for(leading, 10) == "answer to A"
        assert not caplog.records

    def test_several_loops_one_after_another_use_it(self, valkey: Server, namespace: str):
        with LangChainCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
            model = Completion(cache=cache, calls=[])
            for _ in range(3):
                assert asyncio.run(model.ainvoke("A")) == "answer to A"
            assert model.invoke("A") == "answer to A"
            assert model.calls == ["A"]

    def test_a_program_that_forks_and_forgets_it_ends_in_silence(self, valkey: Server, namespace: str):
        """A child has connections of its own, and its exit leaves the parent those that it has."""
        done = run(sys.executable, "-W", "error", "-c", PROGRAM, valkey.url, namespace, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["child:2", "parent:1"]

    def test_a_program_of_its_own_needs_no_loop(self, valkey: Server, namespace: str):
        with LangChainCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
            model = Completion(cache=cache, calls=[])
            assert [model.invoke("A"), model.invoke("A")] == ["answer to A"] * 2
            assert model.calls == ["A"]
            cache.clear()
            model.invoke("A")
            assert model.calls == ["A", "A"]
        assert not background_threads()


def callers(cache: LangChainCache) -> int:
    """Return how many threads and tasks wait for an answer, its bringer included."""
    maps = list(cache.cache._errands._flights._per_loop._here.values())
    return sum(flight.callers for flights in maps for flight in list(flights.values()))


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "llmcache" and thread.is_alive()]


# Asks for A twice, and in a child for B too; says how many calls its model got, and leaves all to the exit.
PROGRAM = textwrap.dedent(
    """
    import os, sys, warnings
    from langchain_core.language_models.llms import LLM
    from llmcache_plugins.adapters.langchain import LangChainCache

    class Model(LLM):
        calls: list = []

        @property
        def _llm_type(self):
            return "model"

        def _call(self, prompt, stop=None, run_manager=None, **kwargs):
            self.calls.append(prompt)
            return f"answer to {prompt}"

    url, namespace = sys.argv[1:]
    patient = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
    model = Model(cache=LangChainCache.from_url(url, namespace=namespace, **patient))
    who = "parent"
    model.invoke("A")
    warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
    else:
        who = "child"
        model.invoke("B")
    assert model.invoke("A") == "answer to A"
    print(f"{who}:{len(model.calls)}", flush=True)
    """
)


async def _only_look_up(cache: LangChainCache, prompt: str) -> None:
    await cache.alookup(prompt, "s")
    await asyncio.Event().wait()


class TestNoHarm:
    async def test_nothing_raises_into_the_application_when_redis_is_away(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache]
    ):
        model = chat(stand_in, make(url="redis://127.0.0.1:1", lookup_budget=0.05))
        for _ in range(2):
            assert isinstance(await model.ainvoke("Hi"), AIMessage)
        assert stand_in.calls == 2

    async def test_a_server_that_hangs_holds_up_a_call_for_no_longer_than_its_budgets(
        self, stand_in: ProviderServer, make: Callable[..., LangChainCache], valkey: Server
    ):
        cache = make(lookup_budget=0.05, commit_budget=0.05, socket_timeout=60.0, connect_timeout=60.0)
        model = chat(stand_in, cache)
        await model.ainvoke("Hi")
        valkey.pause()
        began = time.monotonic()
        assert isinstance(await model.ainvoke("Hi"), AIMessage)
        assert time.monotonic() - began < 10
        valkey.resume()

    async def test_odd_strings_are_only_strings(self, cache: LangChainCache):
        for prompt, llm in (("", ""), ("[", "---"), ("[1, 2]", "{}---[]"), ("\ud800", "x")):
            await cache.alookup(prompt, llm)
            await cache.aupdate(prompt, llm, [Generation(text="x")])

    @pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
    @pytest.mark.parametrize("broken", ["acquire", "put", "key_of"])
    async def test_whatever_goes_wrong_inside_the_call_goes_on(
        self, cache: LangChainCache, monkeypatch: pytest.MonkeyPatch, is_async: bool, broken: str
    ):
        def raising(*_: Any, **__: Any) -> Any:
            raise RuntimeError("nobody expected this")

        monkeypatch.setattr(cache.cache, broken, raising)
        model = Completion(cache=cache, calls=[])
        for _ in range(2):
            asking = model.ainvoke("A") if is_async else asyncio.to_thread(model.invoke, "A")
            assert await asyncio.wait_for(asking, 10) == "answer to A"

    async def test_who_is_cancelled_while_it_waits_is_cancelled(
        self, stand_in: ProviderServer, cache: LangChainCache
    ):
        stand_in.script(hanging())
        leader = asyncio.create_task(chat(stand_in, cache).ainvoke("Hi"))
        await stand_in.called(1)
        follower = asyncio.create_task(chat(stand_in, cache).ainvoke("Hi"))
        await asyncio.wait((follower,), timeout=0.1)
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        stand_in.release()
        assert isinstance(await leader, AIMessage)
        assert stand_in.calls == 1

    async def test_no_prompt_answer_or_setting_of_a_model_is_ever_logged(
        self, make: Callable[..., LangChainCache], caplog: pytest.LogCaptureFixture, valkey: Server
    ):
        """Headers are in `llm_string` in clear."""
        secret = "sk-secret"
        described = json.dumps(
            {"lc": 1, "type": "constructor", "id": ["m"], "kwargs": {"default_headers": {"x": secret}}}
        )
        strings = [
            described + "---[]",
            f"[('secret', '{secret}')]",
            f"<class '{secret}'>",
            f"{secret} object at 0x7f",
            f"use_previous_response_id': True {secret}",
            f"{secret}\ud800",
        ]
        answers: list[list[Any]] = [
            [Generation(text=secret)],
            [ChatGeneration(message=AIMessage(secret, additional_kwargs={"x": object()}))],
            [secret],
            [],
        ]
        away = make(url="redis://127.0.0.1:1", lookup_budget=0.05)
        with caplog.at_level(logging.DEBUG):
            for cache in (make(), away, make(max_entry_bytes=1)):
                for number, llm_string in enumerate(strings):
                    for answer in answers:
                        prompt = f"{secret} {number}"
                        await asyncio.create_task(cache.alookup(prompt, llm_string))
                        await cache.aupdate(prompt, llm_string, answer)
                        await asyncio.to_thread(cache.lookup, prompt, llm_string)
                        await asyncio.to_thread(cache.update, prompt, llm_string, answer)
            for entry in valkey.command("KEYS", "*:e:*"):
                valkey.command("SETRANGE", entry, 0, b"damaged")
            await asyncio.create_task(make().alookup(f"{secret} 0", strings[0]))
        assert caplog.records
        assert secret not in caplog.text
        assert not [record for record in caplog.records if secret in repr(record.__dict__)]

    async def test_a_worker_that_makes_many_calls_keeps_nothing_of_them(
        self, cache: LangChainCache, monkeypatch: pytest.MonkeyPatch
    ):
        """A completion model is called in the application's own task, which may live for weeks."""
        acquire, errands = cache.cache.acquire, weakref.WeakSet[Errand]()

        async def remembering(*arguments: Any, **options: Any) -> Any:
            found = await acquire(*arguments, **options)
            errands.add(found)
            return found

        monkeypatch.setattr(cache.cache, "acquire", remembering)
        for number in range(100):
            await Completion(cache=cache, calls=[]).ainvoke(f"question {number}")
        gc.collect()
        assert len(errands) < 25

    async def test_read_only_is_the_one_thing_that_raises(self, make: Callable[..., LangChainCache]):
        with pytest.raises(CacheMiss):
            await make(mode="read_only").alookup("p", "s")

    async def test_lookups_that_are_never_updated_hold_up_no_later_one(self, cache: LangChainCache):
        for _ in range(3):
            assert await asyncio.wait_for(cache.alookup("p", "s"), 5) is None
        await cache.aupdate("p", "s", [Generation(text="x")])
        assert await cache.alookup("p", "s") == [Generation(text="x")]

    async def test_an_answer_that_comes_when_its_lookup_has_just_ended_is_stored(self, cache: LangChainCache):
        assert await asyncio.create_task(cache.alookup("p", "s")) is None
        await cache.aupdate("p", "s", [Generation(text="x")])
        assert await asyncio.create_task(cache.alookup("p", "s")) == [Generation(text="x")]

    async def test_a_cache_handed_in_serves_it_and_others(
        self, stand_in: ProviderServer, valkey: Server, namespace: str
    ):
        async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as shared:
            model = chat(stand_in, LangChainCache(shared))
            await model.ainvoke("Hi")
            await model.ainvoke("Hi")
            assert (await shared.stats()).outcomes["hit"] == 1
