"""What a result says in HTTP: values that any parser of structured fields reads, and RFC 9211 allows."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import http_sf
import numpy as np
import pytest
from entries import CODEC
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until_async

from llmcache_plugins import CachePolicy, InferenceGateway, Outcome, ResponseCache, SemanticCacheLayer
from llmcache_plugins.cache.resolutions import of_entry
from llmcache_plugins.cache_status import cache_status
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import Entry, Resolution
from llmcache_plugins.policy import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from servers import Server

PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
QUERY = {"model": "m", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}
TRUNCATED = {"object": "chat.completion", "choices": [{"finish_reason": "length", "message": {}}]}
LENIENT = CachePolicy(ttl=60, stale_while_revalidate=100, stale_if_error=200)
TYPES = {
    "hit": bool,
    "fwd": http_sf.Token,
    "ttl": int,
    "stored": bool,
    "collapsed": bool,
    "key": str,
    "detail": http_sf.Token,
}
"""The parameters that the cache uses of those in section 2 of RFC 9211."""
REASONS = {"bypass", "uri-miss", "miss", "request", "stale"}


def read(value: str) -> dict[str, Any]:
    """Parse a value as the RFC does and check what it demands; return the parameters."""
    ((name, said),) = http_sf.parse(value.encode("ascii"), tltype="list")
    assert isinstance(name, http_sf.Token)
    assert str(name) == "llmcache"
    for parameter, found in said.items():
        assert type(found) is TYPES[parameter], (parameter, found)
    assert ("hit" in said) != ("fwd" in said)  # "only one of them should appear"
    if "fwd" in said:
        assert str(said["fwd"]) in REASONS
    else:
        assert "stored" not in said  # "only meaningful when fwd is present"
        assert "collapsed" not in said
    return {key: str(found) if isinstance(found, http_sf.Token) else found for key, found in said.items()}


class Busy(Exception):
    status_code = 503


class Provider:
    """Answers as soon as `gate` is open, or raises `error`."""

    def __init__(self, answer: Any = "Rayleigh", *, error: Exception | None = None) -> None:
        self.answer, self.error, self.calls = answer, error, 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def complete(self, _query: Any) -> Any:
        self.calls += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return self.answer

    async def stream(self, query: Any) -> AsyncIterator[str]:
        yield await self.complete(query)


@pytest.fixture
async def cache(valkey: Server, namespace: str) -> AsyncIterator[ResponseCache]:
    async with ResponseCache.from_url(valkey.url, namespace=namespace, **PATIENT) as cache:
        yield cache


async def keep(cache: ResponseCache, *, late: float) -> None:
    """Store an answer whose time ended `late` seconds ago."""
    now = time.time()
    entry = Entry(answer=CODEC.encode("old"), created=now - 60 - late, fresh_until=now - late, stale_for=200)
    await cache.repository.persist(cache.key_of(QUERY), entry, ttl=60)


class Alike:
    """An embedder that takes all texts for one."""

    name, dim, max_tokens = "alike", 8, 100

    async def embed(self, texts: Sequence[str]) -> Any:
        return np.ones((len(texts), self.dim), dtype=np.float32)


class TestCalls:
    async def test_a_miss_that_was_stored_and_then_a_hit(self, cache: ResponseCache):
        gateway = InferenceGateway(Provider(), cache)
        miss = await gateway.resolve_detailed(QUERY, ttl=100)
        hit = await gateway.resolve_detailed(QUERY)
        assert miss.cache_status == "llmcache; fwd=uri-miss; stored"
        assert miss.headers == {"Cache-Status": miss.cache_status}
        said = read(hit.cache_status)
        assert said.keys() == {"hit", "ttl"}
        assert 0 < said["ttl"] <= 100
        assert hit.headers == {"Cache-Status": hit.cache_status, "Age": str(int(hit.age))}

    async def test_who_joined_a_call_was_collapsed(self, cache: ResponseCache):
        provider = Provider()
        provider.gate.clear()
        gateway = InferenceGateway(provider, cache)
        calls = [asyncio.create_task(gateway.resolve_detailed(QUERY)) for _ in range(3)]
        await wait_until_async(lambda: provider.calls, description="the call")
        provider.gate.set()
        _, *followers = await asyncio.gather(*calls)
        for follower in followers:
            assert follower.cache_status == "llmcache; fwd=uri-miss; collapsed"
            assert read(follower.cache_status) == {"fwd": "uri-miss", "collapsed": True}
            assert "Age" not in follower.headers

    async def test_a_stale_answer_while_another_is_brought_is_a_hit_with_a_negative_ttl(
        self, valkey: Server, namespace: str
    ):
        cache = ResponseCache.from_url(valkey.url, namespace=namespace, policy=LENIENT, **PATIENT)
        async with cache:
            await keep(cache, late=12)
            found = await InferenceGateway(Provider(), cache).resolve_detailed(QUERY)
            await wait_until_async(lambda: not cache.in_flight(), description="the refresh")
        assert found.outcome is Outcome.STALE
        said = read(found.cache_status)
        assert said.keys() == {"hit", "ttl"}
        assert -60 < said["ttl"] <= -12
        assert int(found.headers["Age"]) >= 72

    async def test_a_stale_answer_instead_of_an_error_is_no_hit_for_the_provider_was_asked(
        self, valkey: Server, namespace: str
    ):
        cache = ResponseCache.from_url(valkey.url, namespace=namespace, policy=LENIENT, **PATIENT)
        async with cache:
            await keep(cache, late=120)
            gateway = InferenceGateway(Provider(error=Busy()), cache)
            found, told = await gateway.resolve_detailed(QUERY), []
            assert [chunk async for chunk in gateway.stream(QUERY, on_hit=told.append)] == ["old"]
        assert (found.answer, found.outcome) == ("old", Outcome.STALE)
        for resolution in (found, *told):
            said = read(resolution.cache_status)
            assert said.keys() == {"fwd", "ttl"}
            assert said["fwd"] == "stale"
            assert -180 < said["ttl"] <= -120
            assert int(resolution.headers["Age"]) >= 180

    async def test_who_wants_another_answer_has_gone_forward_because_he_wanted_to(self, cache: ResponseCache):
        gateway = InferenceGateway(Provider(), cache)
        for _ in range(2):
            found = await gateway.resolve_detailed(QUERY, mode="refresh")
            assert found.cache_status == "llmcache; fwd=request; stored"
        found = await gateway.resolve_detailed(QUERY, mode="refresh", ttl=0)
        assert read(found.cache_status) == {"fwd": "request"}

    async def test_an_answer_that_is_too_old_for_the_call_is_not_said_to_be_absent(
        self, cache: ResponseCache
    ):
        gateway = InferenceGateway(Provider(), cache)
        await gateway.resolve(QUERY)
        found = await gateway.resolve_detailed(QUERY, max_age=0)
        assert found.cache_status == "llmcache; fwd=miss; stored"

    @pytest.mark.parametrize(
        ("query", "options", "detail"),
        [
            (QUERY, {"mode": "off"}, "off"),
            ({**QUERY, "tool": object()}, {}, "signature"),
            ({**QUERY, "temperature": 1.0}, {"policy": CachePolicy(max_temperature=0.5)}, "temperature"),
        ],
    )
    async def test_a_call_that_passes_the_cache_by_says_why(
        self, cache: ResponseCache, query: Any, options: Any, detail: str
    ):
        found = await InferenceGateway(Provider(), cache).resolve_detailed(query, **options)
        assert found.cache_status == f"llmcache; fwd=bypass; detail={detail}"
        assert read(found.cache_status) == {"fwd": "bypass", "detail": detail}

    async def test_an_answer_that_must_not_be_stored_says_why(self, cache: ResponseCache):
        found = await InferenceGateway(Provider(TRUNCATED), cache).resolve_detailed(QUERY)
        assert read(found.cache_status) == {"fwd": "uri-miss", "detail": "truncated"}

    @pytest.mark.parametrize("answer", ["Rayleigh", TRUNCATED], ids=["good", "refused"])
    @pytest.mark.parametrize("options", [{}, {"ttl": 0}], ids=["stored", "read"])
    async def test_an_outage_is_not_taken_for_an_absent_answer(
        self, namespace: str, answer: Any, options: Any
    ):
        cache = ResponseCache.from_url("redis://127.0.0.1:1", namespace=namespace)
        async with InferenceGateway(Provider(answer), cache) as gateway:
            found = await gateway.resolve_detailed(QUERY, **options)
        assert found.cache_status == "llmcache; fwd=miss; detail=unavailable"
        assert read(found.cache_status) == {"fwd": "miss", "detail": "unavailable"}

    async def test_the_answer_of_an_equivalent_question_is_a_hit_that_says_so(
        self, valkey: Server, namespace: str
    ):
        semantic = SemanticCacheLayer(Alike(), similarity_threshold=0.8, budget=10.0)
        async with ResponseCache.from_url(
            valkey.url, namespace=namespace, semantic=semantic, **PATIENT
        ) as cache:
            gateway = InferenceGateway(Provider(), cache)
            for text in ("How do I reset my password?", "How do I reset my account password?"):
                found = await gateway.resolve_detailed(
                    {"model": "m", "messages": [{"role": "user", "content": text}]}, ttl=100
                )
        assert found.outcome is Outcome.SEMANTIC_HIT
        assert found.cache_status.startswith("llmcache; hit; ttl=")
        assert found.cache_status.endswith("; detail=semantic")
        assert read(found.cache_status).keys() == {"hit", "ttl", "detail"}
        assert "Age" in found.headers

    async def test_the_key_is_said_to_who_asks_for_it(self, cache: ResponseCache):
        gateway = InferenceGateway(Provider(), cache)
        found = await gateway.resolve_detailed(QUERY)
        assert "key" not in read(found.cache_status_with(key=False))
        assert read(found.cache_status_with(key=True))["key"] == str(gateway.key_of(QUERY))
        bypassed = await gateway.resolve_detailed({"tool": object()})
        assert bypassed.cache_status_with(key=True) == bypassed.cache_status

    async def test_a_stream_from_the_cache_says_so_before_its_first_chunk(self, cache: ResponseCache):
        gateway, told = InferenceGateway(Provider(), cache), []
        assert [chunk async for chunk in gateway.stream(QUERY, on_hit=told.append)] == ["Rayleigh"]
        assert not told
        async for _ in gateway.stream(QUERY, on_hit=told.append):
            assert [resolution.outcome for resolution in told] == [Outcome.HIT]
        assert read(told[0].headers["Cache-Status"]).keys() == {"hit", "ttl"}
        assert told[0].answer is None


class TestValues:
    @given(
        outcome=st.sampled_from(Outcome),
        ttl=st.none() | st.floats(-1e9, 1e9),
        stored=st.booleans(),
        detail=st.sampled_from(["", *Refusal]),
    )
    def test_whatever_is_said_parses(self, outcome: Outcome, ttl: float | None, stored: bool, detail: str):
        stored = stored and not outcome.is_stored
        said = read(cache_status(outcome, ttl=ttl, stored=stored, detail=detail))
        assert ("hit" in said) == outcome.is_stored
        if ttl is not None:
            assert said["ttl"] <= ttl < said["ttl"] + 1

    def test_a_semantic_hit_says_so_after_its_ttl(self):
        value = cache_status(Outcome.SEMANTIC_HIT, ttl=376.9)
        assert value == "llmcache; hit; ttl=376; detail=semantic"
        assert read(value) == {"hit": True, "ttl": 376, "detail": "semantic"}

    @given(namespace=st.text(max_size=20), prefix=st.text(min_size=1, max_size=20))
    def test_any_key_is_a_string_of_the_header(self, namespace: str, prefix: str):
        key = CacheKey(digest="0" * 64, namespace=namespace, prefix=prefix)
        miss = Resolution(answer=None, outcome=Outcome.MISS, key=key, cache_status=cache_status(Outcome.MISS))
        assert read(miss.cache_status_with(key=True))["key"] == str(key)

    def test_a_clock_that_is_ahead_makes_no_fresh_answer_stale_and_one_that_is_behind_none_from_the_future(
        self,
    ):
        now = time.time()
        for created, says in ((now - 100, "llmcache; hit; ttl=0"), (now + 100, "llmcache; hit; ttl=")):
            entry = Entry(answer=CODEC.encode("old"), created=created, fresh_until=created + 10)
            found = of_entry(CacheKey(digest="0" * 64), entry, "old")
            assert found.cache_status.startswith(says)
            assert int(found.headers["Age"]) >= 0
