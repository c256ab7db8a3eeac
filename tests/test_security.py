"""What the security page promises."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from entries import answer_in, entry_of, key_of

from llmcache_plugins import CacheConfig, InferenceGateway, Outcome, RepositoryError, ResponseRepository
from llmcache_plugins.keys import CacheKey, embedder_id
from llmcache_plugins.models import Lease, Record, RecordKind, SharedFailure, Wait
from llmcache_plugins.repository import new_token
from llmcache_plugins.semantic.indexes import choose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from servers import Server

PAGE = (Path(__file__).parent.parent / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.fixture(params=["valkey", "redis8"])
def server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)


@pytest.fixture
def least_url(server: Server) -> Iterator[str]:
    """A URL for a user with the rights the page lists, and no others."""
    line = re.search(r"^ACL SETUSER llmcache .*$", PAGE, re.MULTILINE)
    assert line is not None
    server.command(*line[0].split())
    yield server.tcp_url.replace("redis://", "redis://llmcache:PASSWORD@")
    server.command("ACL", "DELUSER", "llmcache")


def test_a_user_with_the_listed_rights_can_look_and_forget(least_url: str, namespace: str, called):
    async def fill() -> None:
        async with ResponseRepository(least_url, config=CacheConfig(namespace=namespace)) as repository:
            await repository.persist(key_of("q", namespace=namespace), entry_of("x"))

    asyncio.run(fill())
    where = ("--url", least_url, "--namespace", namespace)
    digest = key_of("q", namespace=namespace).digest
    for arguments in (
        ("ls", "--url", least_url),
        ("ls", *where),
        ("inspect", digest[:8], *where),
        ("invalidate", "--key", digest[:8], "--yes", *where),
        ("clear", "--yes", *where),
    ):
        code, out, err = called(*arguments)
        assert (code, err) == (0, "")
        assert "PASSWORD" not in out


async def test_a_user_with_the_listed_rights_can_do_everything(least_url: str, namespace: str):
    config = CacheConfig(namespace=namespace, max_entries=5)
    async with ResponseRepository(least_url, config=config) as repository:
        keys = [key_of(str(i), namespace=namespace) for i in range(10)]
        for key in keys:
            await repository.persist(key, entry_of("x"))
        assert sum(found is not None for found in await repository.fetch_many(keys)) == 5
        lease = await repository.leases.acquire(keys[0], token=new_token())
        assert isinstance(lease, Lease)
        assert await repository.leases.renew(keys[0], lease)
        assert isinstance(await repository.leases.acquire(keys[0], token=new_token(), live=True), Wait)
        async with repository.leases.listen(keys[0]) as ear, asyncio.timeout(5):
            assert await repository.leases.publish(
                keys[0], lease, first=1, last=1, data=b"chunk", is_end=False, most=5
            )
            await ear.wait(60)
            async with repository.leases.listen(keys[1]):
                pass
        assert (await repository.leases.tail(keys[0], fence=lease.fence, count=0)).batches
        record = Record(kind=RecordKind.RATE_LIMITED, seconds=60)
        await repository.leases.fail(keys[0], token=lease.token, record=record)
        assert isinstance(await repository.leases.acquire(keys[0], token=new_token()), SharedFailure)
        await use_vectors(repository, keys[9])
        assert await repository.delete(keys[9])
        assert await repository.fetch(keys[8])  # checked again after the invalidation of another key
        assert await repository.evict_stale(max_keys=2) == 2
        assert await repository.clear() == 2
        assert (await repository.size()).entries == 0
        assert repository.telemetry.stats.unreadable == 0


async def use_vectors(repository: ResponseRepository, key: CacheKey) -> None:
    vectors, embedder = repository.vectors, embedder_id("e", dim=1)
    found = await repository.fetch(key)
    assert found is not None
    how = {"scope": "a" * 64, "text": "x", "canonical": "b" * 64, "vector": b"1234"}
    for _ in range(8):  # one attachment of four looks after others as well
        assert await vectors.attach(key, fence=found.fence, embedder=embedder, **how)
    assert (await vectors.changes(key.namespace, embedder=embedder)).rows
    assert await vectors.alive(key.namespace, [key.digest]) != [0.0]
    assert not await vectors.detach(key)


async def test_a_user_with_the_rights_for_indexes_can_have_one(searching: Server, namespace: str):
    line = re.search(r"^ACL SETUSER llmcache .*$", PAGE, re.MULTILINE)
    more = re.search(r"`(\+ft[^`]*)`", PAGE)
    assert line is not None
    assert more is not None
    searching.command(*line[0].split(), *more[1].split())
    try:
        url = searching.tcp_url.replace("redis://", "redis://llmcache:PASSWORD@")
        async with ResponseRepository(url, config=CacheConfig(namespace=namespace)) as repository:
            index = await choose(repository.vectors, embedder="e", dim=2)
            assert index.name == "hnsw"
            key = key_of("x", namespace=namespace)
            fence = (await repository.persist(key, entry_of("x"))).detail
            assert await index.add(
                key, fence=fence, scope="a" * 64, vector=np.ones(2), text="x", canonical="x"
            )
            assert await index.nearest(namespace, "a" * 64, np.ones(2), k=1, at_least=0.9)
            assert (await index.same_text(namespace, "a" * 64, "x")).digest == key.digest
            assert await index.count(namespace) == 1
            await index.drop(namespace)
    finally:
        searching.command("ACL", "DELUSER", "llmcache")


async def test_and_nothing_else(least_url: str, server: Server):
    import redis

    server.command("SET", "other:data", "secret", "PX", "60000")
    with redis.Redis.from_url(least_url, protocol=2) as client:
        for command in ("KEYS *", "FLUSHALL", "CONFIG GET *", "GET other:data", "PUBLISH other x"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())


async def test_without_the_rights_the_call_goes_to_the_provider(server: Server, namespace: str):
    server.command(*["ACL", "SETUSER", "nobody", "on", ">PASSWORD", "resetkeys", "nocommands", "+hello"])
    try:
        url = server.tcp_url.replace("redis://", "redis://nobody:PASSWORD@")

        async def provider(_query: object) -> str:
            return "answer"

        repository = ResponseRepository(url, config=CacheConfig(namespace=namespace))
        async with InferenceGateway(provider, repository) as gateway:
            result = await gateway.resolve_detailed("question")
            assert (result.answer, result.outcome) == ("answer", Outcome.UNAVAILABLE)
            with pytest.raises(RepositoryError, match="refused"):
                await repository.fetch(key_of("x", namespace=namespace))
    finally:
        server.command("ACL", "DELUSER", "nobody")


async def test_no_prompt_is_stored_and_an_entry_cannot_serve_another_key(server: Server, namespace: str):
    async def provider(_query: object) -> str:
        return "the answer"

    repository = ResponseRepository(server.url, config=CacheConfig(namespace=namespace, compress_from=10**6))
    async with InferenceGateway(provider, repository) as gateway:
        await gateway.resolve("a very secret question")
        key = gateway.key_of("a very secret question")
        stored = server.command("GET", repository.redis_key(key))
        assert b"the answer" in stored
        for name in server.command("KEYS", "*"):
            assert b"secret question" not in name
            dumped = server.command("DUMP", name)
            assert b"secret question" not in dumped
        other = gateway.key_of("another question")
        server.command("SET", repository.redis_key(other), stored, "PX", "60000")
        assert await repository.fetch(other) is None
        assert answer_in(await repository.fetch(key)) == "the answer"
