"""`llmcache ls`: which namespaces there are, and what is in one."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from entries import CODEC, entry_of, key_of
from hypothesis import given
from hypothesis import strategies as st

from llmcache_plugins import CacheConfig, InferenceGateway, ResponseCache, ResponseRepository
from llmcache_plugins.keys import books_matcher, decode_name, encode_name
from llmcache_plugins.models import AnswerFacts, EncodedAnswer, Entry, Provenance, Usage
from llmcache_plugins.repository import listing

if TYPE_CHECKING:
    from collections.abc import Callable

    from servers import Cluster, Server

    Called = Callable[..., tuple[int, str, str]]

PATIENT: dict[str, Any] = {"socket_timeout": 10.0}
HOSTILE = "a.0}:log\x1b[2J[b]*?é~\u202e"


def told(answer: str = "a secret answer", **more: Any) -> Entry:
    """Return an entry of which everything is known."""
    now = time.time()
    facts = AnswerFacts(model="m-2026", usage=Usage(input_tokens=12, output_tokens=34))
    wanted: dict[str, Any] = {
        "created": now - 100,
        "fresh_until": now + 1000,
        "provider_seconds": 2.5,
        "provenance": Provenance(model="m", tags=("doc:7", "v2")),
        **more,
    }
    payload = CODEC.encode(answer).payload
    return Entry(answer=EncodedAnswer(kind="plain", payload=payload, facts=facts), **wanted)


def fill(server: Server | Cluster, entries: dict[tuple[str, str], Entry], **config: Any) -> None:
    """Store entries, by namespace and name, in their order."""

    async def fill_all() -> None:
        async with ResponseRepository(server.url, config=CacheConfig(**PATIENT, **config)) as repository:
            for (namespace, name), entry in entries.items():
                await repository.persist(key_of(name, namespace=namespace), entry, ttl=2000)

    asyncio.run(fill_all())


class TestNamespaces:
    def test_all_of_a_prefix_with_their_books_on_every_node(
        self, server: Server | Cluster, namespace: str, called: Called
    ):
        small, large = f"{namespace}.0", namespace
        fill(
            server,
            {(small, "0"): entry_of("x"), **{(large, str(i)): entry_of("x" * 99) for i in range(40)}},
        )
        fill(server, {(HOSTILE, "q"): entry_of("x")})
        code, out, err = called("ls", "--url", server.url, "--json")
        assert (code, err) == (0, "")
        said = json.loads(out)
        found = {one["namespace"]: one for one in said["namespaces"]}
        assert set(found) == {small, large, HOSTILE}
        assert said["namespaces"][0]["namespace"] == large
        assert (found[large]["entries"], found[small]["entries"]) == (40, 1)
        assert found[large]["bytes"] > 40 * 99
        assert (said["others"], said["complete"], said["prefix"]) == (0, True, "llm")

    def test_a_table_that_no_name_can_break(self, valkey: Server, called: Called):
        fill(valkey, {(HOSTILE, "q"): entry_of("x"), ("n" * 100, "q"): entry_of("x")})
        code, out, _ = called("ls", "--url", valkey.url)
        assert code == 0
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "[b]" in out
        assert f"(a long name) {encode_name('n' * 100)}" in out
        code, out, _ = called("ls", "--url", valkey.url, "--namespace", HOSTILE)
        assert "1 entry" in out
        assert "\x1b" not in out

    def test_another_prefix_is_another_cache(self, valkey: Server, namespace: str, called: Called):
        fill(valkey, {("of-llm", "q"): entry_of("x")})
        fill(valkey, {(namespace, "q"): entry_of("x")}, prefix="p*")
        _, out, _ = called("ls", "--url", valkey.url, "--prefix", "p*", "--json")
        assert [one["namespace"] for one in json.loads(out)["namespaces"]] == [namespace]
        _, out, _ = called("ls", "--url", valkey.url, "--prefix", "nobody-s")
        assert out.startswith("No namespaces under the prefix 'nobody-s' at unix://")

    def test_what_others_have_stored_is_no_namespace(self, valkey: Server, called: Called):
        for key in ("llm:{x.0}:log:1", "llm:{x}:log", "llm:{x.00}:log", "llm:{x.99}:log", "llm:{x y.0}:log"):
            valkey.command("SET", key, "1", "EX", "100")
        code, out, _ = called("ls", "--url", valkey.url, "--json")
        assert code == 0
        assert json.loads(out)["namespaces"] == []

    def test_as_many_as_asked_for_and_how_many_more(self, valkey: Server, called: Called):
        fill(valkey, {(f"n{i}", "q"): entry_of("x" * i) for i in range(5)})
        _, out, _ = called("ls", "--url", valkey.url, "--most", "2")
        assert "And 3 more namespaces" in out
        _, out, _ = called("ls", "--url", valkey.url, "--most", "2", "--json")
        said = json.loads(out)
        assert [one["namespace"] for one in said["namespaces"]] == ["n4", "n3"]
        assert said["others"] == 3

    def test_memory_is_bounded_and_what_is_left_out_is_said(
        self, valkey: Server, called: Called, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(listing, "MOST_NAMESPACES", 3)
        fill(valkey, {(f"n{i}", "q"): entry_of("x") for i in range(5)})
        _, out, _ = called("ls", "--url", valkey.url, "--json")
        assert len(json.loads(out)["namespaces"]) == 3
        assert json.loads(out)["complete"] is False
        _, out, _ = called("ls", "--url", valkey.url)
        assert "at least 0 more" in out

    def test_even_where_one_is_configured(self, valkey: Server, called: Called, monkeypatch):
        fill(valkey, {("one", "q"): entry_of("x"), ("two", "q"): entry_of("x")})
        monkeypatch.setenv("LLMCACHE_NAMESPACE", "one")
        monkeypatch.setenv("LLMCACHE_URL", valkey.url)
        assert "listed" in json.loads(called("ls", "--json")[1])
        assert len(json.loads(called("ls", "--namespaces", "--json")[1])["namespaces"]) == 2


class TestEntries:
    def test_everything_but_prompt_and_answer_the_latest_first(
        self, server: Server | Cluster, namespace: str, called: Called
    ):
        stale = told(fresh_until=time.time() - 5, stale_for=3600)
        fill(server, {(namespace, "old"): stale, (namespace, "new"): told()})
        where = ("--url", server.url, "--namespace", namespace)
        code, out, err = called("ls", *where, "--json")
        assert (code, err) == (0, "")
        said = json.loads(out)
        assert (said["entries"], said["namespace"], said["tenant"]) == (2, namespace, None)
        new, old = said["listed"]
        digests = [key_of(name, namespace=namespace).digest for name in ("new", "old")]
        assert [new["key"], old["key"]] == [f"llm:resp:{digest}" for digest in digests]
        assert (new["model"], new["answered_by"], new["kind"]) == ("m", "m-2026", "plain")
        assert (new["input_tokens"], new["output_tokens"], new["provider_seconds"]) == (12, 34, 2.5)
        assert new["tags"] == ["doc:7", "v2"]
        assert 100 <= new["age"] < 160
        assert 940 < new["fresh_for"] <= 1000
        assert 1940 < new["ttl"] <= 2000
        assert (new["stale"], old["stale"]) == (False, True)
        assert said["bytes"] == new["bytes"] + old["bytes"]
        _, table, _ = called("ls", *where)
        for text in (digests[0][:12], "stale", "12+34", "2.5s", "doc:7, v2", "plain"):
            assert text in table
        assert digests[0] not in table
        assert "a secret answer" not in out + table

    def test_the_latest_used_and_no_more_than_asked_for(self, valkey: Server, namespace: str, called: Called):
        fill(valkey, {(namespace, str(i)): entry_of("x") for i in range(100)})
        where = ("--url", valkey.url, "--namespace", namespace, "--json")
        assert len(json.loads(called("ls", *where)[1])["listed"]) == 50
        listed = json.loads(called("ls", *where, "--most", "3")[1])["listed"]
        latest = [f"llm:resp:{key_of(str(i), namespace=namespace).digest}" for i in (99, 98, 97)]
        assert [one["key"] for one in listed] == latest

    def test_listing_is_no_use_of_an_entry(self, valkey: Server, namespace: str, called: Called):
        fill(valkey, {(namespace, "a"): entry_of("x"), (namespace, "b"): entry_of("x")})
        log = f"llm:{{{namespace}.0}}:log"
        before = valkey.command("ZRANGE", log, 0, -1, "WITHSCORES")
        called("ls", "--url", valkey.url, "--namespace", namespace)
        assert valkey.command("ZRANGE", log, 0, -1, "WITHSCORES") == before

    def test_large_entries_are_listed_and_void_ones_are_not(
        self, valkey: Server, namespace: str, called: Called
    ):
        async def fill_one() -> None:
            config = CacheConfig(**PATIENT, compress_from=10**9)
            async with ResponseRepository(valkey.url, config=config) as repository:
                await repository.persist(key_of("large", namespace=namespace), entry_of("x" * 500_000))
                await repository.persist(key_of("void", namespace=namespace), told())
                await repository.invalidate(namespace, tags=["doc:7"])

        asyncio.run(fill_one())
        _, out, _ = called("ls", "--url", valkey.url, "--namespace", namespace, "--json")
        assert [one["bytes"] > 500_000 for one in json.loads(out)["listed"]] == [True]

    def test_a_tenant_s_own(self, valkey: Server, called: Called):
        async def fill_one() -> None:
            cache = ResponseCache.from_url(valkey.url, secret="s", tenant="alice", **PATIENT)
            async with cache:
                await InferenceGateway(_answer, cache).resolve("q")

        asyncio.run(fill_one())
        where = ("--url", valkey.url, "--secret", "s", "--tenant")
        code, out, _ = called("ls", *where, "alice")
        assert (code, "Tenant 'alice' of 'default'" in out, "1 entry" in out) == (0, True, True)
        assert "0 entries" in called("ls", *where, "bob")[1]

    def test_a_namespace_that_is_not_there_is_empty(self, valkey: Server, namespace: str, called: Called):
        code, out, _ = called("ls", "--url", valkey.url, "--namespace", namespace)
        assert (code, "0 entries, 0 B at most." in out) == (0, True)


@pytest.mark.parametrize("more", [(), ("--namespace", "x")])
def test_a_server_that_is_away_is_said_in_a_sentence(called: Called, more: tuple[str, ...]):
    code, out, err = called("ls", "--url", "redis://:hush@127.0.0.1:1", "--json", *more)
    assert code == 2
    assert json.loads(out)["error"]["type"] == "RepositoryUnavailable"
    assert len(err.splitlines()) == 1
    assert "hush" not in out + err


@pytest.mark.parametrize("options", [("--most", "0"), ("--most", "x"), ("--namespace", ""), ("--tenant", "")])
def test_wrong_usage(called: Called, options: tuple[str, ...]):
    assert called("ls", "--url", "redis://127.0.0.1:1", *options)[0] == 2


@given(name=st.text(min_size=1))
def test_a_name_comes_back_from_the_keys_unless_it_is_too_long(name: str):
    spelled = encode_name(name)
    assert decode_name(spelled) in (name, None)
    assert (decode_name(spelled) is None) == spelled.startswith("%-")
    found = books_matcher("p").fullmatch(f"p:{{{spelled}.63}}:size")
    assert found is not None
    assert (found["namespace"], found["bucket"]) == (spelled, "63")


@given(spelled=st.text(alphabet="%-~aF09.", min_size=1, max_size=12))
def test_what_no_name_is_spelled_as_has_none(spelled: str):
    name = decode_name(spelled)
    assert name is None or encode_name(name) == spelled


async def _answer(_query: Any) -> str:
    return "x"
