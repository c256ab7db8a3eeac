"""Why a request hits or misses, as somebody wants to know who expected the other."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_plugins import CachePolicy, InferenceGateway, Outcome, ResponseCache
from llmcache_plugins.signature import CacheSignatureEngine, Leaves

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Cluster, Server

PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
SECRET = "a deployment's secret"


def ask(text: str = "Why is the sky blue?", **more: Any) -> dict[str, Any]:
    system = {"role": "system", "content": "Be brief."}
    return {"model": "m", "messages": [system, {"role": "user", "content": text}], **more}


def cache_on(server: Server | Cluster, namespace: str, **settings: Any) -> ResponseCache:
    return ResponseCache.from_url(server.url, namespace=namespace, **{**PATIENT, **settings})


async def answer(_query: Any) -> str:
    return "Rayleigh"


class TestMisses:
    async def test_the_nearest_entry_and_the_very_paths_that_differ(
        self, server: Server | Cluster, namespace: str
    ):
        async with cache_on(server, namespace) as cache:
            gateway = InferenceGateway(answer, cache)
            await gateway.resolve(ask("What is love?", temperature=0, seed=7))
            await gateway.resolve(ask(temperature=0, seed=7))
            said = await gateway.explain(ask(temperature=1, max_tokens=5))
            assert said.outcome is Outcome.MISS
            assert said.nearest is not None
            assert said.nearest.key.digest == gateway.key_of(ask(temperature=0, seed=7)).digest
            found = said.nearest.differences
            assert found.changed == ("temperature",)
            assert found.added == ("max_tokens",)
            assert found.removed == ("seed",)
            assert said.differences == ("temperature", "max_tokens", "seed")
            assert "messages" not in str(said)
            assert (await gateway.explain(ask("Why?", temperature=0, seed=7))).differences == (
                "messages[1].content",
            )

    async def test_from_another_process_too_where_there_is_a_secret(
        self, valkey: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        from llmcache_plugins.signature import engine

        async with (
            cache_on(valkey, namespace, secret=SECRET) as cache,
            cache_on(valkey, namespace) as open_one,
        ):
            await InferenceGateway(answer, cache).resolve(ask(seed=1))
            await InferenceGateway(answer, open_one).resolve(ask(seed=2))
        monkeypatch.setattr(engine, "_OF_THIS_PROCESS", b"another process's")
        async with cache_on(valkey, namespace, secret=SECRET) as cache:
            said = await cache.explain(ask(seed=3))
            assert said.differences == ("seed",)
            assert (said.compared, said.incomparable) == (1, 1)
            assert "could not be compared" in str(said)

    async def test_nothing_is_counted_called_or_used(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace, max_entries=2) as cache:
            gateway = InferenceGateway(answer, cache)
            await gateway.resolve(ask("a"))
            await gateway.resolve(ask("b"))
            before = await cache.stats()
            await gateway.explain(ask("a"))
            await gateway.explain(ask("c"))
            assert await cache.stats() == before
            await gateway.resolve(ask("c"))
            assert (await gateway.explain(ask("a"))).outcome is Outcome.MISS
            assert (await gateway.explain(ask("b"))).outcome is Outcome.HIT

    async def test_what_was_invalidated_is_no_neighbour(self, server: Server | Cluster, namespace: str):
        async with cache_on(server, namespace) as cache:
            await cache.put(ask("a"), "x", tags=["doc:7"])
            await cache.invalidate(tags=["doc:7"])
            said = await cache.explain(ask("b"))
            assert said.nearest is None
            assert said.compared == 0


class TestHits:
    async def test_what_is_stored_and_what_did_not_count(self, server: Server | Cluster, namespace: str):
        async with cache_on(server, namespace, normalizers=["uuid"]) as cache:
            query = ask("Ticket 6ba7b810-9dad-11d1-80b4-00c04fd430c8?")
            await cache.put(query, "x", tags=["doc:7"])
            asked = ask(
                "Ticket 6ba7b811-9dad-11d1-80b4-00c04fd430c9?", user="me", extra_headers={"X-Request-Id": "1"}
            )
            said = await cache.explain(asked)
            assert said.outcome is Outcome.HIT
            assert said.left_out == ("user", 'extra_headers["X-Request-Id"]')
            assert [(one.rule, one.path, one.count) for one in said.normalized] == [
                ("uuid", "messages[1].content", 1)
            ]
            assert said.entry is not None
            assert said.entry.tags == ("doc:7",)
            assert 3500 < said.entry.fresh_for <= 3600
            assert json.loads(said.canonical)
            assert "Ticket" not in str(said)

    async def test_of_whichever_kind_is_stored(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace) as cache:
            key = cache._intake.read_key(ask(), kind="openai.chat", options={})
            await cache.put(key, "x")
            said = await cache.explain(ask())
            assert (said.outcome, said.kind) == (Outcome.HIT, "openai.chat")

    async def test_who_asks_for_what_is_too_old(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace) as cache:
            await cache.put(ask(), "x")
            said = await cache.explain(ask(), max_age=0)
            assert said.outcome is Outcome.MISS
            assert "max_age" in said.reason
            assert (await cache.explain(ask(), mode="refresh")).outcome is Outcome.MISS


class TestNoCache:
    async def test_what_is_never_stored(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace, policy=CachePolicy(max_temperature=0.5)) as cache:
            for query, options, why in [
                (ask(temperature=0.9), {}, "max_temperature, 0.5"),
                (ask(), {}, "max_temperature, 0.5"),
                (ask(temperature=float("nan")), {"policy": "batch"}, "temperature: a float that is NaN"),
                (ask(), {"mode": "off"}, 'mode "off"'),
            ]:
                said = await cache.explain(query, **options)
                assert said.outcome is Outcome.BYPASS
                assert why in said.reason

    async def test_a_server_that_is_away(self, namespace: str):
        async with ResponseCache.from_url("redis://127.0.0.1:1", namespace=namespace) as cache:
            said = await cache.explain(ask())
            assert said.outcome is Outcome.UNAVAILABLE
            assert said.key == cache.key_of(ask())


class TestLeaves:
    """What lies beside an answer says where requests differ, and nothing to who lacks the secret."""

    trees = st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
        max_leaves=12,
    )
    requests = st.dictionaries(st.text(min_size=1, max_size=4), trees, max_size=5)

    @given(one=requests, other=requests)
    def test_equal_requests_and_only_they_have_no_differences(
        self, one: dict[str, Any], other: dict[str, Any]
    ):
        engine = CacheSignatureEngine(secret=SECRET)
        found = engine.leaves(one).compare(engine.leaves(other).packed())
        assert found is not None
        assert (found.count == 0) == (engine.compute_signature(one) == engine.compute_signature(other))

    def test_a_guess_cannot_be_tested_without_the_secret(self):
        stored = CacheSignatureEngine(secret=SECRET).leaves(ask()).packed()
        assert CacheSignatureEngine(secret="a guess").leaves(ask()).compare(stored) is None
        forged = CacheSignatureEngine(secret="a guess").leaves(ask()).packed()
        assert not {stored[i : i + 4] for i in range(5, len(stored), 4)} & {
            forged[i : i + 4] for i in range(5, len(forged), 4)
        }

    @given(junk=st.binary(max_size=60))
    def test_bytes_of_anybody_s_are_no_leaves_or_compare(self, junk: bytes):
        CacheSignatureEngine(secret=SECRET).leaves(ask()).compare(junk)

    @pytest.mark.parametrize("messages", [5, 60, 100, 1000])
    def test_they_stay_small_however_long_the_request(self, messages: int):
        engine = CacheSignatureEngine(secret=SECRET)
        long = {"model": "m", "messages": [{"role": "user", "content": str(n)} for n in range(messages)]}
        stored = engine.leaves(long).packed()
        assert 0 < len(stored) <= 5 + 8 * 128
        changed = {**long, "messages": [*long["messages"][:-1], {"role": "user", "content": "other"}]}
        found = engine.leaves(changed).compare(stored)
        assert found is not None
        assert found.count == 1
        assert found.changed[0].startswith("messages")

    def test_a_key_of_one_kind_only(self):
        assert Leaves({}, key=b"k" * 32).packed() != Leaves({}, key=b"l" * 32).packed()


async def test_a_thousand_entries_are_compared_and_no_more(valkey: Server, namespace: str):
    async with cache_on(valkey, namespace, secret=SECRET) as cache:
        await asyncio.gather(*(cache.put(ask(str(n)), "x") for n in range(1100)))
        said = await cache.explain(ask("1099", seed=1))
        assert said.compared == 1000
        assert said.differences == ("seed",)


class TestCommand:
    async def test_it_says_where_the_nearest_differs(
        self, valkey: Server, namespace: str, tmp_path: Path, called: Any
    ):
        async with cache_on(valkey, namespace, secret=SECRET) as cache:
            await cache.put(ask(temperature=0), "x")
        file = tmp_path / "request.json"
        file.write_text(json.dumps(ask(temperature=1)))
        where = (str(file), "--url", valkey.url, "--namespace", namespace, "--secret", SECRET)
        code, out, _ = await asyncio.to_thread(called, "explain", *where)
        assert code == 1
        assert "differs in temperature" in out
        assert "sky" not in out
        code, out, _ = await asyncio.to_thread(called, "explain", *where, "--json")
        assert json.loads(out)["differences"] == ["temperature"]
        file.write_text(json.dumps(ask(temperature=0)))
        code, out, _ = await asyncio.to_thread(called, "explain", *where, "--canonical")
        assert code == 0
        assert "sky" in out

    @pytest.mark.parametrize("text", ["", "[1]", "{", "\x80"])
    def test_what_is_no_request_ends_with_2(self, tmp_path: Path, called: Any, text: str):
        file = tmp_path / "request.json"
        file.write_bytes(text.encode("latin-1"))
        code, _, err = called("explain", str(file), "--url", "redis://127.0.0.1:1")
        assert code == 2
        assert str(file) in err

    def test_a_server_that_is_away_ends_with_2(self, tmp_path: Path, called: Any):
        file = tmp_path / "request.json"
        file.write_text('"hi"')
        code, out, err = called("explain", str(file), "--url", "redis://127.0.0.1:1", "--json")
        assert code == 2
        assert "error" in json.loads(out)
        assert err.startswith("llmcache explain:")
