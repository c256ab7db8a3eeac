"""What is served after its time: at once, while exactly one call brings another; or instead of an error."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

import pytest
from entries import CODEC
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until_async

from llmcache_plugins import CacheMiss, CachePolicy, InferenceGateway, Outcome, ResponseCache
from llmcache_plugins.cache import Errand
from llmcache_plugins.models import Entry, Resolution
from llmcache_plugins.policy import Freshness, freshness_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servers import Cluster, Server

PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
LENIENT = CachePolicy(ttl=60, stale_while_revalidate=100, stale_if_error=200)
QUERY = {"model": "m", "messages": [{"role": "user", "content": "What is new?"}]}


class Busy(Exception):
    status_code = 503


class Refused(Exception):
    status_code = 400


class Provider:
    """Answers "new", as soon as `gate` is open, or raises `error`."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.error = error
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def complete(self, _query: Any) -> str:
        self.calls += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return "new"

    async def stream(self, _query: Any) -> AsyncIterator[str]:
        yield await self.complete(_query)


def cache_on(server: Server | Cluster, namespace: str, **settings: Any) -> ResponseCache:
    return ResponseCache.from_url(
        server.url, namespace=namespace, **{**PATIENT, "policy": LENIENT, **settings}
    )


async def let_age(cache: ResponseCache, *, late: float, seconds: float = 0.5) -> None:
    """Store "old" as an answer whose time ended `late` seconds ago; the provider took `seconds` for it."""
    now = time.time()
    entry = Entry(
        answer=CODEC.encode("old"),
        created=now - 60 - late,
        fresh_until=now - late,
        provider_seconds=seconds,
        stale_for=LENIENT.stale_for,
    )
    await cache.repository.persist(cache.key_of(QUERY), entry, ttl=60)


class TestStaleWhileRevalidate:
    async def test_everybody_gets_the_old_answer_at_once_and_one_call_brings_the_new(
        self, server: Server | Cluster, namespace: str
    ):
        provider = Provider()
        provider.gate.clear()
        async with cache_on(server, namespace) as cache, cache_on(server, namespace) as elsewhere:
            await let_age(cache, late=1)
            gateways = [InferenceGateway(provider, c) for c in (cache, elsewhere)] * 10
            found = await asyncio.gather(*(gateway.resolve_detailed(QUERY) for gateway in gateways))
            assert {(r.answer, r.outcome) for r in found} == {("old", Outcome.STALE)}
            left = found[0].cache_status.removeprefix("llmcache; hit; ttl=")
            assert -60 < int(left) < 0
            await wait_until_async(lambda: provider.calls, description="a refresh")
            # While it is under way, too.
            assert (await gateways[1].resolve_detailed(QUERY)).outcome is Outcome.STALE
            provider.gate.set()
            for gateway in gateways[:2]:
                await wait_until_async(lambda g=gateway: is_new(g), description="the new answer")
            assert provider.calls == 1

    async def test_past_the_window_the_caller_waits_for_the_new_one(
        self, server: Server | Cluster, namespace: str
    ):
        async with cache_on(server, namespace) as cache:
            await let_age(cache, late=101)
            found = await InferenceGateway(Provider(), cache).resolve_detailed(QUERY)
            assert (found.answer, found.outcome) == ("new", Outcome.MISS)

    async def test_a_policy_without_it_never_serves_what_another_kept(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace, policy=None) as cache:
            await let_age(cache, late=1)
            assert await InferenceGateway(Provider(), cache).resolve(QUERY) == "new"

    async def test_a_failed_refresh_is_not_repeated_for_each_caller(
        self, server: Server | Cluster, namespace: str
    ):
        provider = Provider(error=Busy())
        async with cache_on(server, namespace) as cache, cache_on(server, namespace) as elsewhere:
            await let_age(cache, late=1)
            gateway, other = InferenceGateway(provider, cache), InferenceGateway(provider, elsewhere)
            assert await gateway.resolve(QUERY) == "old"
            await wait_until_async(
                lambda: provider.calls == 1 and not cache.in_flight(), description="its end"
            )
            for _ in range(5):
                assert await gateway.resolve(QUERY) == "old"
                assert await other.resolve(QUERY) == "old"
            await wait_until_async(lambda: not elsewhere.in_flight(), description="the other's look")
            assert provider.calls == 1

    async def test_who_only_reads_does_not_refresh_and_who_does_not_store_gets_no_stale_answer(
        self, valkey: Server, namespace: str
    ):
        provider = Provider()
        async with cache_on(valkey, namespace) as cache:
            await let_age(cache, late=1)
            gateway = InferenceGateway(provider, cache)
            assert await gateway.resolve(QUERY, mode="read_only") == "old"
            assert cache.in_flight() == 0
            assert provider.calls == 0
            assert await gateway.resolve(QUERY, ttl=0) == "new"

    async def test_what_was_invalidated_is_not_served_however_stale_answers_are_allowed(
        self, server: Server | Cluster, namespace: str
    ):
        """Nor is what a refresh that was under way then brings."""
        provider = Provider()
        provider.gate.clear()
        async with cache_on(server, namespace) as cache, cache_on(server, namespace) as elsewhere:
            await let_age(cache, late=1)
            gateway = InferenceGateway(provider, cache)
            assert await gateway.resolve(QUERY) == "old"
            await wait_until_async(lambda: provider.calls, description="a refresh")
            await elsewhere.invalidate(model="another")
            assert await gateway.resolve(QUERY, mode="read_only") == "old"
            await elsewhere.invalidate(namespace=namespace)
            provider.gate.set()
            await wait_until_async(lambda: not cache.in_flight(), description="its end")
            with pytest.raises(CacheMiss):
                await gateway.resolve(QUERY, mode="read_only")

    async def test_a_stream_is_replayed_at_once_too(self, server: Server | Cluster, namespace: str):
        provider = Provider()
        provider.gate.clear()
        async with cache_on(server, namespace) as cache:
            await let_age(cache, late=1)
            gateway = InferenceGateway(provider, cache)
            assert [chunk async for chunk in gateway.stream(QUERY)] == ["old"]
            assert [chunk async for chunk in gateway.stream(QUERY)] == ["old"]
            await wait_until_async(lambda: provider.calls, description="a refresh")
            provider.gate.set()
            await wait_until_async(lambda: is_new(gateway), description="the new answer")
            assert provider.calls == 1
            assert (await cache.stats()).outcomes[Outcome.STALE] >= 2

    async def test_of_the_callers_of_a_framework_one_is_sent_and_the_others_are_served(
        self, server: Server | Cluster, namespace: str
    ):
        async with cache_on(server, namespace) as cache, cache_on(server, namespace) as elsewhere:
            await let_age(cache, late=1)
            found = await asyncio.gather(*(c.acquire(QUERY) for c in (cache, elsewhere) for _ in range(5)))
            errands = [one for one in found if isinstance(one, Errand)]
            served = [one for one in found if isinstance(one, Resolution)]
            assert len(errands) == 1
            assert {(one.answer, one.outcome) for one in served} == {("old", Outcome.STALE)}
            await errands[0].fulfil("new")
            for where in (cache, elsewhere):
                hit = await where.acquire(QUERY)
                assert isinstance(hit, Resolution)
                assert (hit.answer, hit.outcome) == ("new", Outcome.HIT)

    async def test_a_framework_whose_call_fails_leaves_the_old_answer(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace) as cache:
            await let_age(cache, late=1)
            errand = await cache.acquire(QUERY)
            assert isinstance(errand, Errand)
            errand.abandon(Busy())
            await wait_until_async(lambda: not cache.in_flight(), description="its end")
            again = await cache.acquire(QUERY)
            assert isinstance(again, Resolution)
            assert again.answer == "old"

    async def test_a_cache_that_is_closed_meanwhile_leaves_nothing_behind(
        self, valkey: Server, namespace: str
    ):
        provider = Provider()
        provider.gate.clear()
        async with cache_on(valkey, namespace, commit_budget=0.05) as cache:
            await let_age(cache, late=1)
            assert await InferenceGateway(provider, cache).resolve(QUERY) == "old"
            await wait_until_async(lambda: provider.calls, description="a refresh")
        assert cache.in_flight() == 0


class TestStaleIfError:
    async def test_the_old_answer_is_better_than_an_error_that_may_pass(
        self, server: Server | Cluster, namespace: str
    ):
        async with cache_on(server, namespace) as cache:
            await let_age(cache, late=150)
            gateway = InferenceGateway(Provider(error=Busy()), cache)
            found = await gateway.resolve_detailed(QUERY)
            assert (found.answer, found.outcome) == ("old", Outcome.STALE)
            assert [chunk async for chunk in gateway.stream(QUERY)] == ["old"]

    async def test_an_error_that_will_not_pass_is_the_callers(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace) as cache:
            await let_age(cache, late=150)
            gateway = InferenceGateway(Provider(error=Refused()), cache)
            with pytest.raises(Refused):
                await gateway.resolve(QUERY)
            with pytest.raises(Refused):
                _ = [chunk async for chunk in gateway.stream(QUERY)]

    async def test_not_for_ever(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace) as cache:
            await let_age(cache, late=201)
            with pytest.raises(Busy):
                await InferenceGateway(Provider(error=Busy()), cache).resolve(QUERY)

    async def test_when_the_provider_answers_its_answer_is_given(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace) as cache:
            await let_age(cache, late=150)
            assert await InferenceGateway(Provider(), cache).resolve(QUERY) == "new"


class TestRefreshEarly:
    async def test_a_busy_key_is_replaced_before_its_time_and_everybody_hits(
        self, server: Server | Cluster, namespace: str
    ):
        provider = Provider()
        policy = CachePolicy(ttl=60, refresh_early=1000.0)
        async with cache_on(server, namespace, policy=policy) as cache:
            await let_age(cache, late=-1, seconds=1e6)
            gateway = InferenceGateway(provider, cache)
            found = await gateway.resolve_detailed(QUERY)
            assert (found.answer, found.outcome) == ("old", Outcome.HIT)
            await wait_until_async(lambda: is_new(gateway), description="the new answer")
            assert provider.calls == 1

    @given(
        left=st.floats(0.0, 1e6),
        took=st.floats(1e-3, 1e3),
        beta=st.floats(0.01, 10.0),
        chance=st.floats(0, 1),
    )
    def test_it_is_due_with_the_probability_of_the_paper(
        self, left: float, took: float, beta: float, chance: float
    ):
        """P(early by more than `left`) = exp(-left / (beta x took)): Vattani et al., VLDB 2015, section 4."""
        entry = Entry(answer=CODEC.encode("x"), created=0.0, fresh_until=left, provider_seconds=took)
        policy = CachePolicy(ttl=1, refresh_early=beta)
        due = freshness_of(entry, policy, now=0.0, chance=chance) is Freshness.DUE
        probability = math.exp(-left / (beta * took))
        if not math.isclose(chance, probability, rel_tol=1e-6, abs_tol=1e-300):
            assert due == (chance < probability)

    def test_what_is_not_asked_for_never_happens(self):
        entry = Entry(answer=CODEC.encode("x"), created=0.0, fresh_until=0.001, provider_seconds=1e9)
        assert freshness_of(entry, CachePolicy(), now=0.0, chance=0.0) is Freshness.FRESH


class TestTime:
    async def test_a_hit_never_makes_an_answer_live_longer(self, server: Server | Cluster, namespace: str):
        async with cache_on(server, namespace, policy=CachePolicy(ttl=60)) as cache:
            await cache.put(QUERY, "answer")
            where = cache.repository.redis_key(cache.key_of(QUERY))
            before = server.command("PTTL", where)
            for _ in range(20):
                await cache.get_or_call(QUERY, Provider().gate.wait)
            await cache.repository._touches(cache.repository._links.current()).flush()
            assert 0 < server.command("PTTL", where) <= before <= 60_000

    async def test_an_answer_is_kept_as_long_as_it_may_be_served(
        self, server: Server | Cluster, namespace: str
    ):
        async with cache_on(server, namespace) as cache:
            await InferenceGateway(Provider(), cache).resolve(QUERY)
            left = server.command("PTTL", cache.repository.redis_key(cache.key_of(QUERY)))
            assert 250_000 < left <= 260_000

    @given(late=st.floats(-1e6, 1e6), window=st.floats(0, 1e5), grace=st.floats(0, 1e5))
    def test_the_windows_are_what_they_say(self, late: float, window: float, grace: float):
        policy = CachePolicy(ttl=1, stale_while_revalidate=window, stale_if_error=grace)
        entry = Entry(answer=CODEC.encode("x"), created=0.0, fresh_until=-late, stale_for=1e9)
        found = freshness_of(entry, policy, now=0.0)
        if late <= 0:
            assert found is Freshness.FRESH
        elif late <= window:
            assert found is Freshness.STALE
        else:
            assert found is (Freshness.LAPSED if late <= grace else Freshness.OVER)

    @given(late=st.floats(-1e9, 1e9))
    def test_clocks_that_differ_do_not_matter_where_nothing_stale_is_kept(self, late: float):
        entry = Entry(answer=CODEC.encode("x"), created=0.0, fresh_until=-late)
        assert freshness_of(entry, CachePolicy(ttl=1), now=0.0) is Freshness.FRESH


async def is_new(gateway: InferenceGateway) -> bool:
    found = await gateway.resolve_detailed(QUERY, mode="read_only")
    return (found.answer, found.outcome) == ("new", Outcome.HIT)


class TestStrictCallers:
    async def test_who_wants_a_younger_answer_makes_nobody_else_wait(
        self, server: Server | Cluster, namespace: str
    ):
        provider = Provider()
        provider.gate.clear()
        async with cache_on(server, namespace, policy=None) as cache:
            await cache.put(QUERY, "old")
            gateway = InferenceGateway(provider, cache)
            strict = asyncio.create_task(gateway.resolve(QUERY, max_age=0))
            await wait_until_async(lambda: provider.calls, description="the strict call")
            assert await gateway.resolve(QUERY) == "old"
            assert [chunk async for chunk in gateway.stream(QUERY)] == ["old"]
            provider.gate.set()
            assert await strict == "new"

    async def test_a_refresh_that_hangs_is_given_up(
        self, valkey: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        from llmcache_plugins.cache import refreshing

        monkeypatch.setattr(refreshing, "LONGEST", 0.2)
        provider = Provider()
        provider.gate.clear()
        async with cache_on(valkey, namespace, poll_interval=0.05) as cache:
            await let_age(cache, late=1)
            gateway = InferenceGateway(provider, cache)

            async def has_tried_again() -> bool:
                assert await gateway.resolve(QUERY) == "old"
                return provider.calls >= 2

            await wait_until_async(has_tried_again, description="another refresh")

    async def test_a_mistake_of_the_application_is_no_outage(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace) as cache:
            await let_age(cache, late=150)
            with pytest.raises(KeyError):
                await InferenceGateway(Provider(error=KeyError("x")), cache).resolve(QUERY)
            with pytest.raises(Busy):
                await InferenceGateway(Provider(error=Busy()), cache).resolve(QUERY, mode="refresh")
            assert await InferenceGateway(Provider(error=TimeoutError()), cache).resolve(QUERY) == "old"
