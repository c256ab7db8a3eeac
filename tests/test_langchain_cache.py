"""`set_llm_cache(LangChainCache...)` with real models: ChatOpenAI over HTTP, and completion models.

The provider is the stand-in server; it counts what reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from llmcache_plugins import CacheMiss, ResponseCache
from llmcache_plugins.adapters.langchain import LangChainCache
from llmcache_plugins.testing.provider_server import ProviderServer, hanging, rate_limited, server_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from langchain_core.caches import BaseCache
    from servers import Server

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}


@pytest_asyncio.fixture
async def stand_in() -> AsyncIterator[ProviderServer]:
    async with ProviderServer() as running:
        yield running


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
        return f"answer to {prompt}"

    async def _acall(self, prompt: str, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> str:
        self.calls.append(prompt)
        if self.gate is not None:
            await self.gate.wait()
        return f"answer to {prompt}"


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

    def test_a_program_of_its_own_needs_no_loop(self, valkey: Server, namespace: str):
        with LangChainCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
            model = Completion(cache=cache, calls=[])
            assert [model.invoke("A"), model.invoke("A")] == ["answer to A"] * 2
            assert model.calls == ["A"]
            cache.clear()
            model.invoke("A")
            assert model.calls == ["A", "A"]
        assert not [
            thread for thread in threading.enumerate() if thread.name == "llmcache" and thread.is_alive()
        ]


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

    async def test_odd_strings_are_only_strings(self, cache: LangChainCache):
        for prompt, llm in (("", ""), ("[", "---"), ("[1, 2]", "{}---[]"), ("\ud800", "x")):
            await cache.alookup(prompt, llm)
            await cache.aupdate(prompt, llm, [Generation(text="x")])

    async def test_read_only_is_the_one_thing_that_raises(self, make: Callable[..., LangChainCache]):
        with pytest.raises(CacheMiss):
            await make(mode="read_only").alookup("p", "s")

    async def test_lookups_that_are_never_updated_hold_up_no_later_one(self, cache: LangChainCache):
        for _ in range(3):
            assert await asyncio.wait_for(cache.alookup("p", "s"), 5) is None
        await cache.aupdate("p", "s", [Generation(text="x")])
        assert await cache.alookup("p", "s") == [Generation(text="x")]

    async def test_a_cache_handed_in_serves_it_and_others(
        self, stand_in: ProviderServer, valkey: Server, namespace: str
    ):
        async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as shared:
            model = chat(stand_in, LangChainCache(shared))
            await model.ainvoke("Hi")
            await model.ainvoke("Hi")
            assert (await shared.stats()).outcomes["hit"] == 1
