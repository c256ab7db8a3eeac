"""What may be stored, and for how long: the rules as rows."""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_until_async

from llmcache_plugins import (
    CacheMiss,
    CachePolicy,
    ConfigError,
    InferenceGateway,
    PolicyRouter,
    ResponseCache,
)
from llmcache_plugins.models import AnswerFacts
from llmcache_plugins.policy import Refusal, admit, effective_ttl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers import Server


@pytest.mark.parametrize(
    ("facts", "refusal"),
    [
        (AnswerFacts(), None),
        (AnswerFacts(finish_reasons=("stop",)), None),
        (AnswerFacts(finish_reasons=("STOP", "tool_calls")), None),
        (AnswerFacts(finish_reasons=("completed",)), None),
        (AnswerFacts(finish_reasons=("length",)), Refusal.TRUNCATED),
        (AnswerFacts(finish_reasons=("MAX_TOKENS",)), Refusal.TRUNCATED),
        (AnswerFacts(finish_reasons=("max_output_tokens",)), Refusal.TRUNCATED),
        (AnswerFacts(finish_reasons=("stop", "length")), Refusal.TRUNCATED),
        (AnswerFacts(finish_reasons=("content_filter",)), Refusal.FILTERED),
        (AnswerFacts(finish_reasons=("because",)), Refusal.UNKNOWN_FINISH),
        (AnswerFacts(empty_of_choices=True), Refusal.NO_CHOICES),
        (AnswerFacts(unfinished=True), Refusal.UNFINISHED),
    ],
)
def test_what_is_admitted(facts: AnswerFacts, refusal: Refusal | None):
    assert admit(facts) is refusal


@pytest.mark.parametrize(
    ("policy_ttl", "override", "ttl"),
    [(3600, None, 3600), (3600, 0, 0), (0, None, 0), (0, 5, 5), (60, 0.5, 0.5)],
)
def test_zero_is_zero_and_none_is_the_policy(policy_ttl: float, override: float | None, ttl: float):
    assert effective_ttl(CachePolicy(ttl=policy_ttl), override) == ttl


def test_jitter_only_ever_shortens():
    rng = random.Random(7)
    drawn = [effective_ttl(CachePolicy(ttl=100, jitter=0.2), None, rng=rng) for _ in range(200)]
    assert 80 <= min(drawn) < 85
    assert 95 < max(drawn) <= 100


@pytest.mark.parametrize(
    "wrong", [{"ttl": -1}, {"ttl": "60"}, {"ttl": 3_600_000_000}, {"jitter": 1.5}, {"jitter": -0.1}]
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError):
        CachePolicy(**wrong)


@pytest.mark.parametrize(
    ("wrong", "fix"),
    [
        ({"ttl": -1}, "ttl is in seconds, from 0"),
        ({"jitter": 2}, "jitter is a fraction from 0 to 1"),
        ({"stale_while_revalidate": -1}, "stale_while_revalidate is in seconds"),
        ({"stale_if_error": "1h"}, "stale_if_error is in seconds"),
        ({"refresh_early": -1}, "refresh_early is a factor"),
        ({"max_entry_bytes": 0}, "max_entry_bytes is a number of bytes"),
        ({"max_temperature": "low"}, "max_temperature is a temperature"),
        ({"cacheable": True}, "cacheable is a function"),
        ({"allow_truncated": 1}, "allow_truncated is True or False"),
        ({"semantic": "yes"}, "semantic is True, False or None"),
        ({"coalesce": "no"}, "coalesce is True or False"),
        ({"normalizers": "uuid"}, "normalizers is a list"),
        ({"normalizers": ["uid"]}, "uid"),
    ],
)
def test_an_error_names_the_field_and_what_it_takes(wrong: dict[str, Any], fix: str):
    with pytest.raises(ConfigError, match=fix):
        CachePolicy(**wrong)


def test_the_scenarios_are_those_of_the_decision_matrix():
    faq, chat, live, batch = map(CachePolicy.scenario, ("static_faq", "chat", "realtime", "batch"))
    assert (faq.ttl, faq.stale_while_revalidate, faq.semantic) == (7 * 86400, 86400, False)
    assert (chat.ttl, chat.semantic) == (3600, True)
    assert (live.ttl, live.stale_for, live.coalesce) == (15, 0, True)
    assert (batch.ttl, batch.semantic) == (30 * 86400, False)
    with pytest.raises(ConfigError, match="static_faq, chat, realtime, batch"):
        CachePolicy.scenario("faq")


class TestRouter:
    """The first route that fits."""

    @pytest.mark.parametrize(
        ("model", "text", "ttl"),
        [
            ("gpt-4o-mini", "x", 1),
            ("gpt-4o", "x", 9),
            ("gpt-4o", "today", 2),
            (None, "today", 2),
            (None, "x", 9),
        ],
    )
    def test_by_name_by_predicate_or_by_default(self, model: str | None, text: str, ttl: float):
        router = PolicyRouter(
            ("*-mini", CachePolicy(ttl=1)),
            (lambda request: request == "today", CachePolicy(ttl=2)),
            default=CachePolicy(ttl=9),
        )
        assert router.policy_for(lambda: text, model).ttl == ttl

    @pytest.mark.parametrize(
        ("routes", "fix"),
        [
            ([("m", "weekly")], "a scenario is one of"),
            ([("m",)], "a route is a pair"),
            ([("", "batch")], "a model's name"),
            ([(7, "batch")], "a model's name"),
            ([("m", 60)], "policy is a CachePolicy"),
        ],
    )
    def test_what_is_no_route_is_refused(self, routes: list[Any], fix: str):
        with pytest.raises(ConfigError, match=fix):
            PolicyRouter(*routes)


class TestCalls:
    """What a policy says, at the gateway."""

    @pytest.fixture
    async def cache(self, valkey: Server, namespace: str) -> AsyncIterator[ResponseCache]:
        async with ResponseCache.from_url(
            valkey.url, namespace=namespace, lookup_budget=5.0, commit_budget=5.0, socket_timeout=5.0
        ) as cache:
            yield cache

    async def twice(self, cache: ResponseCache, query: Any, answer: Any, **options: Any) -> list[str]:
        async def call(_query: Any) -> Any:
            return answer

        gateway = InferenceGateway(call, cache)
        return [str((await gateway.resolve_detailed(query, **options)).outcome) for _ in range(2)]

    @pytest.mark.parametrize(
        ("policy", "query", "outcomes", "refusal"),
        [
            (CachePolicy(max_temperature=0.3), {"prompt": "x", "temperature": 0.2}, ["miss", "hit"], None),
            (
                CachePolicy(max_temperature=0.3),
                {"prompt": "x", "temperature": 0.4},
                ["bypass"] * 2,
                "temperature",
            ),
            (CachePolicy(max_temperature=0.3), {"prompt": "x"}, ["bypass"] * 2, "temperature"),
            (CachePolicy(max_entry_bytes=3), {"prompt": "x"}, ["miss"] * 2, "too_big"),
            (
                CachePolicy(cacheable=lambda request, answer: request["prompt"] != answer[0]),
                {"prompt": "a"},
                ["miss"] * 2,
                "not_cacheable",
            ),
            (
                CachePolicy(cacheable=lambda request, answer: request["prompt"] != answer[0]),
                {"prompt": "b"},
                ["miss", "hit"],
                None,
            ),
            (CachePolicy(cacheable=lambda *_: 1 / 0), {"prompt": "x"}, ["miss"] * 2, "not_cacheable"),
            (CachePolicy(coalesce=False), {"prompt": "x"}, ["miss", "hit"], None),
        ],
    )
    async def test_each_refusal_is_counted_with_its_reason(
        self,
        cache: ResponseCache,
        policy: CachePolicy,
        query: Any,
        outcomes: list[str],
        refusal: str | None,
    ):
        assert await self.twice(cache, query, "answer", policy=policy) == outcomes
        refusals = (await cache.stats()).refusals
        assert dict(refusals) == ({} if refusal is None else {refusal: 2})

    async def test_an_answer_cut_off_at_its_limit_is_stored_where_allowed(self, cache: ResponseCache):
        cut = {"choices": [{"finish_reason": "length", "message": {"content": "..."}}]}
        assert await self.twice(cache, "a", cut) == ["miss", "miss"]
        assert await self.twice(cache, "a", cut, policy=CachePolicy(allow_truncated=True)) == ["miss", "hit"]

    async def test_a_predicate_that_spoils_its_answer_spoils_nobody_else_s(self, cache: ResponseCache):
        policy = CachePolicy(cacheable=lambda _, answer: answer.clear() is None)

        async def call(_query: Any) -> Any:
            return {"text": "whole"}

        gateway = InferenceGateway(call, cache)
        assert await gateway.resolve("x", policy=policy) == {"text": "whole"}
        assert await gateway.resolve("x", policy=policy) == {"text": "whole"}

    async def test_who_may_not_share_a_call_pays_for_one(self, cache: ResponseCache):
        gate, calls = asyncio.Event(), []

        async def call(_query: Any) -> Any:
            calls.append(None)
            await gate.wait()
            return "x"

        gateway = InferenceGateway(call, cache)
        asked = [
            asyncio.create_task(gateway.resolve("q", policy=CachePolicy(coalesce=False))) for _ in range(3)
        ]
        await wait_until_async(lambda: len(calls) == 3, description="three calls")
        gate.set()
        assert await asyncio.gather(*asked) == ["x"] * 3
        assert await gateway.resolve("q", mode="read_only") == "x"

    async def test_a_condition_that_fails_is_a_call_that_is_not_cached(self, valkey: Server, namespace: str):
        router = PolicyRouter((lambda _: 1 / 0, "batch"))  # type: ignore[arg-type, return-value]
        async with ResponseCache.from_url(valkey.url, namespace=namespace, policy=router) as cache:
            assert await self.twice(cache, "x", "answer") == ["bypass"] * 2
            assert (await cache.stats()).refusals["policy_failed"] == 2
            with pytest.raises(CacheMiss):
                await self.twice(cache, "x", "answer", mode="read_only")

    async def test_each_policy_has_normalizers_of_its_own(self, cache: ResponseCache):
        policy = CachePolicy(normalizers=["uuid"])
        first, second = (f"ticket {uuid.uuid4()}" for _ in range(2))
        assert await self.twice(cache, first, "answer", policy=policy) == ["miss", "hit"]
        assert await self.twice(cache, second, "answer", policy=policy) == ["hit", "hit"]
        assert await self.twice(cache, second, "answer") == ["miss", "hit"]

    async def test_a_semantic_policy_says_that_there_is_no_semantic_layer(
        self, cache: ResponseCache, caplog: pytest.LogCaptureFixture
    ):
        assert await self.twice(cache, "x", "answer", policy="chat") == ["miss", "hit"]
        assert len([text for text in caplog.messages if "no semantic layer" in text]) == 1

    async def test_a_cache_has_a_scenario_of_its_own(self, valkey: Server, namespace: str):
        async with ResponseCache.from_url(valkey.url, namespace=namespace, policy="realtime") as cache:
            await self.twice(cache, "x", "answer")
            assert 10_000 < valkey.command("PTTL", cache.repository.redis_key(cache.key_of("x"))) <= 15_000
