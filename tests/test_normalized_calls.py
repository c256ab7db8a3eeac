"""Normalizers through every face: equal calls hit, what is sent stays, and no event loop waits for a rule."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from langchain_openai import ChatOpenAI
from stalls import longest_stall

from llmcache_plugins import CacheMiss, InferenceGateway, Outcome, ResponseCache
from llmcache_plugins.adapters.langchain import LangChainCache, cached
from llmcache_plugins.cache import Errand
from llmcache_plugins.normalize.builtin import BUILTIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from servers import Server

    from llmcache_plugins.testing.provider_server import ProviderServer

PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}


@pytest.fixture
async def make(valkey: Server, namespace: str) -> AsyncIterator[Callable[..., ResponseCache]]:
    made: list[ResponseCache] = []

    def one(*normalizers: Any, **settings: Any) -> ResponseCache:
        options = {"namespace": namespace, "normalizers": normalizers, **PATIENT, **settings}
        made.append(ResponseCache.from_url(valkey.url, **options))
        return made[-1]

    yield one
    for cache in made:
        await cache.aclose()


class Provider:
    """Answers, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def complete(self, query: Any) -> str:
        self.asked.append(query)
        return "an answer"

    async def stream(self, query: Any) -> AsyncIterator[str]:
        self.asked.append(query)
        yield "an answer"


class Threads:
    """A rule of an application that notes in which threads it runs, and strips all digits."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def __call__(self, text: str) -> str:
        self.seen.add(threading.get_ident())
        return re.sub(r"\d", "", text)

    @property
    def kept_off_this_thread(self) -> bool:
        return bool(self.seen) and threading.get_ident() not in self.seen


def asking(text: str = "") -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"{text}for {uuid.uuid4()}"}]}


async def test_equal_calls_hit_and_the_provider_gets_what_was_asked(make: Callable[..., ResponseCache]):
    provider = Provider()
    gateway = InferenceGateway(provider, make("uuid"))
    first, second = asking(), asking()
    await gateway.resolve(first)
    assert (await gateway.resolve_detailed(second)).outcome is Outcome.HIT
    assert provider.asked == [first]


async def test_without_normalizers_they_do_not(make: Callable[..., ResponseCache]):
    gateway = InferenceGateway(Provider(), make())
    await gateway.resolve(asking())
    assert (await gateway.resolve_detailed(asking())).outcome is Outcome.MISS


async def test_a_rule_of_the_application_runs_in_no_event_loop(make: Callable[..., ResponseCache]):
    rule = Threads()
    cache, provider = make("uuid", rule), Provider()
    gateway = InferenceGateway(provider, cache)
    await gateway.resolve(asking("1 "))
    assert await gateway.resolve(asking("2 ")) == "an answer"
    assert [chunk async for chunk in gateway.stream(asking("3 "))] == ["an answer"]
    found = await cache.acquire(asking("new 1 "))
    assert isinstance(found, Errand)
    await found.fulfil("brought")
    assert await cache.put(asking("put 1 "), "put")
    assert await cache.get_or_call(asking("put 2 "), lambda: provider.complete("no")) == "put"
    assert len(provider.asked) == 1
    assert rule.kept_off_this_thread


async def test_a_rule_that_fails_costs_the_cache_and_not_the_call(make: Callable[..., ResponseCache]):
    def fails(text: str) -> str:
        raise ValueError(text)

    gateway = InferenceGateway(Provider(), make(fails))
    assert (await gateway.resolve_detailed(asking())).outcome is Outcome.BYPASS
    with pytest.raises(CacheMiss):
        await gateway.resolve(asking(), mode="read_only")


async def test_an_expression_that_does_not_end_costs_a_hit_and_not_the_call(
    make: Callable[..., ResponseCache],
):
    gateway = InferenceGateway(Provider(), make(re.compile("(?:a|a|ab)+$"), normalizer_timeout=0.05))
    query = asking("a" * 5_000)

    async def twice() -> None:
        await gateway.resolve(query)
        assert (await gateway.resolve_detailed(query)).outcome is Outcome.HIT

    assert await longest_stall(twice()) < 0.05


@pytest.mark.parametrize("unit", ["a@", "2024-01-01 0:00", "\t \n", "http://a?&utm_a=b"])
async def test_no_loop_stalls_for_a_hostile_megabyte(make: Callable[..., ResponseCache], unit: str):
    cache = make(*BUILTIN)
    query = asking(unit * (1_000_000 // len(unit)))
    await cache.put(query, "x")
    stalls: list[float] = []
    # A stall of ours comes each time; one that another process caused does not.
    while len(stalls) < 3 and (not stalls or min(stalls) > 0.05):
        stalls.append(await longest_stall(cache.acquire(query)))
    assert min(stalls) <= 0.05


class TestLangChain:
    @pytest.fixture
    def chat(self, stand_in: ProviderServer) -> Callable[..., ChatOpenAI]:
        def make(cache: Any) -> ChatOpenAI:
            return ChatOpenAI(
                model="stand-in", base_url=stand_in.base_url, api_key="k", max_retries=0, cache=cache
            )

        return make

    async def test_equal_calls_hit(
        self, make: Callable[..., ResponseCache], chat: Callable[..., ChatOpenAI], stand_in: ProviderServer
    ):
        rule = Threads()
        host = LangChainCache(make("uuid", rule))
        model = chat(host)
        await model.ainvoke(f"1 for {uuid.uuid4()}")
        await model.ainvoke(f"2 for {uuid.uuid4()}")
        await asyncio.to_thread(model.invoke, f"3 for {uuid.uuid4()}")
        wrapped = cached(chat(None), host)
        await wrapped.ainvoke(f"1 for {uuid.uuid4()}")
        await wrapped.ainvoke(f"2 for {uuid.uuid4()}")
        assert stand_in.calls == 2  # one for each face: their values are not alike
        assert rule.kept_off_this_thread
        await asyncio.to_thread(host.sync.stop)
