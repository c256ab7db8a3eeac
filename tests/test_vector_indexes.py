"""Every index finds the same stored questions, of one scope and embedder only, while their answers live."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import redis.asyncio as aioredis
from entries import entry_of, key_of
from faultproxy import FaultProxy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Cluster, valkey_server
from waiting import wait_until_async

from llmcache_plugins import CacheConfig, ConfigError, RepositoryUnavailable, ResponseRepository
from llmcache_plugins.budget import Budget
from llmcache_plugins.keys import embedder_id
from llmcache_plugins.models import Provenance
from llmcache_plugins.semantic.indexes import (
    Neighbour,
    NumpyIndex,
    ServerIndex,
    VectorIndex,
    check_index_name,
    choose,
    numpy_index,
)
from llmcache_plugins.semantic.indexes.block import Block

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from servers import Server

DIM = 8
KINDS = ("numpy-valkey", "numpy-cluster", "numpy-searching", "hnsw-searching", "flat-searching")
SCOPES = [f"{number:064x}" for number in range(4)]
HOSTILE = [
    "",
    "*",
    "a" * 63,
    "A" * 64,
    "a" * 65,
    "a" * 64 + "\n",
    "@s:{*}",
    "} | @s:{*",
    "ü" * 64,
    None,
    b"a" * 64,
]
RNG = np.random.default_rng(20)


def unit(*numbers: float) -> NDArray[np.float32]:
    vector = np.zeros(DIM, dtype=np.float32)
    vector[: len(numbers)] = numbers
    return vector / np.linalg.norm(vector)


def random_units(rows: int, dim: int = DIM) -> NDArray[np.float32]:
    vectors = RNG.standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@dataclass
class Shelf:
    """A repository and an index over it, as one process has them."""

    repository: ResponseRepository
    index: VectorIndex
    namespace: str

    async def persist(self, name: str, **how: Any) -> str:
        """Store an answer; return its fence."""
        provenance = Provenance(tags=how.pop("tags", ()))
        key = key_of(name, namespace=self.namespace)
        commit = await self.repository.persist(key, entry_of("x", provenance=provenance), **how)
        return commit.detail

    async def add(
        self, name: str, vector: Any, *, scope: str = SCOPES[0], fence: str | None = None, **how: Any
    ) -> bool:
        """Store an answer and its question, whose text is its name."""
        fence = fence if fence is not None else await self.persist(name, **how)
        key = key_of(name, namespace=self.namespace)
        return await self.index.add(
            key, fence=fence, scope=scope, vector=vector, text=name, canonical=name.casefold()
        )

    async def nearest(
        self, vector: Any, *, scope: str = SCOPES[0], k: int = 5, at_least: float = -1.0
    ) -> list[Neighbour]:
        return await self.index.nearest(self.namespace, scope, vector, k=k, at_least=at_least)

    async def same(self, scope: str, canonical: str) -> str | None:
        found = await self.index.same_text(self.namespace, scope, canonical)
        if found is None:
            return None
        assert found.similarity == 1.0
        assert isinstance(found.text, str)
        return found.digest

    async def texts(self, vector: Any, **how: Any) -> list[str]:
        return [one.text for one in await self.nearest(vector, **how)]

    async def served(self, vector: Any, **how: Any) -> list[str]:
        """Return the texts of those whose answer there is, as a caller does who never trusts an index."""
        found = []
        for one in await self.nearest(vector, **how):
            key = key_of(one.text, namespace=self.namespace)
            assert one.digest == key.digest
            if await self.repository.fetch(key) is None:
                await self.index.forget(key)
            else:
                found.append(one.text)
        return found


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def index_of(
    kind: str, repository: ResponseRepository, *, embedder: str = "e", dim: int = DIM
) -> VectorIndex:
    name = kind.partition("-")[0]
    if name == "numpy":
        return NumpyIndex(repository.vectors, embedder=embedder, dim=dim)
    return ServerIndex(repository.vectors, embedder=embedder, dim=dim, algorithm=name)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def opened(
    url: str,
    kind: str,
    *,
    namespace: str,
    embedder: str = "e",
    dim: int = DIM,
    clock: Clock | None = None,
    **settings: Any,
) -> AsyncIterator[Shelf]:
    config = CacheConfig(namespace=namespace, **{"socket_timeout": 10.0, **settings})
    async with ResponseRepository(url, config=config) as repository:
        index = index_of(kind, repository, embedder=embedder, dim=dim)
        if clock is not None:
            index = NumpyIndex(repository.vectors, embedder=embedder, dim=dim, clock=clock)
        try:
            yield Shelf(repository, index, namespace)
        finally:
            await index.aclose()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(kind: str, request: pytest.FixtureRequest) -> Server | Cluster:
    return request.getfixturevalue(kind.partition("-")[2])


@pytest.fixture
async def shelf(server: Server | Cluster, kind: str, namespace: str) -> AsyncIterator[Shelf]:
    async with opened(server.url, kind, namespace=namespace) as shelf:
        yield shelf


@pytest.fixture
def open_shelf(server: Server | Cluster, kind: str, namespace: str) -> Callable[..., Any]:
    """Return what opens another shelf on the same server: another process would be no different."""
    return functools.partial(opened, server.url, kind, namespace=namespace)


def redis_keys(server: Server | Cluster, pattern: str) -> list[str]:
    return [key.decode() for node in server.nodes for key in node.command("KEYS", pattern)]


def vector_keys(server: Server | Cluster, namespace: str) -> list[str]:
    return redis_keys(server, f"llm:{{{namespace}.*:vec:*")


def members(server: Server | Cluster, namespace: str) -> int:
    sets = redis_keys(server, f"llm:{{{namespace}.*:vectors")
    owner = server.node_of if isinstance(server, Cluster) else lambda _: server
    return sum(owner(key).command("ZCARD", key) for key in sets)


class TestSearch:
    async def test_the_most_similar_come_first_and_no_more_than_were_asked_for(self, shelf: Shelf):
        for name, vector in {"same": [1], "near": [1, 0.2], "far": [1, 2], "opposite": [-1]}.items():
            assert await shelf.add(name, unit(*vector))
        found = await shelf.nearest(unit(1))
        assert [one.text for one in found] == ["same", "near", "far", "opposite"]
        expected = [1.0, 1 / np.sqrt(1.04), 1 / np.sqrt(5), -1.0]
        assert [one.similarity for one in found] == pytest.approx(expected, abs=2e-6)
        assert found[0].digest == key_of("same", namespace=shelf.namespace).digest
        assert await shelf.texts(unit(1), k=2) == ["same", "near"]
        assert await shelf.texts(unit(1), at_least=0.9) == ["same", "near"]
        assert await shelf.texts(unit(1), at_least=1.0) == ["same"]

    async def test_nothing_is_found_where_nothing_is(self, shelf: Shelf):
        assert await shelf.nearest(unit(1)) == []
        assert await shelf.index.same_text(shelf.namespace, SCOPES[0], "x") is None
        assert await shelf.index.count(shelf.namespace) == 0
        await shelf.index.forget(key_of("x", namespace=shelf.namespace))

    async def test_a_vector_of_any_length_is_a_direction(self, shelf: Shelf):
        await shelf.add("long", unit(1, 2) * 1e30)
        await shelf.add("short", unit(2, 1).astype(np.float64) * 1e-30)
        assert await shelf.texts(unit(1, 2) * 7, at_least=0.999) == ["long"]
        assert await shelf.texts([2, 1, 0, 0, 0, 0, 0, 0], at_least=0.999) == ["short"]

    async def test_all_indexes_find_the_same(self, shelf: Shelf, kind: str):
        """FLAT and numpy compare with every vector; HNSW finds at least 95% of the ten nearest."""
        rows = 1500
        vectors = random_units(rows)
        scopes = [SCOPES[i % 2] for i in range(rows)]
        await asyncio.gather(*(shelf.add(str(i), vectors[i], scope=scopes[i]) for i in range(rows)))
        assert await shelf.index.count(shelf.namespace) == rows
        hits = 0
        for number, asked in enumerate(random_units(40)):
            similarities = vectors.astype(np.float64) @ asked
            similarities[(number + 1) % 2 :: 2] = -2.0  # the other scope's
            best = np.argsort(-similarities)[:10]
            found = await shelf.nearest(asked, scope=SCOPES[number % 2], k=10)
            if kind.startswith("hnsw"):
                hits += len({int(one.text) for one in found} & set(best.tolist()))
            else:
                assert [one.similarity for one in found] == pytest.approx(similarities[best], abs=2e-6)
                hits += 10
        assert hits >= 0.95 * 400

    async def test_a_question_of_the_same_text_is_found_without_a_vector(self, shelf: Shelf):
        await shelf.add("What Is It?", unit(1))
        odd = "ü \ud800 \0 * | } @s:{*}"
        assert await shelf.index.add(
            key_of("odd", namespace=shelf.namespace),
            fence=await shelf.persist("odd"),
            scope=SCOPES[0],
            vector=unit(0, 1),
            text=odd,
            canonical=odd,
        )
        assert await shelf.texts(unit(0, 1), at_least=0.5) == [odd]
        same_text = shelf.same
        digest = key_of("What Is It?", namespace=shelf.namespace).digest
        assert await same_text(SCOPES[0], "what is it?") == digest
        assert await same_text(SCOPES[0], odd) == key_of("odd", namespace=shelf.namespace).digest
        assert await same_text(SCOPES[1], "what is it?") is None
        for text in ("", "*", "what", "What Is It?"):
            assert await same_text(SCOPES[0], text) is None

    async def test_one_of_two_with_the_same_text_is_found_when_the_other_has_gone(self, shelf: Shelf):
        for name in ("a", "A"):
            await shelf.add(name, unit(1))
            assert await shelf.index.same_text(shelf.namespace, SCOPES[0], "a")
        for name, left in (("A", "a"), ("a", None)):
            key = key_of(name, namespace=shelf.namespace)
            await shelf.repository.delete(key)
            await shelf.index.forget(key)
            digest = key_of(left, namespace=shelf.namespace).digest if left else None
            assert await shelf.same(SCOPES[0], "a") == digest

    async def test_text_and_vector_may_be_replaced(self, shelf: Shelf):
        fence = await shelf.persist("a")
        key = key_of("a", namespace=shelf.namespace)
        for scope, text, vector in (
            (SCOPES[0], "a", unit(1)),
            (SCOPES[0], "b", unit(0, 1)),
            (SCOPES[1], "b", unit(1)),
        ):
            assert await shelf.index.add(
                key, fence=fence, scope=scope, vector=vector, text=text, canonical=text
            )
            assert await shelf.texts(vector, scope=scope, at_least=0.5) == [text]
        assert await shelf.nearest(unit(1)) == []
        assert await shelf.index.same_text(shelf.namespace, SCOPES[1], "a") is None
        assert await shelf.index.count(shelf.namespace) == 1

    async def test_a_namespace_is_searched_alone(self, shelf: Shelf):
        await shelf.add("a", unit(1))
        for other in (f"{shelf.namespace}.0", f"{shelf.namespace}*", "*", shelf.namespace[:-1]):
            assert await shelf.index.nearest(other, SCOPES[0], unit(1), k=5, at_least=-1) == []
            assert await shelf.index.count(other) == 0
            await shelf.index.drop(other)


class TestScope:
    @settings(
        deadline=None,
        max_examples=15,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        rows=st.lists(
            st.tuples(
                st.sampled_from(SCOPES),
                st.lists(st.floats(-1, 1, width=32), min_size=DIM, max_size=DIM).filter(any),
            ),
            min_size=1,
            max_size=12,
        ),
        asked=st.sampled_from(SCOPES),
    )
    async def test_no_vector_of_another_scope_is_ever_found(
        self, shelf: Shelf, rows: list[tuple[str, list[float]]], asked: str
    ):
        await shelf.repository.clear()
        await shelf.index.drop(shelf.namespace)
        own = []
        for number, (scope, vector) in enumerate(rows):
            # Every second one has the same text, and the same vector: only the scope tells them apart.
            name, canonical = f"{number} {scope}", "the same"
            key = key_of(name, namespace=shelf.namespace)
            fence = await shelf.persist(name)
            vector = vector if number % 2 else rows[0][1]
            assert await shelf.index.add(
                key, fence=fence, scope=scope, vector=np.array(vector), text=name, canonical=canonical
            )
            own += [name] if scope == asked else []
        for _, vector in rows:
            found = await shelf.texts(np.array(vector), scope=asked, k=20)
            assert sorted(found) == sorted(own)
        same = await shelf.same(asked, "the same")
        assert same in {key_of(name, namespace=shelf.namespace).digest for name in own} or (
            not own and same is None
        )

    @pytest.mark.parametrize("scope", HOSTILE)
    async def test_what_is_no_digest_is_no_scope(self, shelf: Shelf, scope: Any):
        await shelf.add("a", unit(1))
        fence = await shelf.persist("b")
        key = key_of("b", namespace=shelf.namespace)
        for call in (
            shelf.index.nearest(shelf.namespace, scope, unit(1), k=1, at_least=-1),
            shelf.index.same_text(shelf.namespace, scope, "a"),
            shelf.index.add(key, fence=fence, scope=scope, vector=unit(1), text="b", canonical="b"),
            shelf.repository.vectors.search(
                shelf.namespace, embedder=embedder_id("e", dim=DIM), scope=scope, vector=b"", k=1
            ),
            shelf.repository.vectors.search_canonical(
                shelf.namespace, embedder=embedder_id("e", dim=DIM), scope=scope, canonical="0" * 64
            ),
        ):
            with pytest.raises(ConfigError, match="64 lowercase hexadecimal"):
                await call
        assert await shelf.index.count(shelf.namespace) == 1

    @pytest.mark.parametrize("embedder", ["", "*", "e", "a" * 11, "A" * 12, "s TAG v_aaaaaaaaaaaa"])
    async def test_what_is_no_embedder_is_no_field(self, shelf: Shelf, embedder: str):
        with pytest.raises(ConfigError, match="embedder"):
            await shelf.repository.vectors.changes(shelf.namespace, embedder=embedder)


class TestBadVectors:
    @pytest.mark.parametrize(
        ("vector", "said"),
        [
            (np.zeros(DIM), "zeros"),
            (np.full(DIM, np.nan), "NaN"),
            (np.array([np.inf, *[0.0] * (DIM - 1)]), "NaN or infinity"),
            (np.ones(DIM - 1), "shape"),
            (np.ones(DIM + 1), "shape"),
            (np.ones((1, DIM)), "shape"),
            (np.float32(1), "shape"),
            ([], "shape"),
            ("text", "numbers"),
            (None, "shape"),
            ([object()] * DIM, "numbers"),
            ([[1.0], [1.0, 2.0]], "numbers"),
        ],
    )
    async def test_a_vector_that_cannot_be_one_is_refused(self, shelf: Shelf, vector: Any, said: str):
        with pytest.raises(ConfigError, match=said):
            await shelf.add("a", vector)
        with pytest.raises(ConfigError, match=said):
            await shelf.nearest(vector)
        assert await shelf.index.count(shelf.namespace) == 0

    @pytest.mark.parametrize(
        "how", [{"k": 0}, {"k": True}, {"k": 1.5}, {"at_least": float("nan")}, {"at_least": "1"}]
    )
    async def test_a_search_that_cannot_be_meant_is_refused(self, shelf: Shelf, how: dict[str, Any]):
        with pytest.raises(ConfigError):
            await shelf.nearest(unit(1), **how)


class TestLifeAndDeath:
    async def test_a_vector_is_attached_only_to_the_answer_it_was_made_for(
        self, shelf: Shelf, server: Server | Cluster
    ):
        old = await shelf.persist("a")
        new = await shelf.persist("a")
        assert await shelf.add("a", unit(1), fence=old) is False
        assert await shelf.add("gone", unit(1), fence=new) is False
        assert await shelf.add("a", unit(1), fence="") is False
        assert vector_keys(server, shelf.namespace) == []
        assert await shelf.nearest(unit(1)) == []
        for _ in range(2):
            assert await shelf.add("a", unit(1), fence=new) is True
        assert await shelf.index.count(shelf.namespace) == 1

    async def test_it_expires_with_its_answer(self, shelf: Shelf, server: Server | Cluster):
        await shelf.add("stays", unit(1))
        assert await shelf.add("short", unit(1), ttl=2.0)

        async def is_gone() -> bool:
            return await shelf.texts(unit(1)) == ["stays"]

        await wait_until_async(is_gone, description="the vector expires")
        await wait_until_async(lambda: _counts(shelf, 1), description="the server has taken it out")
        ttls = [server.command("PTTL", key) for key in vector_keys(server, shelf.namespace)]
        assert len(ttls) == 1
        assert 3_590_000 < ttls[0] <= 3_600_000

    async def test_it_lives_as_long_as_an_answer_that_replaces_the_first(
        self, shelf: Shelf, server: Server | Cluster
    ):
        await shelf.add("a", unit(1), ttl=60)
        for ttl in (4000, 30):
            await shelf.persist("a", ttl=ttl)
            (key,) = vector_keys(server, shelf.namespace)
            assert (ttl - 10) * 1000 < server.command("PTTL", key) <= ttl * 1000

    @pytest.mark.parametrize("how", ["delete", "tag", "evict", "clear", "expire"])
    async def test_it_goes_when_its_answer_goes(self, shelf: Shelf, server: Server | Cluster, how: str):
        await shelf.add("a", unit(1), tags=("doc",))
        assert await shelf.served(unit(1)) == ["a"]
        key = key_of("a", namespace=shelf.namespace)
        repository = shelf.repository
        if how == "delete":
            await repository.delete(key)
        elif how == "tag":
            await repository.invalidate(tags=["doc"])
        elif how == "evict":
            await repository.evict_stale(max_keys=0)
        elif how == "clear":
            await repository.clear()
        else:
            server.command("DEL", repository.redis_key(key))
        # Until somebody meets it, it may be a candidate; it is served to nobody.
        assert await shelf.served(unit(1)) == []
        assert await shelf.nearest(unit(1)) == []
        assert vector_keys(server, shelf.namespace) == []
        assert members(server, shelf.namespace) == 0
        assert await shelf.index.count(shelf.namespace) == 0

    async def test_an_answer_that_came_again_keeps_its_vector(self, shelf: Shelf):
        await shelf.add("a", unit(1))
        await shelf.persist("a")
        await shelf.index.forget(key_of("a", namespace=shelf.namespace))
        assert await shelf.served(unit(1)) == ["a"]

    async def test_bounds_take_vectors_with_their_answers(
        self, open_shelf: Callable[..., Any], server: Server | Cluster, namespace: str
    ):
        async with open_shelf(max_entries=128) as shelf:
            for first in range(0, 400, 100):
                await asyncio.gather(*(shelf.add(str(i), unit(1, i)) for i in range(first, first + 100)))
            entries = redis_keys(server, f"llm:{{{namespace}.*:resp:*")
            assert len(entries) <= 128
            vectors = {key.replace(":vec:", ":resp:") for key in vector_keys(server, namespace)}
            assert vectors == set(entries)
            assert members(server, namespace) == len(entries)

    async def test_clear_takes_vectors_whose_answers_have_gone(self, shelf: Shelf, server: Server | Cluster):
        other = Shelf(shelf.repository, shelf.index, f"{shelf.namespace}.0")
        for one in (shelf, other):
            for i in range(30):
                await one.add(str(i), unit(1, i))
        for i in range(10):
            server.command("DEL", shelf.repository.redis_key(key_of(str(i), namespace=shelf.namespace)))
        assert await shelf.repository.clear() == 20
        left = {
            key.rpartition("}:")[2].partition(":")[0]
            for key in redis_keys(server, f"llm:{{{shelf.namespace}.*")
        }
        assert left == {"marks", "epoch", "resp", "vec", "vectors", "log", "size"}
        own = [
            key
            for key in redis_keys(server, f"llm:{{{shelf.namespace}.*")
            if not key.startswith(f"llm:{{{other.namespace}.")
        ]
        assert {key.rpartition("}:")[2] for key in own} == {"marks", "epoch"}
        assert len(await other.nearest(unit(1), k=30)) == 30

    async def test_what_expires_does_not_pile_up_among_the_mentions(
        self, shelf: Shelf, server: Server | Cluster
    ):
        if isinstance(server, Cluster):
            pytest.skip("one bucket is like another, and sixty-four take long to fill")
        await asyncio.gather(*(shelf.add(f"short {i}", unit(1, i), ttl=0.2) for i in range(200)))
        await wait_until_async(
            lambda: not vector_keys(server, shelf.namespace), description="the first have expired"
        )
        await asyncio.gather(*(shelf.add(f"long {i}", unit(1, i)) for i in range(300)))
        assert members(server, shelf.namespace) < 350

    async def test_every_key_has_a_ttl_that_covers_what_it_is_for(
        self, shelf: Shelf, server: Server | Cluster
    ):
        await shelf.add("short", unit(1), ttl=5)
        await shelf.add("long", unit(1), ttl=5000)
        sets = redis_keys(server, f"llm:{{{shelf.namespace}.*:vectors")
        owner = server.node_of if isinstance(server, Cluster) else lambda _: server
        assert max(owner(key).command("PTTL", key) for key in sets) >= 5_000_000
        for key in [*sets, *vector_keys(server, shelf.namespace)]:
            assert owner(key).command("PTTL", key) > 0


class TestSeveralProcesses:
    async def test_what_one_adds_the_other_finds_within_a_second(self, open_shelf: Callable[..., Any]):
        async with open_shelf() as one, open_shelf() as other:
            await one.add("before", unit(1))
            assert await wait_for_texts(other, ["before"]) < 1.0
            for number in range(4):
                await one.add(f"after {number}", unit(0, 1))
                expected = [f"after {i}" for i in range(number + 1)]
                took = await wait_for_texts(other, expected, vector=unit(0, 1), at_least=0.5)
                assert took < 1.0, f"found after {took:.2f} s"

    async def test_models_are_never_mixed(self, open_shelf: Callable[..., Any], namespace: str):
        wide = 2 * DIM
        async with (
            open_shelf(embedder="one") as one,
            open_shelf(embedder="two") as two,
            open_shelf(embedder="one", dim=wide) as three,
        ):
            await one.add("a", unit(1))
            await two.add("b", unit(1))
            await three.add("c", np.ones(wide))
            # The same question, seen by two models: each has its own vector of it.
            fence = await one.persist("both")
            await one.add("both", unit(1), fence=fence)
            await two.add("both", unit(-1), fence=fence)
            for shelf, own in ((one, ["a", "both"]), (two, ["b", "both"]), (three, ["c"])):
                vector = unit(1) if shelf is not three else np.ones(wide)
                await wait_for_texts(shelf, own, vector=vector)
            assert {n.text: n.similarity for n in await two.nearest(unit(1))} == {"b": 1.0, "both": -1.0}

    async def test_dropping_an_index_loses_no_answer_and_no_vector(self, shelf: Shelf):
        for i in range(20):
            await shelf.add(str(i), unit(1, i))
        for _ in range(2):
            await shelf.index.drop(shelf.namespace)
        await wait_for_texts(shelf, [str(i) for i in range(20)], k=50)
        assert all(
            await shelf.repository.fetch_many([key_of(str(i), namespace=shelf.namespace) for i in range(20)])
        )

    async def test_tasks_and_processes_may_begin_at_once(self, open_shelf: Callable[..., Any]):
        async with contextlib.AsyncExitStack() as stack:
            shelves = [await stack.enter_async_context(open_shelf()) for _ in range(8)]
            adding = [shelf.add(str(i), unit(1, i)) for i, shelf in enumerate(shelves)]
            searching = [shelf.nearest(unit(1)) for shelf in shelves for _ in range(3)]
            assert all(done is not False for done in await asyncio.gather(*adding, *searching))
            for shelf in shelves:
                await wait_for_texts(shelf, [str(i) for i in range(8)], k=20)

    async def test_a_client_that_decodes_is_no_hindrance(
        self, kind: str, server: Server | Cluster, namespace: str
    ):
        if isinstance(server, Cluster):
            from redis.asyncio.cluster import RedisCluster

            url = server.url.replace("redis+cluster", "redis")
            client: Any = RedisCluster.from_url(url, decode_responses=True)
        else:
            client = aioredis.Redis.from_url(server.url, decode_responses=True, protocol=2)
        async with (
            client,
            ResponseRepository(client=client, config=CacheConfig(namespace=namespace)) as repository,
        ):
            shelf = Shelf(repository, index_of(kind, repository), namespace)
            for i in range(5):
                await shelf.add(f"ü{i}", unit(1, i))
            await shelf.index.drop(namespace)
            await wait_for_texts(shelf, [f"ü{i}" for i in range(5)])
            assert await shelf.index.same_text(namespace, SCOPES[0], "ü3")
            await shelf.index.aclose()


async def wait_for_texts(shelf: Shelf, expected: list[str], *, vector: Any = None, **how: Any) -> float:
    """Wait until exactly these are found; return how long that took (seconds)."""
    began = time.monotonic()
    vector = unit(1) if vector is None else vector

    async def found() -> bool:
        return sorted(await shelf.texts(vector, **how)) == sorted(expected)

    await wait_until_async(found, description=f"{expected} are found")
    return time.monotonic() - began


class TestFaults:
    async def test_foreign_bytes_are_no_candidates_and_no_error(self, shelf: Shelf, server: Server | Cluster):
        await shelf.add("good", unit(1))
        field_name = f"v_{embedder_id('e', dim=DIM)}"
        good = unit(1).tobytes()
        whole = {"s": SCOPES[0], "c": "0" * 64, "t": "bad", "f": "1", field_name: good}
        odd: list[dict[str, Any]] = [
            {field_name: good[:-1]},
            {field_name: b""},
            {field_name: b"\xff" * len(good)},
            {field_name: bytes(len(good))},
            {field_name: unit(1).astype("f8").tobytes()},
            {"s": "x" * 64},
            {"s": ""},
            {"t": b"\xff\xfe"},
        ]
        owner = server.node_of if isinstance(server, Cluster) else lambda _: server
        for number, change in enumerate(odd):
            key = key_of(str(number), namespace=shelf.namespace)
            entry = shelf.repository.redis_key(key)
            name, root = entry.replace(":resp:", ":vec:"), entry[: entry.index("}:") + 2]
            fields = [part for pair in {**whole, **change}.items() for part in pair]
            owner(name).command("HSET", name, *fields)
            owner(name).command("PEXPIRE", name, 60_000)
            owner(name).command("ZADD", f"{root}vectors", 10**15 + number, key.digest)
            owner(name).command("PEXPIRE", f"{root}vectors", 60_000)
        lists = shelf.repository.redis_key(key_of("list", namespace=shelf.namespace)).replace(
            ":resp:", ":vec:"
        )
        server.command("RPUSH", lists, "x")
        server.command("PEXPIRE", lists, 60_000)
        await shelf.index.drop(shelf.namespace)
        await wait_for_texts(shelf, ["good"], at_least=0.5)
        assert await shelf.add("list", unit(1))
        await wait_for_texts(shelf, ["good", "list"], at_least=0.5)

    async def test_a_server_that_is_away_is_said_to_be_and_waited_for_no_longer_than_a_command(
        self, open_shelf: Callable[..., Any], server: Server | Cluster
    ):
        async with open_shelf(socket_timeout=0.5, connect_timeout=0.5) as shelf:
            await shelf.add("a", unit(1))
            assert await shelf.texts(unit(1)) == ["a"]
            server.pause()
            try:
                with pytest.raises(RepositoryUnavailable):
                    await shelf.add("a", unit(1), fence="0" * 16)
                began = time.monotonic()
                with contextlib.suppress(RepositoryUnavailable):
                    await shelf.nearest(unit(1))
                assert time.monotonic() - began < 3
            finally:
                server.resume()
            await wait_until_async(lambda: _finds(shelf, ["a"]), description="it answers again", timeout=10)

    async def test_a_budget_is_kept(self, valkey: Server, namespace: str):
        async with FaultProxy(valkey.url) as proxy, opened(proxy.url, "numpy", namespace=namespace) as shelf:
            fence = await shelf.persist("a")
            proxy.delay = 2.0
            vectors, key = shelf.repository.vectors, key_of("a", namespace=namespace)
            how = {"scope": SCOPES[0], "text": "a", "canonical": "0" * 64, "vector": b"", "fence": fence}
            embedder = embedder_id("e", dim=DIM)
            calls: list[Callable[[], Any]] = [
                lambda: vectors.attach(key, embedder=embedder, budget=Budget(0.05), **how),  # type: ignore[arg-type]
                lambda: vectors.changes(namespace, embedder=embedder, budget=Budget(0.05)),
                lambda: vectors.alive(namespace, [key.digest], budget=Budget(0.05)),
                lambda: vectors.detach(key, budget=Budget(0.05)),
                lambda: vectors.unable_to_search(budget=Budget(0.05)),
            ]
            for call in calls:
                began = time.monotonic()
                with pytest.raises(RepositoryUnavailable, match="budget"):
                    await call()
                assert time.monotonic() - began < 1.5
            proxy.delay = 0.0

    async def test_a_caller_that_is_cancelled_disturbs_nobody(self, shelf: Shelf):
        await shelf.add("a", unit(1))
        await shelf.index.drop(shelf.namespace)
        searches = [asyncio.ensure_future(shelf.texts(unit(1))) for _ in range(6)]
        await asyncio.sleep(0)
        for search in searches[::2]:
            search.cancel()
        replies = await asyncio.gather(*searches, return_exceptions=True)
        assert not [reply for reply in replies[1::2] if isinstance(reply, BaseException)]
        await wait_for_texts(shelf, ["a"])


async def _finds(shelf: Shelf, expected: list[str]) -> bool:
    try:
        return await shelf.texts(unit(1)) == expected
    except RepositoryUnavailable:
        return False


class TestMirror:
    """What is true of the index in the process alone."""

    @pytest.fixture
    async def shelf(self, valkey: Server, namespace: str) -> AsyncIterator[Shelf]:
        async with opened(valkey.url, "numpy", namespace=namespace) as shelf:
            yield shelf

    async def test_searches_of_one_moment_read_the_repository_once(
        self, valkey: Server, namespace: str, clock: Clock
    ):
        async with opened(valkey.url, "numpy", namespace=namespace, clock=clock) as shelf:
            await shelf.add("a", unit(1))
            await shelf.nearest(unit(1))
            valkey.command("CONFIG", "RESETSTAT")
            clock.now += numpy_index.READ_EVERY
            for _ in range(2):
                assert all(await asyncio.gather(*(shelf.nearest(unit(1)) for _ in range(100))))
            calls = valkey.command("INFO", "commandstats")
            assert calls["cmdstat_evalsha"]["calls"] == 1
            assert "cmdstat_hmget" not in calls

    async def test_an_index_that_nobody_asks_reads_nothing(
        self, valkey: Server, namespace: str, clock: Clock
    ):
        async with opened(valkey.url, "numpy", namespace=namespace, clock=clock) as shelf:
            await shelf.add("a", unit(1))
            before = asyncio.all_tasks()
            await shelf.index.count(namespace)
            valkey.command("CONFIG", "RESETSTAT")
            clock.now += 3600
            await asyncio.sleep(0)
            assert "cmdstat_evalsha" not in valkey.command("INFO", "commandstats")
            assert asyncio.all_tasks() <= before

    async def test_a_search_does_not_wait_for_a_slow_server(
        self, valkey: Server, namespace: str, clock: Clock
    ):
        async with (
            FaultProxy(valkey.url) as proxy,
            opened(proxy.url, "numpy", namespace=namespace, clock=clock) as shelf,
        ):
            await shelf.add("a", unit(1))
            assert await shelf.texts(unit(1)) == ["a"]
            proxy.delay = 2.0
            clock.now += numpy_index.READ_EVERY
            began = time.monotonic()
            assert await shelf.texts(unit(1)) == ["a"]
            assert time.monotonic() - began < 1.5
            proxy.delay = 0.0

    async def test_all_pages_are_read(
        self, shelf: Shelf, valkey: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(numpy_index, "_PAGE_BYTES", 7 * (4 * DIM + 512))
        await asyncio.gather(*(shelf.add(str(i), unit(1, i)) for i in range(100)))
        async with opened(valkey.url, "numpy", namespace=namespace) as other:
            assert await other.index.count(namespace) == 100

    async def test_rows_whose_answers_have_gone_are_found_out(
        self, shelf: Shelf, valkey: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(numpy_index, "LOOK_OVER_EVERY", 0.0)
        monkeypatch.setattr(numpy_index, "READ_EVERY", 0.0)
        for i in range(20):
            await shelf.add(str(i), unit(1, i))
        assert await shelf.index.count(namespace) == 20
        for i in range(10):
            valkey.command("DEL", shelf.repository.redis_key(key_of(str(i), namespace=namespace)))
        await wait_until_async(lambda: _counts(shelf, 10), description="the gone are noticed")
        assert len(vector_keys(valkey, namespace)) == members(valkey, namespace) == 10

    async def test_a_namespace_that_another_process_clears_is_empty_at_the_next_look(
        self, shelf: Shelf, valkey: Server, namespace: str, clock: Clock
    ):
        await asyncio.gather(*(shelf.add(str(i), unit(1, i)) for i in range(2000)))
        async with opened(valkey.url, "numpy", namespace=namespace, clock=clock) as other:
            assert await other.index.count(namespace) == 2000
            await shelf.repository.clear()
            await shelf.add("new", unit(1))
            clock.now += numpy_index.READ_EVERY
            assert await other.index.count(namespace) == 1

    async def test_lost_mentions_come_back(
        self, shelf: Shelf, valkey: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(numpy_index, "LOOK_OVER_EVERY", 0.0)
        monkeypatch.setattr(numpy_index, "READ_EVERY", 0.0)
        for i in range(20):
            await shelf.add(str(i), unit(1, i))
        await shelf.index.count(namespace)
        valkey.command("DEL", f"llm:{{{namespace}.0}}:vectors")
        await shelf.add("new", unit(0, 1))
        await shelf.index.count(namespace)
        async with opened(valkey.url, "numpy", namespace=namespace) as other:
            await wait_until_async(lambda: _counts(other, 21), description="a new mirror finds all")

    async def test_a_clock_that_steps_back_hides_nothing(self, shelf: Shelf, valkey: Server, namespace: str):
        """After a fail-over to a server whose clock is behind, and that had no vectors yet."""
        await shelf.add("a", unit(1))
        await shelf.index.count(namespace)
        mirror = shelf.index._mirror(namespace)  # type: ignore[attr-defined]
        mirror.since = tuple(time + 10**9 for time in mirror.since)
        async with opened(valkey.url, "numpy", namespace=namespace) as other:
            await other.add("b", unit(1))
        await wait_for_texts(shelf, ["a", "b"])

    async def test_and_one_that_steps_back_on_the_same_server_neither(
        self, shelf: Shelf, valkey: Server, namespace: str
    ):
        await shelf.add("a", unit(1))
        digest = key_of("a", namespace=namespace).digest
        valkey.command("ZADD", f"llm:{{{namespace}.0}}:vectors", 4 * 10**15, digest)
        assert await shelf.index.count(namespace) == 1
        async with opened(valkey.url, "numpy", namespace=namespace) as other:
            for name in ("b", "c"):
                await other.add(name, unit(1))
        await wait_for_texts(shelf, ["a", "b", "c"])

    async def test_memory_is_bounded(self, valkey: Server, namespace: str):
        config = CacheConfig(namespace=namespace, socket_timeout=10.0)
        async with ResponseRepository(valkey.url, config=config) as repository:
            index = NumpyIndex(repository.vectors, embedder="e", dim=DIM, max_rows=50)
            shelves = [Shelf(repository, index, f"{namespace}-{i}") for i in range(3)]
            for i in range(120):
                await shelves[0].add(str(i), unit(1, i))
            assert await index.count(shelves[0].namespace) == 50
            assert "119" in await shelves[0].texts(unit(1, 119))
            for i in range(30):
                await shelves[1].add(str(i), unit(1, i))
                await shelves[2].add(str(i), unit(1, i))
            held = index._mirrors.values()
            assert sum(map(len, held)) <= 50
            rooms = [block.room for mirror in held for block in mirror._blocks.values()]
            assert sum(rooms) <= 200
            await index.aclose()

    async def test_each_scope_is_searched_alone(self, shelf: Shelf):
        await asyncio.gather(*(shelf.add(str(i), unit(1, i), scope=f"{i:064x}") for i in range(200)))
        await asyncio.gather(*(shelf.add(f"0 {i}", unit(1, i), scope=f"{0:064x}") for i in range(100)))
        mirror = shelf.index._mirror(shelf.namespace)  # type: ignore[attr-defined]
        sizes = {scope: len(block) for scope, block in mirror._blocks.items()}
        assert sizes == {f"{0:064x}": 101, **{f"{i:064x}": 1 for i in range(1, 200)}}

    async def test_a_large_search_is_done_beside_the_loop_and_right(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ):
        """While rows come, change and go, no digest is given with another's similarity."""
        monkeypatch.setattr(numpy_index, "MOST_NUMBERS_AT_ONCE", 0)
        vectors = {str(i): vector for i, vector in enumerate(random_units(100))}
        await asyncio.gather(*(shelf.add(name, vector) for name, vector in vectors.items()))
        asked = unit(1, 1, 1)
        done = asyncio.Event()

        async def search() -> int:
            count = 0
            while not done.is_set():
                for one in await shelf.nearest(asked, k=200):
                    assert one.similarity == pytest.approx(float(vectors[one.text] @ asked), abs=2e-6)
                count += 1
            return count

        async def change() -> None:
            for i in range(60):
                key = key_of(str(i), namespace=shelf.namespace)
                await shelf.repository.delete(key)
                await shelf.index.forget(key)
                name = f"new {i}"
                vectors[name] = random_units(1)[0]
                await shelf.add(name, vectors[name])
            done.set()

        searching = [asyncio.ensure_future(search()) for _ in range(3)]
        await change()
        assert sum(await asyncio.gather(*searching)) > 10

    async def test_a_row_that_moves_during_a_search_is_not_given_with_another_s_similarity(
        self, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
    ):
        """1. The cosines of rows 0..9 are computed. 2. Row 0 goes, and row 9 takes its place. 3. The best are
        picked: row 0 has the cosine of what was there before."""
        monkeypatch.setattr(numpy_index, "MOST_NUMBERS_AT_ONCE", 0)
        await asyncio.gather(*(shelf.add(str(i), unit(1, i)) for i in range(10)))
        await shelf.index.count(shelf.namespace)
        mirror = shelf.index._mirror(shelf.namespace)  # type: ignore[attr-defined]
        compute, moved = Block.similarities, []

        def and_move(rows: Any, vector: Any) -> Any:
            computed = compute(rows, vector)
            if not moved:
                moved.append(True)
                with mirror.lock:
                    mirror.remove(next(iter(mirror.block(SCOPES[0])._rows)))
            return computed

        monkeypatch.setattr(Block, "similarities", staticmethod(and_move))
        found = await shelf.nearest(unit(1), k=20)
        assert len(found) == 9
        for one in found:
            assert one.similarity == pytest.approx(float(unit(1, int(one.text)) @ unit(1)), abs=2e-6)

    def test_loops_and_threads_share_it(self, valkey: Server, namespace: str):
        repository = ResponseRepository(
            valkey.url, config=CacheConfig(namespace=namespace, socket_timeout=10.0)
        )
        index = NumpyIndex(repository.vectors, embedder="e", dim=DIM)
        shelf = Shelf(repository, index, namespace)
        errors: list[BaseException] = []

        async def work(thread: int) -> None:
            for i in range(30):
                name = f"{thread} {i}"
                await shelf.add(name, unit(thread + 1, i))
                assert name in await shelf.texts(unit(thread + 1, i), k=300, at_least=0.99)
            await repository.aclose()
            await index.aclose()

        def run(thread: int) -> None:
            try:
                for _ in range(2):  # two loops, one after the other
                    asyncio.run(work(thread))
            except BaseException as error:  # noqa: BLE001 - shown in the main thread
                errors.append(error)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

        async def count() -> int:
            counted = await index.count(namespace)
            await index.aclose()
            await repository.aclose()
            return counted

        assert asyncio.run(count()) == 120

    def test_a_fork_begins_with_nothing_and_finds_all(self, valkey: Server, namespace: str):
        program = f"""
            import asyncio, os, sys
            sys.path.insert(0, "tests")
            from test_vector_indexes import CacheConfig, NumpyIndex, ResponseRepository, Shelf, unit

            repository = ResponseRepository({valkey.url!r}, config=CacheConfig(namespace={namespace!r}))
            index = NumpyIndex(repository.vectors, embedder="e", dim=8)
            shelf = Shelf(repository, index, {namespace!r})

            async def parent():
                await shelf.add("a", unit(1))
                assert await shelf.texts(unit(1)) == ["a"]
                await index.aclose()
                await repository.aclose()

            async def child():
                assert await index.count({namespace!r}) == 1
                assert await shelf.add("b", unit(1))
                assert sorted(await shelf.texts(unit(1))) == ["a", "b"]
                await index.aclose()
                await repository.aclose()

            asyncio.run(parent())
            mirror = index._mirror({namespace!r})
            index._lock.acquire(), mirror.lock.acquire()  # as another thread of the parent's may
            if (pid := os.fork()) == 0:
                asyncio.run(child())
                os._exit(0)
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr


async def _counts(shelf: Shelf, expected: int) -> bool:
    return await shelf.index.count(shelf.namespace) == expected


class TestBlock:
    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "put", "remove"]),
                st.integers(0, 8),
                st.sampled_from(["x", "y"]),
                st.integers(0, 5),
            ),
            max_size=60,
        )
    )
    def test_it_holds_what_was_put_and_not_removed(self, steps: list[tuple[str, int, str, int]]):
        block = Block(DIM)
        model: dict[str, tuple[str, NDArray[np.float32]]] = {}
        for what, number, canonical, turn in steps:
            digest = str(number)
            if what == "put":
                vector = unit(1, turn)
                block.put(digest, vector=vector, text=f"{digest} {canonical}", canonical=canonical)
                model[digest] = (canonical, vector)
            elif digest in model:
                block.remove(digest)
                del model[digest]
            assert len(block) == len(model)
            assert block.room <= max(4 * len(model), 1)
            asked = unit(1, 2)
            found = block.best(block.similarities(block.rows(), asked), k=20, at_least=-1)
            assert {one.digest: one.text for one in found} == {
                digest: f"{digest} {canonical}" for digest, (canonical, _) in model.items()
            }
            for one in found:
                assert one.similarity == pytest.approx(float(model[one.digest][1] @ asked), abs=2e-6)
            for canonical in ("x", "y"):
                same = {digest for digest, (theirs, _) in model.items() if theirs == canonical}
                found = block.same(canonical)
                assert (found.digest if found is not None else None) in (same or {None})


def vector_field(*, kind: str = "FLOAT32", dim: int = DIM, metric: str = "COSINE") -> list[Any]:
    """Return the words of FT.CREATE for the vectors; of ours but for what is said."""
    return ["{v}", "VECTOR", "FLAT", 6, "TYPE", kind, "DIM", dim, "DISTANCE_METRIC", metric]


class TestServerIndex:
    """What is true of the server's indexes alone."""

    @pytest.fixture(params=["hnsw", "flat"])
    def algorithm(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    async def shelf(self, searching: Server, algorithm: str, namespace: str) -> AsyncIterator[Shelf]:
        async with opened(searching.url, algorithm, namespace=namespace) as shelf:
            yield shelf

    @staticmethod
    def name_of(namespace: str) -> str:
        return f"llm:{{{namespace}.0}}:index:{embedder_id('e', dim=DIM)}"

    async def test_an_index_that_was_dropped_comes_back(self, shelf: Shelf, searching: Server):
        for i in range(10):
            await shelf.add(str(i), unit(1, i))
        for command in (["FT.DROPINDEX", self.name_of(shelf.namespace)], ["FLUSHALL"]):
            searching.command(*command)
            found = await shelf.texts(unit(1), k=20)
            assert set(found) <= {str(i) for i in range(10)}
            if command[0] == "FLUSHALL":
                assert found == []
                await shelf.add("after", unit(1))
                assert await shelf.texts(unit(1)) == ["after"]
            else:
                await wait_for_texts(shelf, [str(i) for i in range(10)], k=20)

    @pytest.mark.parametrize(
        "schema",
        [
            ["s", "TAG"],
            ["s", "TEXT", "c", "TAG", *vector_field()],
            ["s", "TAG", "c", "TAG", *vector_field(dim=DIM + 1)],
            ["s", "TAG", "c", "TAG", *vector_field(metric="IP")],
            ["s", "TAG", "c", "TAG", *vector_field(kind="FLOAT64")],
            ["s", "TAG", "c", "TAG", "{v}", "TAG"],
        ],
    )
    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_an_index_of_another_schema_is_made_anew(
        self, searching: Server, algorithm: str, namespace: str, schema: list[Any], when: str
    ):
        def spoil() -> None:
            field_name = f"v_{embedder_id('e', dim=DIM)}"
            fields = [field_name if part == "{v}" else part for part in schema]
            over = ["ON", "HASH", "PREFIX", 1, f"llm:{{{namespace}.0}}:vec:"]
            searching.command("FT.CREATE", self.name_of(namespace), *over, "SCHEMA", *fields)

        if when == "before":
            spoil()
        async with opened(searching.url, algorithm, namespace=namespace) as shelf:
            await shelf.add("a", unit(1))
            if when == "after":
                searching.command("FT.DROPINDEX", self.name_of(namespace))
                spoil()
            keys = vector_keys(searching, namespace)
            if when == "after":
                # An index that answers, and wrongly, is found out by the next process that begins.
                async with opened(searching.url, algorithm, namespace=namespace) as other:
                    await wait_for_texts(other, ["a"])
            await wait_for_texts(shelf, ["a"])
            assert [n.similarity for n in await shelf.nearest(unit(1))] == [1.0]
            assert vector_keys(searching, namespace) == keys

    async def test_processes_that_want_different_kinds_both_find(self, searching: Server, namespace: str):
        async with (
            opened(searching.url, "hnsw", namespace=namespace) as one,
            opened(searching.url, "flat", namespace=namespace) as other,
        ):
            for i in range(10):
                await (one if i % 2 else other).add(str(i), unit(1, i))
            for shelf in (one, other):
                await wait_for_texts(shelf, [str(i) for i in range(10)], k=20)

    async def test_eight_processes_make_one_index(self, searching: Server, algorithm: str, namespace: str):
        program = f"""
            import asyncio, sys
            sys.path.insert(0, "tests")
            from test_vector_indexes import opened, unit

            async def main():
                async with opened({searching.url!r}, {algorithm!r}, namespace={namespace!r}) as shelf:
                    sys.stdin.read()
                    assert await shelf.add(sys.argv[1], unit(1, int(sys.argv[1])))
                    assert sys.argv[1] in await shelf.texts(unit(1), k=20)

            asyncio.run(main())
        """
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
        processes = [
            subprocess.Popen(  # noqa: ASYNC220 - nothing else happens on this loop
                [*command, str(i)], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for i in range(8)
        ]
        try:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            for process in processes:
                assert process.wait(60) == 0, process.stderr.read() if process.stderr else ""
        finally:
            for process in processes:
                process.kill()
                process.wait()
                assert process.stderr is not None
                process.stderr.close()
        assert searching.command("FT._LIST").count(self.name_of(namespace).encode()) == 1
        async with opened(searching.url, algorithm, namespace=namespace) as shelf:
            await wait_for_texts(shelf, [str(i) for i in range(8)], k=20)

    async def test_no_name_of_ours_is_logged_when_it_is_missing(
        self, shelf: Shelf, searching: Server, caplog: pytest.LogCaptureFixture
    ):
        await shelf.add("a", unit(1))
        searching.command("FT.DROPINDEX", self.name_of(shelf.namespace))
        with caplog.at_level(logging.DEBUG):
            await wait_for_texts(shelf, ["a"])
        assert shelf.namespace not in caplog.text


class TestChoosing:
    @staticmethod
    @contextlib.asynccontextmanager
    async def vectors(url: str, namespace: str) -> AsyncIterator[Any]:
        config = CacheConfig(namespace=namespace, socket_timeout=10.0)
        async with ResponseRepository(url, config=config) as repository:
            yield repository.vectors

    @pytest.mark.parametrize(
        ("kind", "index", "expected", "said"),
        [
            ("searching", "auto", "hnsw", "hnsw, on the server (the server has FT.SEARCH)"),
            ("searching", "hnsw", "hnsw", "hnsw, on the server (as asked)"),
            ("searching", "flat", "flat", "flat, on the server (as asked)"),
            ("searching", "numpy", "numpy", "numpy, in this process (as asked)"),
            ("valkey", "auto", "numpy", "numpy, in this process (this server has no FT.SEARCH)"),
            ("redis8", "auto", "numpy", "numpy, in this process (this server has no FT.SEARCH)"),
            (
                "cluster",
                "auto",
                "numpy",
                "numpy, in this process (a Cluster has no index over all of its nodes)",
            ),
        ],
    )
    async def test_it_is_said_once_which_index_is_used_and_why(
        self,
        kind: str,
        index: Any,
        expected: str,
        said: str,
        namespace: str,
        request: pytest.FixtureRequest,
        caplog: pytest.LogCaptureFixture,
    ):
        server = request.getfixturevalue(kind)
        with caplog.at_level(logging.INFO):
            async with self.vectors(server.url, namespace) as vectors:
                for _ in range(3):
                    chosen = await choose(vectors, embedder="e", dim=DIM, index=index)
                    assert chosen.name == expected
        assert caplog.messages.count(f"semantic index: {said}") == 1
        if kind == "searching":
            assert server.command("FT._LIST") == []

    @pytest.mark.parametrize("index", ["hnsw", "flat"])
    @pytest.mark.parametrize("kind", ["valkey", "cluster"])
    async def test_what_the_server_cannot_do_is_refused_with_a_way_out(
        self, kind: str, index: Any, namespace: str, request: pytest.FixtureRequest
    ):
        async with self.vectors(request.getfixturevalue(kind).url, namespace) as vectors:
            with pytest.raises(ConfigError, match='use index="numpy"'):
                await choose(vectors, embedder="e", dim=DIM, index=index)

    async def test_another_database_has_no_indexes(self, searching: Server, namespace: str):
        async with self.vectors(f"{searching.tcp_url}/1", namespace) as vectors:
            assert (await choose(vectors, embedder="e", dim=DIM)).name == "numpy"
            assert "database 0" in await vectors.unable_to_search()

    async def test_a_user_without_the_right_gets_the_other(self, searching: Server, namespace: str):
        searching.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-ft.create")
        try:
            url = searching.tcp_url.replace("redis://", "redis://reader:secret@")
            async with self.vectors(url, namespace) as vectors:
                assert (await choose(vectors, embedder="e", dim=DIM)).name == "numpy"
                assert "this user may not" in await vectors.unable_to_search()
        finally:
            searching.command("ACL", "DELUSER", "reader")

    async def test_an_unknown_index_is_refused_before_anybody_is_asked(self):
        with pytest.raises(ConfigError, match="'auto', 'numpy', 'hnsw', 'flat'"):
            check_index_name("faiss")
        with pytest.raises(ConfigError, match="faiss"):
            await choose(None, embedder="e", dim=DIM, index="faiss")  # type: ignore[arg-type]

    @pytest.mark.parametrize("max_rows", [0, -1, 1.5, True, "10", None])
    def test_a_bound_that_is_none_is_refused(self, max_rows: Any):
        with pytest.raises(ConfigError, match="max_rows"):
            NumpyIndex(None, embedder="e", dim=DIM, max_rows=max_rows)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="algorithm"):
            ServerIndex(None, embedder="e", dim=DIM, algorithm=max_rows)  # type: ignore[arg-type]

    async def test_a_server_that_is_away_decides_nothing(self, tmp_path: Path, namespace: str):
        with valkey_server(tmp_path) as server:
            server.kill()
            async with self.vectors(server.url, namespace) as vectors:
                with pytest.raises(RepositoryUnavailable):
                    await choose(vectors, embedder="e", dim=DIM)
                server.restart()

                async def answers() -> bool:
                    with contextlib.suppress(RepositoryUnavailable):
                        return (await choose(vectors, embedder="e", dim=DIM)).name == "numpy"
                    return False

                await wait_until_async(answers, description="it may be tried again")
