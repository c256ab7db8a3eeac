"""Equivalent questions share an answer, near-misses do not, and nothing of it ever fails a call."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until_async

from llmcache_plugins import (
    CacheMiss,
    CachePolicy,
    CacheSignatureEngine,
    ConfigError,
    InferenceGateway,
    Outcome,
    ResponseCache,
    SemanticCacheLayer,
    Usage,
)
from llmcache_plugins.semantic import Verdict
from llmcache_plugins.semantic.calibration import shipped
from llmcache_plugins.semantic.embedders import MiniLMEmbedder
from llmcache_plugins.semantic.guards import Guard
from llmcache_plugins.semantic.question import Question, Skip, question_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from servers import Cluster, Server

PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
RESET, ALSO_RESET = "How do I reset my password?", "How do I reset my account password?"
"""Two that a vector calls near and no guard sets apart, and one that is the same but for its form."""
SAME = "Could you please tell me how I can reset my password"


class Provider:
    """Answers with the number of the call."""

    def __init__(self) -> None:
        self.calls = 0

    async def complete(self, _query: Any) -> str:
        self.calls += 1
        return f"answer {self.calls}"

    async def stream(self, query: Any) -> AsyncIterator[str]:
        yield await self.complete(query)


class Arranged:
    """An embedder whose vectors are arranged: equal texts in `near` are near, all others far."""

    name, dim, max_tokens = "arranged", 64, 100

    def __init__(self, *near: set[str]) -> None:
        self.near = near
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False

    async def embed(self, texts: Sequence[str]) -> Any:
        self.asked.extend(texts)
        await self.gate.wait()
        if self.fails:
            raise RuntimeError("the embedder is down")
        return np.stack([self._row(text) for text in texts])

    def _row(self, text: str) -> Any:
        rows = np.eye(self.dim, dtype=np.float32)
        for place, group in enumerate(self.near):
            if text in group:
                return 0.98 * rows[place] + 0.199 * rows[-1 - sorted(group).index(text)]
        return rows[len(self.near) + hash(text) % (self.dim - len(self.near) - 10)]


def layer(embedder: Any = None, **settings: Any) -> SemanticCacheLayer:
    return SemanticCacheLayer(embedder, **{"budget": 10.0, "similarity_threshold": 0.8, **settings})


def cache_on(server: Server | Cluster, namespace: str, semantic: Any, **settings: Any) -> ResponseCache:
    return ResponseCache.from_url(
        server.url, namespace=namespace, semantic=semantic, **{**PATIENT, **settings}
    )


def ask(text: Any, **more: Any) -> dict[str, Any]:
    before = more.pop("before", [{"role": "system", "content": "You are a help desk."}])
    return {"model": "gpt-4o", "messages": [*before, {"role": "user", "content": text}], **more}


async def found_in(cache: ResponseCache, request: Any) -> Any:
    """Wait until a question that was stored without having been asked is found: it is embedded meanwhile."""
    return await wait_until_async(
        lambda: cache.semantic.find_similar(request), description="the question is there"
    )


async def found_by(embedder: Arranged, texts: list[str]) -> None:
    await wait_until_async(lambda: set(texts) <= set(embedder.asked), description="all are embedded")


class TestHits:
    async def test_an_equivalent_question_gets_the_answer_and_says_whose_it_is(
        self, server: Server | Cluster, namespace: str
    ):
        provider = Provider()
        async with cache_on(server, namespace, layer()) as cache:
            gateway = InferenceGateway(provider, cache)
            first = await gateway.resolve_detailed(ask(RESET))
            second = await gateway.resolve_detailed(ask(ALSO_RESET))
            assert (second.answer, second.outcome) == ("answer 1", Outcome.SEMANTIC_HIT)
            assert second.match is not None
            assert second.match.key.digest == first.key.digest
            assert 0.8 <= second.similarity <= 1
            assert {"numbers", "negation", "names"} <= set(second.match.passed)
            assert second.cache_status.endswith("; detail=semantic")
            same = await gateway.resolve_detailed(ask(SAME))
            assert (same.outcome, same.similarity) == (Outcome.SEMANTIC_HIT, 1.0)
            assert "same_text" in same.match.passed
            # Texts are there for feedback, and in no log of whoever prints the result.
            assert (second.match.asked, second.match.stored) == (ALSO_RESET, RESET)
            assert "password" not in repr(second.match)
            stats = await cache.stats()
            assert (stats.outcomes[Outcome.SEMANTIC_HIT], stats.semantic["hit"]) == (2, 2)
            assert provider.calls == 1

    async def test_the_very_same_question_is_an_exact_hit_and_embeds_nothing(
        self, valkey: Server, namespace: str
    ):
        embedder = Arranged()
        async with cache_on(valkey, namespace, layer(embedder)) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            asked = len(embedder.asked)
            assert (await gateway.resolve_detailed(ask(RESET))).outcome is Outcome.HIT
            assert len(embedder.asked) == asked

    @pytest.mark.parametrize(
        "other",
        [
            "How do I not reset my password?",
            "How do I reset the password of John?",
            "Why do I reset my password?",
            "How do I reset my password 2 times?",
        ],
    )
    async def test_a_near_miss_is_asked_anew(self, valkey: Server, namespace: str, other: str):
        async with cache_on(valkey, namespace, layer()) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            assert (await gateway.resolve_detailed(ask(other))).outcome is Outcome.MISS

    async def test_another_process_finds_it_within_a_second(self, server: Server | Cluster, namespace: str):
        async with (
            cache_on(server, namespace, layer()) as here,
            cache_on(server, namespace, layer()) as there,
        ):
            await InferenceGateway(Provider(), here).resolve(ask(RESET))

            async def is_found() -> bool:
                return await there.semantic.find_similar(ask(ALSO_RESET)) is not None

            await wait_until_async(is_found, description="the other process finds the question", timeout=3)

    async def test_streams_hit_too(self, valkey: Server, namespace: str):
        provider = Provider()
        async with cache_on(valkey, namespace, layer()) as cache:
            gateway = InferenceGateway(provider, cache)
            await gateway.resolve(ask(RESET))
            assert [chunk async for chunk in gateway.stream(ask(ALSO_RESET))] == ["answer 1"]
            assert (await cache.stats()).outcomes[Outcome.SEMANTIC_HIT] == 1
            [chunk async for chunk in gateway.stream(ask("Where are you?"))]
            assert (await gateway.resolve_detailed(ask("where are you"))).outcome is Outcome.SEMANTIC_HIT
            assert provider.calls == 2

    async def test_a_burst_of_one_question_embeds_it_once(self, valkey: Server, namespace: str):
        embedder = Arranged()
        async with cache_on(valkey, namespace, layer(embedder)) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await asyncio.gather(*(gateway.resolve(ask(RESET)) for _ in range(20)))
            assert embedder.asked.count(RESET) == 1

    async def test_callers_of_one_flight_get_objects_of_their_own(self, valkey: Server, namespace: str):
        async def call() -> dict[str, Any]:
            return {"said": ["an answer"]}

        async with cache_on(valkey, namespace, layer()) as cache:
            await cache.get_or_call(ask(RESET), call)
            answers = await asyncio.gather(*(cache.resolve(ask(ALSO_RESET), call) for _ in range(5)))
            assert {one.outcome for one in answers} == {Outcome.SEMANTIC_HIT}
            assert len({id(one.answer) for one in answers}) == 5

    async def test_find_similar_asks_nobody_and_counts_nothing(self, valkey: Server, namespace: str):
        semantic = layer()
        with pytest.raises(ConfigError, match="belongs to no cache"):
            await semantic.find_similar(ask(RESET))
        async with cache_on(valkey, namespace, semantic) as cache:
            assert await semantic.find_similar(ask(ALSO_RESET)) is None
            await cache.put(ask(RESET), "an answer")
            found = await found_in(cache, ask(ALSO_RESET))
            assert (found.answer, found.outcome) == ("an answer", Outcome.SEMANTIC_HIT)
            assert (await cache.stats()).requests == 0


class TestWhatIsNotServed:
    async def test_what_was_invalidated_cleared_or_replaced(self, server: Server | Cluster, namespace: str):
        provider = Provider()
        async with cache_on(server, namespace, layer()) as cache:
            gateway = InferenceGateway(provider, cache)
            for forget in (
                lambda: cache.invalidate(tags=["doc:1"]),
                lambda: cache.invalidate(request=ask(RESET)),
                lambda: cache.invalidate(namespace=namespace),
                lambda: cache.clear(),
            ):
                await gateway.resolve(ask(RESET), tags=["doc:1"])
                assert (await gateway.resolve_detailed(ask(ALSO_RESET))).outcome is Outcome.SEMANTIC_HIT
                await forget()
                with pytest.raises(CacheMiss):
                    await gateway.resolve(ask(ALSO_RESET), mode="read_only")
            await gateway.resolve(ask(RESET))
            replaced = await gateway.resolve(ask(RESET), mode="refresh")
            assert await gateway.resolve(ask(ALSO_RESET)) == replaced

    async def test_an_answer_too_old_for_the_call(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace, layer()) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            found = await gateway.resolve_detailed(ask(ALSO_RESET), max_age=1e-6)
            assert found.outcome is Outcome.MISS

    @pytest.mark.parametrize("allowed", [False, True])
    @pytest.mark.parametrize(
        "answer",
        [
            {"choices": [{"message": {"tool_calls": [{"function": {"name": "delete_account"}}]}}]},
            {"candidates": [{"content": {"parts": [{"functionCall": {"name": "delete_account"}}]}}]},
            {"output": {"message": {"content": [{"toolUse": {"name": "delete_account"}}]}}},
            {"output": [{"type": "apply_patch_call", "operation": {}}]},
            {"content": [{"type": "tool_use", "name": "delete_account"}]},
        ],
        ids=["OpenAI", "Gemini", "Bedrock", "Responses", "Anthropic"],
    )
    async def test_calls_of_tools_unless_asked_for(
        self, valkey: Server, namespace: str, answer: dict[str, Any], allowed: bool
    ):
        async with cache_on(valkey, namespace, layer(serve_tool_calls=allowed)) as cache:
            await cache.put(ask(RESET), answer)
            await cache.put(ask("Where are you?"), "here")
            await found_in(cache, ask("where are you"))
            assert (await cache.semantic.find_similar(ask(ALSO_RESET)) is not None) is allowed

    async def test_where_the_policy_wants_exact_answers(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace, layer()) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            for policy in (CachePolicy(semantic=False), "static_faq", "realtime", "batch"):
                found = await gateway.resolve_detailed(ask(ALSO_RESET), policy=policy, mode="default", ttl=0)
                assert found.outcome is Outcome.MISS
            found = await gateway.resolve_detailed(ask(ALSO_RESET), policy="chat")
            assert found.outcome is Outcome.SEMANTIC_HIT or found.outcome is Outcome.MISS

    async def test_without_a_layer_answers_match_exactly(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace, None) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            assert (await gateway.resolve_detailed(ask(ALSO_RESET))).outcome is Outcome.MISS
            assert not (await cache.stats()).semantic


_ENGINE = CacheSignatureEngine()


def scope_of(request: Any) -> str:
    taken = question_of(request)
    assert isinstance(taken, Question)
    return _ENGINE.compute_signature(taken.rest, scope={"llmcache_alike": 1}).digest


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "*", "{*}"]), "content": st.text(max_size=8)}
    ),
    max_size=3,
)
_WORDS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=12)


class TestScope:
    """What must be equal for two questions to be compared at all."""

    @given(
        first=_TURNS,
        second=_TURNS,
        one=st.dictionaries(st.sampled_from(["tools", "seed", "x"]), _JSON),
        other=st.dictionaries(st.sampled_from(["tools", "seed", "x"]), _JSON),
        asked=_WORDS,
        stored=_WORDS,
    )
    def test_no_two_requests_of_different_scope_are_ever_compared(
        self, first: Any, second: Any, one: Any, other: Any, asked: str, stored: str
    ):
        """Whatever is asked: scopes are equal if, and only if, the requests would be with one text."""
        mine, yours = ask(asked, before=first, **one), ask(stored, before=second, **other)
        same_text = ask(asked, before=second, **other)
        are_equal = _ENGINE.compute_signature(mine) == _ENGINE.compute_signature(same_text)
        assert (scope_of(mine) == scope_of(yours)) is are_equal

    @pytest.mark.parametrize(
        "other",
        [
            ask(ALSO_RESET, model="gpt-4o-mini"),
            ask(ALSO_RESET, temperature=0.3),
            ask(ALSO_RESET, response_format={"type": "json_object"}),
            ask(ALSO_RESET, tools=[{"type": "function", "function": {"name": "f"}}]),
            ask(ALSO_RESET, before=[{"role": "system", "content": "You are a pirate."}]),
            ask(ALSO_RESET, before=[]),
            ask(ALSO_RESET, before=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]),
            ask(
                [{"type": "text", "text": ALSO_RESET}, {"type": "image_url", "image_url": {"url": "data:x"}}]
            ),
        ],
        ids=["model", "temperature", "format", "tools", "system", "none", "conversation", "image"],
    )
    async def test_other_circumstances_are_other_questions(
        self, valkey: Server, namespace: str, other: dict[str, Any]
    ):
        async with cache_on(valkey, namespace, layer()) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            assert (await gateway.resolve_detailed(other)).outcome is Outcome.MISS

    async def test_a_text_that_may_be_one_to_embed_is_no_question(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace, layer()) as cache:
            await cache.get_or_call({"model": "mine", "input": RESET}, lambda: Provider().complete(None))
            asked = {"model": "mine", "input": ALSO_RESET}
            found = await cache.resolve(asked, lambda: Provider().complete(None))
            assert found.outcome is Outcome.MISS
            assert (await cache.stats()).semantic[Skip.NO_QUESTION] == 2

    async def test_a_request_that_is_changed_under_way_poisons_nothing(self, valkey: Server, namespace: str):
        """1. A asks, and goes on with its list meanwhile. 2. Others ask as the list is now."""
        talk = [{"role": "user", "content": "What is the capital of France?"}]

        async def complete(query: Any) -> str:
            return f"an answer to {query}"

        async with cache_on(valkey, namespace, layer()) as cache:
            query = {"model": "m", "messages": talk}
            asking = asyncio.ensure_future(
                cache.resolve(query, lambda: complete("What is the capital of France?"))
            )
            await asyncio.sleep(0)
            talk[0] = {"role": "user", "content": "What is the capital of Spain?"}
            await asking
            other = {"model": "m", "messages": [{"role": "user", "content": "what's the capital of Spain"}]}
            found = await cache.resolve(other, lambda: complete("Spain"))
            assert "France" not in found.answer

    async def test_other_tenants_and_namespaces_are_other_worlds(
        self, server: Server | Cluster, namespace: str
    ):
        async with cache_on(server, namespace, layer()) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET), tenant="a")
            for where in ({"tenant": "b"}, {}, {"namespace": f"{namespace}.x"}, {"tenant": "*"}):
                found = await gateway.resolve_detailed(ask(ALSO_RESET), **where)
                assert found.outcome is not Outcome.SEMANTIC_HIT or "tenant" not in where
            found = await gateway.resolve_detailed(ask(ALSO_RESET), tenant="a")
            assert found.outcome is Outcome.SEMANTIC_HIT

    async def test_the_same_conversation_may_go_on_in_other_words(self, valkey: Server, namespace: str):
        talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
        async with (
            cache_on(valkey, namespace, layer()) as cache,
            cache_on(valkey, namespace, layer(conversations="first_turn")) as strict,
        ):
            await InferenceGateway(Provider(), cache).resolve(ask(RESET, before=talk))
            found = await cache.semantic.find_similar(ask(ALSO_RESET, before=talk))
            assert found is not None
            gateway = InferenceGateway(Provider(), strict)
            assert (await gateway.resolve_detailed(ask(ALSO_RESET, before=talk))).outcome is Outcome.MISS
            assert (await strict.stats()).semantic[Skip.CONVERSATION] == 1

    @pytest.mark.parametrize(
        ("request_", "expected"),
        [
            ("  ", Skip.EMPTY),
            (ask(""), Skip.EMPTY),
            (ask([{"type": "image_url", "image_url": {"url": "data:x"}}]), Skip.NOT_TEXT),
            (ask([{"type": "text", "text": " "}]), Skip.EMPTY),
            (ask(None), Skip.NOT_TEXT),
            ({"messages": []}, Skip.NO_QUESTION),
            ({"messages": [{"role": "tool", "content": "42"}]}, Skip.NO_QUESTION),
            ({"messages": [{"role": "assistant", "content": "The answer is"}]}, Skip.NO_QUESTION),
            ({"prompt": ["a", "b"]}, Skip.NO_QUESTION),
            ({"input": ["a", "b"]}, Skip.NO_QUESTION),
            ({"anything": "else"}, Skip.NO_QUESTION),
            (7, Skip.NO_QUESTION),
            ({"prompt": "System: Be brief.\nHuman: Who are you?"}, Skip.NO_QUESTION),
            ("System: Be brief.\nUser: Who are you?", Skip.NO_QUESTION),
            ("<|im_start|>system\nBe brief.<|im_end|>", Skip.NO_QUESTION),
            ("### System\nBe brief.\n### User\nWho are you?", Skip.NO_QUESTION),
            ({"model": "stable-diffusion-3", "prompt": "a"}, Skip.NO_QUESTION),
            ({"model": "text-embedding-3-small", "input": "a"}, Skip.NO_QUESTION),
            ({"model": "omni-moderation-latest", "input": "a"}, Skip.NO_QUESTION),
            ({"model": "dall-e-3", "prompt": "a"}, Skip.NO_QUESTION),
            (
                ask([{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]),
                Skip.NOT_TEXT,
            ),
        ],
    )
    def test_what_is_no_question_says_why(self, request_: Any, expected: Skip):
        assert question_of(request_) is expected

    @pytest.mark.parametrize(
        "request_",
        [
            RESET,
            ask(RESET),
            ask([{"type": "text", "text": RESET}]),
            {"prompt": RESET},
            {"input": RESET},
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": RESET}]}]},
            {"messages": [{"role": "human", "kwargs": {"content": RESET}}], "model": {"kwargs": {}}},
        ],
    )
    def test_the_visible_text_is_what_is_compared(self, request_: Any):
        """Never the JSON around it, which is most of what LangChain hands to a cache."""
        taken = question_of(request_)
        assert isinstance(taken, Question)
        assert taken.text == RESET
        assert RESET not in json.dumps(taken.rest)


class TestBudget:
    async def test_a_hanging_embedder_costs_a_call_its_budget_and_no_more(
        self, valkey: Server, namespace: str
    ):
        embedder = Arranged({RESET, ALSO_RESET})
        async with cache_on(valkey, namespace, layer(embedder, budget=0.05)) as cache:
            gateway = InferenceGateway(Provider(), cache)
            embedder.gate.clear()
            async with asyncio.timeout(5):
                assert (await gateway.resolve_detailed(ask(RESET))).outcome is Outcome.MISS
                # A queue that is longer than the budget is not joined.
                assert (await gateway.resolve_detailed(ask("Who are you?"))).outcome is Outcome.MISS
            semantic = (await cache.stats()).semantic
            assert semantic[Skip.LATE] >= 1
            assert semantic[Skip.LATE] + semantic[Skip.QUEUE] == 2
            # What missed its budget is embedded in the background, for its answer is stored.
            embedder.gate.set()

            assert (await found_in(cache, ask(ALSO_RESET))).answer == "answer 1"

    async def test_what_is_stored_while_the_model_is_loaded_is_found_afterwards(
        self, valkey: Server, namespace: str
    ):
        class Slow(Arranged):
            is_loaded = asyncio.Event()

            async def load(self) -> None:
                await self.is_loaded.wait()

        embedder = Slow({RESET, ALSO_RESET})
        cache = cache_on(valkey, namespace, layer(embedder, budget=0.05))
        gateway = InferenceGateway(Provider(), cache)
        await gateway.resolve(ask("Who are you?"))
        await gateway.resolve(ask(RESET))
        assert (await cache.stats()).semantic[Skip.LOADING] == 1
        embedder.is_loaded.set()
        assert (await found_in(cache, ask(ALSO_RESET))).outcome is Outcome.SEMANTIC_HIT
        await cache.aclose()

    async def test_each_kind_of_failure_is_said_once(
        self, valkey: Server, namespace: str, caplog: pytest.LogCaptureFixture
    ):
        embedder = Arranged()
        embedder.fails = True
        async with cache_on(valkey, namespace, layer(embedder)) as cache:
            for text in (RESET, ALSO_RESET):
                await cache.resolve(ask(text), lambda: Provider().complete(None))
        said = [one.getMessage() for one in caplog.records if "looking for a question failed" in one.msg]
        assert len([one for one in caplog.records if "looking for" in one.getMessage()]) == 1
        assert not any("password" in one for one in said)

    async def test_an_index_that_the_server_cannot_do_is_refused_at_the_start(
        self, valkey: Server, namespace: str
    ):
        with pytest.raises(ConfigError, match="no FT"):
            async with cache_on(valkey, namespace, layer(Arranged(), index="hnsw")):
                pass

    async def test_a_failing_embedder_costs_hits_and_no_call(self, valkey: Server, namespace: str):
        embedder = Arranged()
        async with cache_on(valkey, namespace, layer(embedder)) as cache:
            gateway = InferenceGateway(Provider(), cache)
            embedder.fails = True
            assert (await gateway.resolve_detailed(ask(RESET))).outcome is Outcome.MISS
            assert (await gateway.resolve_detailed(ask(RESET))).outcome is Outcome.HIT
            assert (await cache.stats()).semantic[Skip.FAILED] == 1

    async def test_whatever_an_embedder_raises_wherever(self, valkey: Server, namespace: str):
        class Odd(Arranged):
            def count_tokens(self, _text: str) -> int:
                raise RuntimeError("the tokenizer is broken")

        async with cache_on(valkey, namespace, layer(Odd())) as cache:
            gateway = InferenceGateway(Provider(), cache)
            assert (await gateway.resolve_detailed(ask(RESET))).outcome is Outcome.MISS
            assert (await gateway.resolve_detailed(ask(RESET))).outcome is Outcome.HIT
            semantic = (await cache.stats()).semantic
            assert (semantic[Skip.FAILED], semantic["not_kept"]) == (1, 1)

    async def test_a_text_beyond_the_embedders_limit_is_never_cut(self, valkey: Server, namespace: str):
        long = "Tell me a story. " * 400
        async with cache_on(valkey, namespace, layer()) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(f"{long} About a king?"))
            found = await gateway.resolve_detailed(ask(f"{long} About a queen?"))
            assert found.outcome is Outcome.MISS
            assert (await cache.stats()).semantic[Skip.TOO_LONG] == 2

    async def test_a_server_that_hangs_fails_no_call(self, valkey: Server, namespace: str):
        settings = {"lookup_budget": 0.05, "commit_budget": 0.05, "socket_timeout": 0.25}
        async with cache_on(valkey, namespace, layer(budget=0.05), **settings) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            valkey.pause()
            try:
                async with asyncio.timeout(10):
                    assert (await gateway.resolve_detailed(ask("Who?"))).outcome is Outcome.UNAVAILABLE
            finally:
                valkey.resume()


class TestVerifier:
    async def test_it_decides_between_the_thresholds_and_is_asked_once_for_a_pair(
        self, valkey: Server, namespace: str
    ):
        asked: list[tuple[str, str]] = []

        async def verifier(one: str, other: str) -> Verdict:
            asked.append((one, other))
            return Verdict(ok=True, usage=Usage(input_tokens=20, output_tokens=1))

        semantic = layer(verifier=verifier, accept_above=1.0, reject_below=0.5)
        async with cache_on(valkey, namespace, semantic) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            for _ in range(3):
                found = await gateway.resolve_detailed(ask(ALSO_RESET))
                assert found.outcome is Outcome.SEMANTIC_HIT
                assert "verifier" in found.match.passed
            assert asked == [(ALSO_RESET, RESET)]
            stats = await cache.stats()
            assert (stats.verifier["yes"], stats.spent_input_tokens) == (1, 20)

    @pytest.mark.parametrize("way", ["no", "raises", "hangs"])
    async def test_its_no_its_error_and_its_silence_are_a_miss(
        self, valkey: Server, namespace: str, way: str
    ):
        async def verifier(_one: str, _other: str) -> bool:
            if way == "raises":
                raise RuntimeError("the verifier is down")
            if way == "hangs":
                await asyncio.Event().wait()
            return False

        semantic = layer(verifier=verifier, accept_above=1.0, reject_below=0.5, verifier_budget=0.05)
        async with cache_on(valkey, namespace, semantic) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            assert (await gateway.resolve_detailed(ask(ALSO_RESET))).outcome is Outcome.MISS
            assert (await cache.stats()).verifier["no" if way == "no" else "failed"] == 1

    async def test_all_its_answers_together_have_one_time_limit(self, valkey: Server, namespace: str):
        near = [f"question {chr(97 + i)}" for i in range(8)]

        async def verifier(_one: str, _other: str) -> bool:
            await asyncio.sleep(0.15)
            return False

        embedder = Arranged({*near, "question zero"})
        semantic = layer(embedder, guards=[], verifier=verifier, accept_above=1.0, verifier_budget=0.2)
        async with cache_on(valkey, namespace, semantic) as cache:
            for text in near:
                await cache.get_or_call(ask(text), lambda: Provider().complete(None), policy="batch")
            for text in near:
                await cache.put(ask(text), "an answer")
            await found_by(embedder, near)
            await cache.resolve(ask("question zero"), lambda: Provider().complete(None))
            assert 1 <= (await cache.stats()).verifier.total() <= 2

    async def test_one_that_cancels_itself_cancels_nobody(self, valkey: Server, namespace: str):
        async def verifier(_one: str, _other: str) -> bool:
            raise asyncio.CancelledError

        semantic = layer(verifier=verifier, accept_above=1.0, reject_below=0.5)
        async with cache_on(valkey, namespace, semantic) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            assert (await gateway.resolve_detailed(ask(ALSO_RESET))).outcome is Outcome.MISS

    async def test_one_that_never_ends_does_not_hold_up_the_end(self, valkey: Server, namespace: str):
        may_end = asyncio.Event()

        async def verifier(_one: str, _other: str) -> bool:
            while not may_end.is_set():
                try:
                    await may_end.wait()
                except asyncio.CancelledError:
                    continue
            return True

        semantic = layer(verifier=verifier, accept_above=1.0, reject_below=0.5, verifier_budget=0.05)
        async with asyncio.timeout(20):
            async with cache_on(valkey, namespace, semantic) as cache:
                gateway = InferenceGateway(Provider(), cache)
                await gateway.resolve(ask(RESET))
                assert (await gateway.resolve_detailed(ask(ALSO_RESET))).outcome is Outcome.MISS
        may_end.set()
        await wait_until_async(lambda: len(asyncio.all_tasks()) == 1, description="it ends in the end")

    async def test_what_is_invalidated_while_it_thinks_is_not_served(self, valkey: Server, namespace: str):
        async def verifier(_one: str, _other: str) -> bool:
            await cache.invalidate(tags=["doc:1"])
            return True

        semantic = layer(verifier=verifier, accept_above=1.0, reject_below=0.5, verifier_budget=10.0)
        async with cache_on(valkey, namespace, semantic, near_cache=True) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET), tags=["doc:1"])
            assert (await gateway.resolve_detailed(ask(ALSO_RESET))).outcome is Outcome.MISS

    async def test_what_a_guard_forbids_it_is_not_asked_about(self, valkey: Server, namespace: str):
        async def verifier(_one: str, _other: str) -> bool:
            raise AssertionError("not to be asked")

        semantic = layer(verifier=verifier, accept_above=1.0, reject_below=0.0)
        async with cache_on(valkey, namespace, semantic) as cache:
            gateway = InferenceGateway(Provider(), cache)
            await gateway.resolve(ask(RESET))
            found = await gateway.resolve_detailed(ask("How do I not reset my password?"))
            assert found.outcome is Outcome.MISS
            assert not (await cache.stats()).verifier


class TestShadow:
    async def test_it_serves_nothing_and_says_what_it_would_have_been(self, valkey: Server, namespace: str):
        said = {"first": "It costs ten dollars.", "same": "It costs ten dollars", "other": "No, never."}
        provider = iter([said["first"], said["same"], said["other"]])

        async def complete(_query: Any) -> str:
            return next(provider)

        async with cache_on(valkey, namespace, layer(shadow=True)) as cache:
            gateway = InferenceGateway(complete, cache)
            await gateway.resolve(ask(RESET))
            assert (await gateway.resolve_detailed(ask(ALSO_RESET))).outcome is Outcome.MISS
            await gateway.resolve(ask("how can I reset my password"))

            async def are_compared() -> bool:
                return (await cache.stats()).shadow.total() == 2

            await wait_until_async(are_compared, description="both are compared")
            stats = await cache.stats()
            assert stats.semantic["shadow"] == 2
            assert (stats.shadow["agreed"], stats.shadow["differed"]) == (1, 1)
            assert stats.outcomes[Outcome.SEMANTIC_HIT] == 0


class TestFeedback:
    async def test_a_wrong_answer_is_forgotten_and_kept_for_calibration(
        self, valkey: Server, namespace: str, tmp_path: Path
    ):
        file = tmp_path / "feedback.jsonl"
        async with cache_on(valkey, namespace, layer(feedback=file)) as cache:
            gateway = InferenceGateway(Provider(), cache)
            exact = await gateway.resolve_detailed(ask(RESET))
            right = await gateway.resolve_detailed(ask(ALSO_RESET))
            await cache.report_feedback(right, ok=True)
            await cache.report_feedback(right, ok=False)
            assert [json.loads(line) for line in file.read_text().splitlines()] == [
                {"a": ALSO_RESET, "b": RESET, "ok": True},
                {"a": ALSO_RESET, "b": RESET, "ok": False},
            ]
            with pytest.raises(CacheMiss):
                await gateway.resolve(ask(RESET), mode="read_only")
            await gateway.resolve(ask(RESET))
            # Nor is it served again to this question, now that there is one again.
            assert await cache.semantic.find_similar(ask(ALSO_RESET)) is None
            with pytest.raises(ConfigError, match="semantic hits"):
                await cache.report_feedback(exact, ok=False)


class TestSettings:
    @pytest.mark.parametrize(
        "settings",
        [
            {"similarity_threshold": 1.5},
            {"similarity_threshold": -0.1},
            {"similarity_threshold": True},
            {"target_error": 2.0},
            {"guards": ["numbers", "nonsense"]},
            {"guards": "numbers"},
            {"budget": 0},
            {"verifier_budget": -1},
            {"conversations": "all"},
            {"verifier": 7},
            {"reject_below": 0.5},
            {"verifier": lambda *_: None, "accept_above": 0.5, "reject_below": 0.9},
            {"index": "faiss"},
            {"calibration": "/does/not/exist.json"},
            {"embedder": object()},
            {"embedder": Arranged(), "target_error": 0.01},
        ],
        ids="-".join,
    )
    def test_what_cannot_work_is_refused_at_once(self, settings: dict[str, Any]):
        with pytest.raises(ConfigError):
            SemanticCacheLayer(**settings)

    def test_a_target_error_takes_its_threshold_from_what_was_measured(self):
        table = shipped(MiniLMEmbedder.name, [str(guard) for guard in Guard])
        assert table is not None
        strict, lax = SemanticCacheLayer(target_error=0.02), SemanticCacheLayer(target_error=0.1)
        assert (strict.threshold, lax.threshold) == (table.threshold_for(0.02), table.threshold_for(0.1))
        assert strict.threshold > lax.threshold

    def test_an_embedder_that_nobody_has_measured_says_so(self, caplog: pytest.LogCaptureFixture):
        with caplog.at_level(logging.WARNING):
            SemanticCacheLayer(Arranged())
            SemanticCacheLayer()
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1
        assert "nothing is known of the error rate of arranged" in said[0]

    def test_only_a_layer_is_one(self):
        with pytest.raises(ConfigError, match="semantic is a SemanticCacheLayer, not a bool"):
            ResponseCache.from_url("redis://localhost", semantic=True)

    async def test_a_layer_belongs_to_one_cache(self, valkey: Server, namespace: str):
        shared = layer()
        async with cache_on(valkey, namespace, shared):
            with pytest.raises(ConfigError, match="belongs to another cache"):
                cache_on(valkey, namespace, shared)

    async def test_each_guard_can_be_switched_off(self, valkey: Server, namespace: str):
        embedder = Arranged({"Is it open?", "Is it not open?"})
        kept = [guard for guard in Guard if guard not in (Guard.NEGATION, Guard.WORDING)]
        async with cache_on(valkey, namespace, layer(embedder, guards=kept)) as cache:
            await cache.put(ask("Is it open?"), "yes")
            found = await found_in(cache, ask("Is it not open?"))
            assert "negation" not in found.match.passed


@pytest.mark.parametrize("close", [True, False])
async def test_several_loops_use_one_layer_one_after_the_other(valkey: Server, namespace: str, close: bool):
    cache = cache_on(valkey, namespace, layer())

    async def once(text: str) -> Outcome:
        found = await cache.resolve(ask(text), lambda: Provider().complete(None))
        if close:
            await cache.aclose()
        return found.outcome

    def in_thread(text: str) -> Outcome:
        return asyncio.run(once(text))

    assert await asyncio.to_thread(in_thread, RESET) is Outcome.MISS
    assert await asyncio.to_thread(in_thread, ALSO_RESET) is Outcome.SEMANTIC_HIT
    await cache.aclose()
