"""Answers disappear at once: by what they were made from, by model, by request, by whose they are."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis
from servers import redis_server
from waiting import wait_until_async

from llmcache_plugins import (
    CacheMiss,
    CachePolicy,
    ConfigError,
    InferenceGateway,
    Outcome,
    ResponseCache,
)
from llmcache_plugins.repository import invalidating

if TYPE_CHECKING:
    from pathlib import Path

    from servers import Cluster, Server

PATIENT: dict[str, Any] = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}


class Provider:
    """Answers with the number of the call, as soon as `gate` is open."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_asked = asyncio.Event()

    async def complete(self, _query: Any) -> str:
        self.calls += 1
        self.is_asked.set()
        number = self.calls
        await self.gate.wait()
        return f"answer {number}"


def ask(text: str, *, model: str = "gpt-4o") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


def cache_on(server: Server | Cluster, namespace: str, **settings: Any) -> ResponseCache:
    return ResponseCache.from_url(server.url, namespace=namespace, **{**PATIENT, **settings})


async def commands_run(server: Server) -> dict[str, int]:
    async with aioredis.Redis.from_url(server.url) as raw:
        info = await raw.info("commandstats")
    return {name.removeprefix("cmdstat_"): said["calls"] for name, said in info.items()}


async def spent(server: Server, before: dict[str, int], *names: str) -> int:
    after = await commands_run(server)
    return sum(after.get(name, 0) - before.get(name, 0) for name in names)


class TestWhatIsForgotten:
    async def test_answers_made_from_a_document_and_no_others(self, server: Server | Cluster, namespace: str):
        provider = Provider()
        async with cache_on(server, namespace) as cache, cache_on(server, namespace) as elsewhere:
            gateway, other = InferenceGateway(provider, cache), InferenceGateway(provider, elsewhere)
            await gateway.resolve(ask("a"), tags=["doc:7", "doc:8"])
            await gateway.resolve(ask("b"), tags=["doc:8"])
            await gateway.resolve(ask("c"))
            await elsewhere.invalidate(tags=["doc:7"])
            for where in (gateway, other):
                with pytest.raises(CacheMiss):
                    await where.resolve(ask("a"), mode="read_only")
                assert await where.resolve(ask("b"), mode="read_only") == "answer 2"
                assert await where.resolve(ask("c"), mode="read_only") == "answer 3"
            # What is asked anew is an answer like any other.
            assert await other.resolve(ask("a"), tags=["doc:7"]) == "answer 4"
            assert await gateway.resolve(ask("a")) == "answer 4"

    async def test_answers_of_a_model(self, server: Server | Cluster, namespace: str):
        provider = Provider()
        async with cache_on(server, namespace) as cache:
            gateway = InferenceGateway(provider, cache)
            await gateway.resolve(ask("a", model="gpt-4o"))
            await gateway.resolve(ask("a", model="gpt-4o-mini"))
            await cache.invalidate(model="gpt-4o")
            assert (await gateway.resolve_detailed(ask("a", model="gpt-4o"))).outcome is Outcome.MISS
            assert (await gateway.resolve_detailed(ask("a", model="gpt-4o-mini"))).outcome is Outcome.HIT

    async def test_the_answers_of_a_request_of_whatever_kind(self, server: Server | Cluster, namespace: str):
        async with cache_on(server, namespace) as cache:

            class Codec:
                kind = "openai.chat"

                def __init__(self) -> None:
                    from llmcache_plugins.answers import PlainCodec

                    plain = PlainCodec()
                    self.encode, self.decode = plain.encode, lambda encoded: encoded.payload

            await cache.put(ask("a"), "plain")
            await cache.put(ask("a"), "chat", codec=Codec())
            assert (await cache.stats()).entries == 2
            assert (await cache.invalidate(request=ask("a"))).entries == 2
            assert (await cache.stats()).entries == 0

    async def test_a_whole_namespace_but_not_its_neighbours(self, server: Server | Cluster, namespace: str):
        provider = Provider()
        async with cache_on(server, namespace) as cache:
            gateway = InferenceGateway(provider, cache)
            neighbours = [namespace, f"{namespace}.0", f"{namespace}x"]
            for name in neighbours:
                await gateway.resolve(ask("a"), namespace=name)
            await cache.invalidate(namespace=f"{namespace}.0")
            outcomes = [(await gateway.resolve_detailed(ask("a"), namespace=n)).outcome for n in neighbours]
            assert outcomes == [Outcome.HIT, Outcome.MISS, Outcome.HIT]

    async def test_a_call_under_way_is_neither_stored_nor_shared(
        self, server: Server | Cluster, namespace: str
    ):
        """1. A asks from document 7. 2. The document changes. 3. B asks. 4. A's answer comes: A's alone."""
        provider = Provider()
        provider.gate.clear()
        async with cache_on(server, namespace) as cache, cache_on(server, namespace) as elsewhere:
            gateway, other = InferenceGateway(provider, cache), InferenceGateway(provider, elsewhere)
            first = asyncio.create_task(gateway.resolve(ask("a"), tags=["doc:7"]))
            await provider.is_asked.wait()
            await elsewhere.invalidate(tags=["doc:7"])
            later = [asyncio.create_task(g.resolve(ask("a"), tags=["doc:7"])) for g in (gateway, other)]
            await wait_until_async(lambda: provider.calls == 2, description="a second call")
            provider.gate.set()
            assert await first == "answer 1"
            assert set(await asyncio.gather(*later)) == {"answer 2"}
            assert await other.resolve(ask("a")) == "answer 2"
            assert (await cache.stats()).refusals["invalidated"] == 1

    async def test_tenants_see_and_lose_only_their_own(self, server: Server | Cluster, namespace: str):
        provider = Provider()
        async with cache_on(server, namespace) as cache:
            gateway = InferenceGateway(provider, cache)
            assert await gateway.resolve(ask("a"), tenant="alice@example.org") == "answer 1"
            assert await gateway.resolve(ask("a"), tenant="bob") == "answer 2"
            await cache.invalidate(tenant="alice@example.org")
            with pytest.raises(CacheMiss):
                await gateway.resolve(ask("a"), tenant="alice@example.org", mode="read_only")
            assert await gateway.resolve(ask("a"), tenant="bob", mode="read_only") == "answer 2"
            assert await cache.clear(tenant="bob") == 1
        async with cache_on(server, namespace, tenant="alice@example.org") as alices:
            alice = InferenceGateway(provider, alices)
            assert await alice.resolve(ask("a")) == "answer 3"
            assert await alice.resolve(ask("a"), mode="read_only") == "answer 3"
            for node in server.nodes:
                assert not [key for key in node.command("KEYS", "*") if b"alice" in key]

    async def test_replicas_are_waited_for_where_asked(self, tmp_path: Path, namespace: str):
        for name in ("main", "replica"):
            (tmp_path / name).mkdir()
        with redis_server(tmp_path / "main", "--repl-diskless-sync-delay", "0", tcp=True) as main:
            address = ("127.0.0.1", str(main.port))
            with redis_server(tmp_path / "replica", "--replicaof", *address, tcp=True) as replica:
                async with cache_on(main, namespace) as cache:
                    await wait_until_async(lambda: is_linked(replica), description="a replica")
                    await cache.put(ask("a"), "answer", tags=["doc:7"])
                    done = await cache.invalidate(tags=["doc:7"], replicas=1, timeout=5.0)
                    assert done.replicas == 1
                    assert (await cache.invalidate(tags=["doc:7"])).replicas is None
                    replica.pause()
                    assert (await cache.invalidate(tags=["doc:7"], replicas=1, timeout=0.1)).replicas == 0
                    replica.resume()

    async def test_a_cluster_says_how_many_replicas_have_it(self, cluster: Cluster, namespace: str):
        async with cache_on(cluster, namespace) as cache:
            await cache.put(ask("a"), "answer", tags=["doc:7"])
            assert (await cache.invalidate(tags=["doc:7"], replicas=1, timeout=0.05)).replicas == 0
            with pytest.raises(CacheMiss):
                await cache.get_or_call(ask("a"), never, mode="read_only")


class TestWhatItCosts:
    async def test_a_hit_with_ten_tags_is_one_round_trip_and_one_more_after_an_invalidation(
        self, valkey: Server, namespace: str
    ):
        async with cache_on(valkey, namespace) as cache:
            tags = [f"doc:{number}" for number in range(10)]
            for text in ("a", "b"):
                await cache.put(ask(text), "answer", tags=tags)

            async def hit(text: str) -> None:
                assert await cache.get_or_call(ask(text), never, mode="read_only") == "answer"

            await hit("a")
            before = await commands_run(valkey)
            await hit("a")
            assert await spent(valkey, before, "mget", "evalsha") == 1
            await cache.invalidate(tags=["another"])
            for text in ("a", "b"):
                before = await commands_run(valkey)
                await hit(text)
                assert await spent(valkey, before, "mget", "evalsha") == 2
                before = await commands_run(valkey)
                await hit(text)
                assert await spent(valkey, before, "mget", "evalsha") == 1

    @pytest.mark.parametrize("entries", [1, 200])
    async def test_an_invalidation_is_one_command_however_many_it_voids(
        self, valkey: Server, namespace: str, entries: int
    ):
        async with cache_on(valkey, namespace) as cache:
            await asyncio.gather(*(cache.put(ask(str(n)), "x", tags=["all"]) for n in range(entries)))
            before = await commands_run(valkey)
            await cache.invalidate(tags=["all"])
            assert await spent(valkey, before, "evalsha", "scan", "del", "mget") == 1
            with pytest.raises(CacheMiss):
                await cache.get_or_call(ask(str(entries - 1)), never, mode="read_only")

    async def test_old_marks_make_room_and_what_is_older_is_a_miss(
        self, server: Server | Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(invalidating, "MOST_MARKS", 5)
        async with cache_on(server, namespace) as cache:
            await cache.put(ask("old"), "answer")
            for number in range(11):
                await cache.invalidate(tags=[f"doc:{number}"])
            await cache.put(ask("new"), "answer", tags=["doc:99"])
            assert (await cache.stats()).marks_forgotten > 0
            with pytest.raises(CacheMiss):
                await cache.get_or_call(ask("old"), never, mode="read_only")
            assert await cache.get_or_call(ask("new"), never, mode="read_only") == "answer"
            await cache.invalidate(tags=["doc:99"])
            with pytest.raises(CacheMiss):
                await cache.get_or_call(ask("new"), never, mode="read_only")


class TestVersions:
    async def test_a_version_is_part_of_the_key(self, valkey: Server, namespace: str):
        provider = Provider()
        async with (
            cache_on(valkey, namespace, prompt_version="v1") as one,
            cache_on(valkey, namespace, prompt_version="v2") as two,
        ):
            first, second = InferenceGateway(provider, one), InferenceGateway(provider, two)
            assert await first.resolve(ask("a")) == "answer 1"
            assert await second.resolve(ask("a")) == "answer 2"
            assert await second.resolve(ask("a"), prompt_version="v1") == "answer 1"
            assert await first.resolve(ask("a"), data_version=3) == "answer 3"
            assert await first.resolve(ask("a"), data_version=3) == "answer 3"
            assert await first.resolve(ask("a")) == "answer 1"

    def test_a_request_without_a_version_keeps_its_key(self):
        plain, versioned = (
            ResponseCache.from_url("redis://localhost", data_version=version).key_of("q")
            for version in (None, 1)
        )
        assert plain == ResponseCache.from_url("redis://localhost").key_of("q")
        assert plain != versioned


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            ({}, "say what to forget"),
            ({"tags": "doc:7"}, "one tag is a list of one"),
            ({"tags": [""]}, "non-empty string"),
            ({"tags": [7]}, "non-empty string"),
            ({"tags": ["a"], "replicas": -1}, "replicas"),
            ({"tags": ["a"], "timeout": 0}, "timeout"),
            ({"tenant": ""}, "tenant"),
        ],
    )
    async def test_it_is_said_what_cannot_be_forgotten(
        self, valkey: Server, namespace: str, arguments: dict[str, Any], what: str
    ):
        async with cache_on(valkey, namespace) as cache:
            with pytest.raises(ConfigError, match=what):
                await cache.invalidate(**arguments)

    @pytest.mark.parametrize(
        ("options", "what"),
        [
            ({"tags": "doc:7"}, "one tag is a list of one"),
            ({"tags": [f"t{n}" for n in range(65)]}, "at most 64 tags"),
            ({"prompt_version": True}, "prompt_version"),
            ({"data_version": 1.5}, "data_version"),
            ({"max_age": -1}, "max_age"),
            ({"policy": "weekly"}, "static_faq, chat, realtime, batch"),
            ({"policy": CachePolicy}, "policy is"),
        ],
    )
    async def test_a_call_with_a_wrong_option_is_refused(
        self, valkey: Server, namespace: str, options: dict[str, Any], what: str
    ):
        async with cache_on(valkey, namespace) as cache:
            with pytest.raises(ConfigError, match=what):
                await InferenceGateway(Provider(), cache).resolve(ask("a"), **options)


def is_linked(replica: Server) -> bool:
    return replica.command("INFO", "replication")["master_link_status"] == "up"


async def never() -> str:
    raise AssertionError("the provider was called")


class TestBroughtLater:
    """Answers that nobody was sent for, or came later than anybody waited."""

    async def test_what_was_asked_for_before_is_not_stored_after(
        self, server: Server | Cluster, namespace: str
    ):
        async with cache_on(server, namespace) as cache:
            lease = await cache.fence(ask("a"), tags=["doc:7"])
            early = asyncio.get_running_loop().time()
            await cache.put(ask("b"), "warm")
            assert await cache.put(
                ask("c"), "x", tags=["doc:7"], lease=await cache.fence(ask("c"), tags=["doc:7"])
            )
            await cache.invalidate(tags=["doc:7"])
            assert lease is not None
            assert not await cache.put(ask("a"), "old", tags=["doc:7"], lease=lease)
            assert not await cache.put(ask("d"), "old", tags=["doc:7"], asked_at=early - 0.001)
            assert await cache.put(ask("a"), "new", tags=["doc:7"])
            assert (await cache.stats()).refusals["invalidated"] >= 1

    async def test_a_reader_without_the_tags_does_not_follow_a_voided_stream(
        self, server: Server | Cluster, namespace: str
    ):
        """1. A streams from document 7. 2. It changes. 3. B asks for the same, and names no document."""
        begun, go = asyncio.Event(), asyncio.Event()

        class Slow:
            async def complete(self, _query: Any) -> str:
                return "new"

            async def stream(self, _query: Any) -> Any:
                yield "old "
                begun.set()
                await go.wait()
                yield "end"

        class Quick(Slow):
            async def stream(self, _query: Any) -> Any:
                yield "new"

        async with cache_on(server, namespace) as cache, cache_on(server, namespace) as elsewhere:
            leader = asyncio.create_task(
                _read(InferenceGateway(Slow(), cache).stream(ask("a"), tags=["doc:7"]))
            )
            await begun.wait()
            await elsewhere.invalidate(tags=["doc:7"])
            assert await _read(InferenceGateway(Quick(), elsewhere).stream(ask("a"))) == "new"
            go.set()
            assert await leader == "old end"

    async def test_an_empty_list_of_tags_voids_nothing(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace) as cache:
            await cache.put(ask("a"), "x", tenant="alice")
            await cache.invalidate(tags=[], tenant="alice")
            assert await cache.get_or_call(ask("a"), never, tenant="alice") == "x"

    async def test_a_request_is_forgotten_in_the_version_that_is_named(self, valkey: Server, namespace: str):
        async with cache_on(valkey, namespace) as cache:
            await cache.put(ask("a"), "x", prompt_version=2)
            assert (await cache.invalidate(request=ask("a"))).entries == 0
            assert (await cache.invalidate(request=ask("a"), prompt_version=2)).entries == 1


async def _read(chunks: Any) -> str:
    return "".join([chunk async for chunk in chunks])
