"""What a process has read is at hand for a second: no round trip, and never longer than said."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis
from entries import answer_in, entry_of, key_of
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_until_async

from llmcache_plugins import (
    CacheMiss,
    CachePolicy,
    ConfigError,
    InferenceGateway,
    Outcome,
    PolicyRouter,
    ResponseCache,
)
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.models import Found
from llmcache_plugins.repository.near import NEAR_SECONDS, NearCache

if TYPE_CHECKING:
    from servers import Cluster, Server

PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
KEYS = [key_of(name, namespace="n") for name in "abc"]


def near_cache_on(server: Server | Cluster, namespace: str, **settings: Any) -> ResponseCache:
    options = {"namespace": namespace, "near_cache": True, **PATIENT, **settings}
    return ResponseCache.from_url(server.url, **options)


def found(answer: object, *, seconds: float = 3600.0) -> Found:
    return Found(entry=entry_of(answer, seconds=seconds), fence="0" * 16, stored_bytes=100)


class Provider:
    """Answers with the number of the call."""

    def __init__(self) -> None:
        self.calls = 0

    async def complete(self, _query: Any) -> str:
        self.calls += 1
        return f"answer {self.calls}"


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


async def reads_of(server: Server) -> int:
    async with aioredis.Redis.from_url(server.url) as raw:
        info = await raw.info("commandstats")
    return info.get("cmdstat_mget", {"calls": 0})["calls"]


async def until_let_go(cache: ResponseCache, query: str) -> None:
    """Wait until a process that had an answer at hand knows that it is gone."""

    async def misses() -> bool:
        try:
            await cache.get_or_call(query, Provider().complete, mode="read_only")  # type: ignore[arg-type]
        except CacheMiss:
            return True
        return False

    await wait_until_async(misses, description="the near cache lets go")


class TestWhatItSpares:
    async def test_a_busy_key_asks_the_server_once(self, valkey: Server, namespace: str):
        provider = Provider()
        async with near_cache_on(valkey, namespace) as cache:
            gateway = InferenceGateway(provider, cache)
            await gateway.resolve("q")
            before, began = await reads_of(valkey), time.monotonic()
            answers = [await gateway.resolve_detailed("q") for _ in range(100)]
            took = time.monotonic() - began
            assert {(one.answer, one.outcome) for one in answers} == {("answer 1", Outcome.HIT)}
            # One for each second that passed, on a machine that may be slow, and the first.
            assert await reads_of(valkey) - before <= 1 + took / NEAR_SECONDS
            stats = await cache.stats()
            assert stats.found_near >= 99 - took / NEAR_SECONDS
            assert stats.outcomes[Outcome.HIT] == 100

    async def test_hits_go_on_while_the_server_hangs(self, valkey: Server, namespace: str):
        async with near_cache_on(valkey, namespace) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve("q")

            async def at_hand() -> bool:
                before = (await cache.stats()).found_near
                await gateway.resolve("q")
                return (await cache.stats()).found_near > before

            await wait_until_async(at_hand, description="the answer is at hand")
            valkey.pause()
            try:
                assert cache.at_hand(cache.key_of("q"), codec=PlainCodec()).answer == "answer 1"
            finally:
                valkey.resume()

    async def test_it_is_off_unless_asked_for(self, valkey: Server, namespace: str):
        async with near_cache_on(valkey, namespace, near_cache=False) as cache:
            gateway = InferenceGateway(Provider(), cache)
            for _ in range(3):
                await gateway.resolve("q")
            assert cache.at_hand(cache.key_of("q"), codec=PlainCodec()) is None
            assert (await cache.stats()).found_near == 0

    @pytest.mark.parametrize("wrong", [1, "yes", None])
    def test_a_wrong_switch_is_refused(self, wrong: Any):
        with pytest.raises(ConfigError, match="near_cache is True or False"):
            ResponseCache.from_url("redis://localhost", near_cache=wrong)

    def test_it_must_hold_something(self):
        with pytest.raises(ConfigError, match="near_cache_bytes must be a positive number"):
            ResponseCache.from_url("redis://localhost", near_cache_bytes=0)

    async def test_every_hit_is_an_object_of_its_own(self, valkey: Server, namespace: str):
        async def call() -> dict[str, Any]:
            return {"text": ["an answer"]}

        async with near_cache_on(valkey, namespace) as cache:
            for _ in range(3):
                answer = await cache.get_or_call("q", call)
                assert answer == {"text": ["an answer"]}
                answer["text"].append("changed by its caller")


class TestWhatIsForgotten:
    async def test_here_it_is_gone_at_once(self, server: Server | Cluster, namespace: str):
        async with near_cache_on(server, namespace) as cache:
            gateway = InferenceGateway(Provider(), cache)
            forget = [
                lambda: cache.invalidate(request="q"),
                lambda: cache.invalidate(tags=["doc:1"]),
                lambda: cache.invalidate(namespace=namespace),
                lambda: cache.clear(),
                lambda: cache.delete(cache.key_of("q")),
            ]
            for one in forget:
                await gateway.resolve("q", tags=["doc:1"])
                await gateway.resolve("q", tags=["doc:1"])
                await one()
                with pytest.raises(CacheMiss):
                    await gateway.resolve("q", mode="read_only")

    async def test_elsewhere_after_a_second_for_which_the_forgetter_can_wait(
        self, server: Server | Cluster, namespace: str
    ):
        async with (
            near_cache_on(server, namespace) as cache,
            near_cache_on(server, namespace, near_cache=False) as elsewhere,
        ):
            gateway = InferenceGateway(Provider(), cache)
            for forget in (elsewhere.invalidate, elsewhere.clear):
                await gateway.resolve("q")
                await gateway.resolve("q")  # as late as can be before it is forgotten
                await forget(namespace=namespace, wait=True)
                with pytest.raises(CacheMiss):
                    await gateway.resolve("q", mode="read_only")

    async def test_and_without_waiting_all_the_same(self, valkey: Server, namespace: str):
        async with (
            near_cache_on(valkey, namespace) as cache,
            near_cache_on(valkey, namespace) as elsewhere,
        ):
            await cache.put("q", "an answer")
            assert await cache.get_or_call("q", Provider().complete) == "an answer"  # type: ignore[arg-type]
            await elsewhere.invalidate(request="q")
            await until_let_go(cache, "q")

    async def test_a_replaced_answer_is_seen_at_once_here_and_soon_elsewhere(
        self, valkey: Server, namespace: str
    ):
        async with (
            near_cache_on(valkey, namespace) as cache,
            near_cache_on(valkey, namespace) as elsewhere,
        ):
            provider = Provider()
            here, there = InferenceGateway(provider, cache), InferenceGateway(provider, elsewhere)
            await here.resolve("q")
            assert await there.resolve("q") == "answer 1"
            assert await here.resolve("q") == "answer 1"
            assert await here.resolve("q", mode="refresh") == "answer 2"
            assert await here.resolve("q") == "answer 2"

            async def is_seen() -> bool:
                return await there.resolve("q") == "answer 2"

            await wait_until_async(is_seen, description="the other process sees the new answer")


class TestWhatCallsSay:
    """Where more than the key decides, the answer at hand is judged like any other, or not looked at."""

    async def test_a_call_that_replaces_does_not_look(self, valkey: Server, namespace: str):
        async with near_cache_on(valkey, namespace) as cache:
            gateway = InferenceGateway(Provider(), cache)
            assert [await gateway.resolve("q") for _ in range(3)] == ["answer 1"] * 3
            assert await gateway.resolve("q", mode="refresh") == "answer 2"

    async def test_a_call_for_younger_answers_gets_none_that_is_older(self, valkey: Server, namespace: str):
        async with near_cache_on(valkey, namespace) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve("q")
            await gateway.resolve("q")
            assert await gateway.resolve("q", max_age=1e-6) == "answer 2"

    @pytest.mark.parametrize(
        "settings",
        [
            {"policy": CachePolicy(max_temperature=0.5)},
            {"policy": CachePolicy(refresh_early=1.0)},
            {"policy": PolicyRouter(default=CachePolicy())},
            {"mode": "refresh"},
            {"mode": "off"},
        ],
        ids=["temperature", "early refreshes", "a router", "refresh", "off"],
    )
    async def test_what_the_policy_must_be_asked_is_not_answered_by_the_key_alone(
        self, valkey: Server, namespace: str, settings: dict[str, Any]
    ):
        async with (
            near_cache_on(valkey, namespace) as plain,
            near_cache_on(valkey, namespace, **settings) as cache,
        ):
            key = plain.key_of("q")
            await plain.put("q", "an answer")
            for one in (plain, cache):
                assert await one.repository.fetch(key) is not None
            assert plain.at_hand(key, codec=PlainCodec()) is not None
            assert cache.at_hand(key, codec=PlainCodec()) is None

    async def test_an_answer_that_may_be_stale_is_judged_first(self, valkey: Server, namespace: str):
        policy = CachePolicy(ttl=60, stale_while_revalidate=60)
        async with near_cache_on(valkey, namespace, policy=policy) as cache:
            await cache.put("q", "an answer")
            assert await cache.repository.fetch(cache.key_of("q")) is not None
            assert cache.at_hand(cache.key_of("q"), codec=PlainCodec()) is None
            assert await cache.get_or_call("q", Provider().complete) == "an answer"  # type: ignore[arg-type]


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "answered", "answered", "answered", "write", "pass", "forget"]),
        st.integers(0, 5),
    ),
    min_size=10,
    max_size=60,
)


class TestProperties:
    @settings(max_examples=1000)
    @given(steps=_STEPS)
    def test_no_read_is_served_that_was_sent_a_second_ago_or_before_a_change_of_ours(
        self, steps: list[tuple[str, int]]
    ):
        """Reads are sent and answered in any order; they bring what the key had when they were sent."""
        clock = Clock()
        near = NearCache(most_bytes=10**6, clock=clock)
        version = dict.fromkeys(range(2), 0)
        under_way: list[tuple[int, int, float]] = []
        for step, number in steps:
            match step:
                case "ask":
                    under_way.append((number % 2, version[number % 2], clock()))
                case "answered" if under_way:
                    which, seen, asked_at = under_way.pop(number % len(under_way))
                    near.put(KEYS[which], found(f"{seen} {asked_at}"), asked_at=asked_at)
                case "write":
                    version[number % 2] += 1
                    near.drop(KEYS[number % 2])
                case "forget":
                    version = {which: had + 1 for which, had in version.items()}
                    near.drop_all()
                case "pass":
                    clock.time += [0.1, 0.3, 0.4, 0.5, 0.9, 1.0][number]
            for which, current in version.items():
                if (held := near.get(KEYS[which])) is not None:
                    seen, asked_at = map(float, str(answer_in(held)).split())
                    assert clock() - asked_at < NEAR_SECONDS
                    assert seen == current

    @given(sizes=st.lists(st.integers(0, 5000), max_size=200))
    def test_it_never_holds_more_than_it_may(self, sizes: list[int]):
        near = NearCache(most_bytes=20_000, clock=Clock())
        for number, size in enumerate(sizes):
            near.put(key_of(str(number), namespace="n"), found("x" * size), asked_at=1000.0 + number / 1e6)
            held = [near.get(key_of(str(n), namespace="n")) for n in range(len(sizes))]
            assert sum(len(one.entry.answer.payload) for one in held if one is not None) <= 20_000

    def test_nothing_outlives_its_ttl(self):
        clock, wall = Clock(), Clock()
        near = NearCache(most_bytes=10**6, clock=clock, wall_clock=wall)
        entry = entry_of("short-lived", seconds=0.0)
        wall.time = entry.fresh_until - 0.3
        near.put(KEYS[0], Found(entry=entry, fence="0" * 16, stored_bytes=1), asked_at=clock())
        clock.time += 0.25
        assert near.get(KEYS[0]) is not None
        clock.time += 0.1
        assert near.get(KEYS[0]) is None

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
    def test_a_forked_child_does_not_wait_for_its_parents_thread(self):
        near = NearCache(most_bytes=10**6)
        with near._lock:
            child = os.fork()
            if child == 0:
                near.drop_all()
                near.put(KEYS[0], found("an answer"), asked_at=near.now())
                os._exit(0 if near.get(KEYS[0]) is not None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestConcurrency:
    async def test_what_was_read_before_an_invalidation_is_not_at_hand_after_it(
        self, server: Server | Cluster, namespace: str
    ):
        """1. Many read. 2. One of the same process forgets. 3. Reads that were under way come back."""
        async with near_cache_on(server, namespace) as cache:
            key = cache.key_of("q")
            for _ in range(20):
                await cache.put("q", "an answer")
                reading = [asyncio.ensure_future(cache.repository.fetch(key)) for _ in range(5)]
                await cache.invalidate(request="q")
                await asyncio.gather(*reading)
                assert await cache.repository.fetch(key) is None
