"""The repository's contract: every promise on every kind of server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis.asyncio as aioredis
from entries import answer_in, entry_of, key_of
from faultproxy import FaultProxy
from redis.asyncio.cluster import RedisCluster
from servers import Cluster, redis_server
from waiting import wait_until_async

from llmcache_plugins import CacheConfig, ConfigError, RepositoryError, ResponseRepository
from llmcache_plugins.budget import Budget
from llmcache_plugins.keys import BUCKETS_IN_CLUSTER, BUCKETS_ON_SERVER, CacheKey, embedder_id
from llmcache_plugins.models import Found, Lease, Record, RecordKind, Wait, WriteStatus
from llmcache_plugins.repository import maintenance, new_token, touches
from llmcache_plugins.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from servers import Server


@pytest.fixture
async def repository(server: Server | Cluster, namespace: str) -> AsyncIterator[ResponseRepository]:
    async with opened(server, namespace=namespace) as repository:
        yield repository


@contextlib.asynccontextmanager
async def opened(server: Server | Cluster, **settings: Any) -> AsyncIterator[ResponseRepository]:
    # A busy machine is not what these tests are about.
    config = CacheConfig(socket_timeout=10.0, **settings)
    async with ResponseRepository(server.url, config=config) as repository:
        yield repository


def redis_keys(server: Server | Cluster, pattern: str) -> list[str]:
    """All keys of all nodes that match."""
    found: list[str] = []
    for node in getattr(server, "nodes", [server]):
        found += [key.decode() for key in node.command("KEYS", pattern)]
    return found


def buckets_of(server: Server | Cluster) -> int:
    return BUCKETS_IN_CLUSTER if len(server.nodes) > 1 else BUCKETS_ON_SERVER


def in_one_bucket(number: int, *, namespace: str) -> CacheKey:
    return CacheKey(digest=f"{number:064x}", namespace=namespace)


def scripts_run(server: Server) -> int:
    return server.command("INFO", "commandstats").get("cmdstat_evalsha", {}).get("calls", 0)


def root_of(key: CacheKey, server: Server | Cluster) -> str:
    return key.redis_key(buckets=buckets_of(server)).removesuffix(f"resp:{key.digest}")


async def publish(repository: ResponseRepository, key: CacheKey, lease: Lease) -> bool:
    return await repository.leases.publish(key, lease, first=1, last=1, data=b"chunk", is_end=False, most=5)


async def leave_everything(
    repository: ResponseRepository, server: Server | Cluster, *, namespace: str
) -> None:
    """Leave 20 entries with vectors, a lease, chunks, a record, and what is left of an entry that is gone."""
    gone = key_of("gone", namespace=namespace)
    for key in [*(key_of(str(i), namespace=namespace) for i in range(20)), gone]:
        fence = (await repository.persist(key, entry_of("x"))).detail
        how = {"scope": "a" * 64, "text": "x", "canonical": "b" * 64, "vector": b"1234"}
        embedder = embedder_id("e", dim=1)
        assert await repository.vectors.attach(key, fence=fence, embedder=embedder, **how)
    server.command("DEL", gone.redis_key(buckets=buckets_of(server)))
    streamed, failed = key_of("streamed", namespace=namespace), key_of("failed", namespace=namespace)
    lease = await repository.leases.acquire(streamed, token=new_token())
    assert isinstance(lease, Lease)
    assert await publish(repository, streamed, lease)
    lease = await repository.leases.acquire(failed, token=new_token())
    assert isinstance(lease, Lease)
    record = Record(kind=RecordKind.RATE_LIMITED, seconds=60)
    await repository.leases.fail(failed, token=lease.token, lease=lease, record=record)


def contents(server: Server | Cluster, namespace: str) -> dict[str, bytes]:
    """Every key of a namespace with its value, but for the order in which a server keeps hashes and sets."""
    names = redis_keys(server, f"llm:{{{namespace}.*}}:*")
    own = re.compile(rf"llm:\{{{re.escape(namespace)}\.\d+\}}:.*")
    kept = {name for name in names if own.fullmatch(name)}
    owner = server.node_of if isinstance(server, Cluster) else lambda _: server
    return {name: owner(name).command("DUMP", name) for name in kept}


def whats_of(server: Server | Cluster, namespace: str) -> set[str]:
    """What kinds of keys there are in a namespace."""
    return {name.partition("}:")[2].partition(":")[0] for name in contents(server, namespace)}


class TestEntries:
    async def test_what_was_stored_comes_back_equal(self, repository: ResponseRepository, namespace: str):
        key = key_of("a", namespace=namespace)
        for answer in ("text", "", {"a": [1, None, 2.5]}, [], "ü" * 5000, 0, False, None):
            assert (await repository.persist(key, entry_of(answer))).status is WriteStatus.OK
            found = await repository.fetch(key)
            assert found is not None
            assert answer_in(found) == answer
            assert found.entry.provider_seconds == 0.5

    async def test_an_unknown_key_is_a_miss(self, repository: ResponseRepository, namespace: str):
        assert await repository.fetch(key_of("nobody", namespace=namespace)) is None

    async def test_fetch_many_keeps_the_order_and_marks_what_is_missing(
        self, repository: ResponseRepository, namespace: str
    ):
        keys = [key_of(str(i), namespace=namespace) for i in range(300)]
        for i in range(0, 300, 3):
            await repository.persist(keys[i], entry_of(i))
        found = await repository.fetch_many(keys)
        assert [answer_in(f) if f else None for f in found] == [i if i % 3 == 0 else None for i in range(300)]

    async def test_an_entry_is_gone_after_its_ttl(self, repository: ResponseRepository, namespace: str):
        key = key_of("short", namespace=namespace)
        await repository.persist(key, entry_of("x"), ttl=0.05)

        async def is_gone() -> bool:
            return await repository.fetch(key) is None

        await wait_until_async(is_gone, description="the entry expires")

    async def test_a_ttl_of_zero_stores_nothing_and_none_is_the_default(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        key = key_of("zero", namespace=namespace)
        assert (await repository.persist(key, entry_of("x"), ttl=0)).status is WriteStatus.NOT_WANTED
        assert await repository.fetch(key) is None
        await repository.persist(key, entry_of("x"), ttl=None)
        left = server.command("PTTL", repository.redis_key(key))
        assert 3_590_000 < left <= 3_600_000

    @pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf"), "60", True, 1e12])
    async def test_a_ttl_that_cannot_be_one_is_refused(
        self, repository: ResponseRepository, namespace: str, ttl: Any
    ):
        with pytest.raises(ConfigError, match="seconds"):
            await repository.persist(key_of("x", namespace=namespace), entry_of("x"), ttl=ttl)

    async def test_a_later_write_replaces_an_earlier_one(
        self, repository: ResponseRepository, namespace: str
    ):
        key = key_of("twice", namespace=namespace)
        await repository.persist(key, entry_of("one"))
        await repository.persist(key, entry_of("two"))
        assert answer_in(await repository.fetch(key)) == "two"
        assert (await repository.size()).entries == 1

    async def test_the_printed_key_is_where_the_entry_lies(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        key = key_of("where", namespace=namespace)
        await repository.persist(key, entry_of("x"))
        assert server.command("EXISTS", repository.redis_key(key)) == 1
        assert str(key).startswith("llm:resp:")


class TestUnreadable:
    @pytest.mark.parametrize(
        "damage", ["cut", "flipped", "foreign", "empty", "pickle", "other_key", "other_version", "list"]
    )
    async def test_bytes_that_are_no_entry_are_a_counted_miss(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str, damage: str
    ):
        key = key_of("damaged", namespace=namespace)
        others = (key_of(f"other {i}", namespace=namespace) for i in itertools.count())
        other = next(k for k in others if int(k.digest[:4], 16) % 64 == int(key.digest[:4], 16) % 64)
        await repository.persist(key, entry_of("x" * 3000))
        await repository.persist(other, entry_of("y" * 3000))
        name = repository.redis_key(key)
        value = server.command("GET", name)
        other_value = server.command("GET", repository.redis_key(other))
        damaged = {
            "cut": value[:-10],
            "flipped": value[:80] + bytes([value[80] ^ 0xFF]) + value[81:],
            "foreign": b'{"content": "from another cache"}',
            "empty": b"",
            "pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.",
            "other_key": other_value,
            "other_version": b"9" * 16 + value[16:],
            "list": None,
        }[damage]
        server.command("DEL", name)
        if damaged is None:
            server.command("RPUSH", name, "a")
        else:
            server.command("SET", name, damaged)
        server.command("PEXPIRE", name, 60_000)
        assert await repository.fetch(key) is None
        if damage != "list":  # MGET says nil for a list, so there is nothing to read
            assert repository.telemetry.stats.unreadable == 1
        # And it does not stand in the way of the next answer.
        token = new_token()
        lease = await repository.leases.acquire(key, token=token)
        assert isinstance(lease, Lease)
        commit = await repository.leases.commit(key, entry_of("healed"), ttl=60, lease=lease)
        assert commit.status is WriteStatus.OK
        assert answer_in(await repository.fetch(key)) == "healed"

    @pytest.mark.parametrize("how", ["delete", "persist", "acquire"])
    async def test_a_foreign_time_does_not_disable_the_namespace(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str, how: str
    ):
        key = key_of("foreign", namespace=namespace)
        other = key_of("another", namespace=namespace)
        header = b"0000000000000001" + b"9999999999999999" * 3
        server.command("SET", repository.redis_key(key), header + b"body", "PX", 60_000)
        if how == "delete":
            await repository.delete(key)
        elif how == "persist":
            await repository.persist(key, entry_of("ours"))
        else:
            lease = await repository.leases.acquire(key, token=new_token())
            assert isinstance(lease, Lease)
        for later in (key, other):
            await repository.persist(later, entry_of("ours"))
            assert answer_in(await repository.fetch(later)) == "ours"

    async def test_a_foreign_key_of_odd_bytes_does_not_stop_a_clear(
        self, repository: ResponseRepository, valkey: Server, namespace: str
    ):
        valkey.command("SET", f"llm:{{{namespace}.0}}:".encode() + b"\xff\xfe", "x", "PX", 60_000)
        await repository.clear()


class TestRoundTrips:
    async def test_reads_of_one_moment_travel_together(self, redis8: Server, namespace: str):
        async with opened(redis8, namespace=namespace) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(100)]
            for key in keys:
                await repository.persist(key, entry_of("x"))
            redis8.command("CONFIG", "RESETSTAT")
            assert all(await repository.fetch_many(keys))
            calls = redis8.command("INFO", "commandstats")
            assert calls["cmdstat_mget"]["calls"] == 1
            assert "cmdstat_evalsha" not in calls

    async def test_persist_is_one_round_trip(self, redis8: Server, namespace: str):
        async with opened(redis8, namespace=namespace) as repository:
            await repository.persist(key_of("warm", namespace=namespace), entry_of("x"))
            redis8.command("CONFIG", "RESETSTAT")
            await repository.persist(key_of("one", namespace=namespace), entry_of("x"))
            assert redis8.command("INFO", "commandstats")["cmdstat_evalsha"]["calls"] == 1

    async def test_a_cancelled_reader_disturbs_nobody(self, repository: ResponseRepository, namespace: str):
        keys = [key_of(str(i), namespace=namespace) for i in range(20)]
        for i, key in enumerate(keys):
            await repository.persist(key, entry_of(i))
        readers = [asyncio.ensure_future(repository.fetch(key)) for key in keys]
        await asyncio.sleep(0)
        for reader in readers[::2]:
            reader.cancel()
        replies = await asyncio.gather(*readers, return_exceptions=True)
        assert [answer_in(reply) for reply in replies[1::2]] == list(range(1, 20, 2))

    async def test_a_restarted_server_that_forgot_the_scripts_is_taught_again(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        for node in getattr(server, "nodes", [server]):
            node.command("SCRIPT", "FLUSH")
        key = key_of("after", namespace=namespace)
        assert (await repository.persist(key, entry_of("x"))).status is WriteStatus.OK
        assert await repository.fetch(key)


class TestConnecting:
    @pytest.mark.parametrize("turns", range(0, 24, 3))
    async def test_a_loop_that_stands_still_meanwhile_is_no_fault_of_the_server_s(
        self, valkey: Server, namespace: str, turns: int
    ):
        """A thousand calls at the start of a program keep the loop from its socket for longer than that."""
        config = CacheConfig(namespace=namespace, connect_timeout=0.2)
        repository = ResponseRepository(valkey.tcp_url, config=config)
        asking = asyncio.create_task(repository.fetch(key_of("asked", namespace=namespace)))
        for _ in range(turns):
            await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 - that is the point
        assert await asking is None
        await repository.aclose()


class TestClosing:
    @pytest.mark.parametrize("turns", range(6))
    async def test_closing_in_the_midst_of_a_call_leaves_nobody_waiting(
        self, valkey: Server, namespace: str, turns: int
    ):
        async with opened(valkey, namespace=namespace) as repository:
            key = key_of("asked", namespace=namespace)
            calls = [
                asyncio.ensure_future(call)
                for _ in range(100)
                for call in (repository.persist(key, entry_of("x")), repository.fetch(key))
            ]
            for _ in range(turns):
                await asyncio.sleep(0)
            await repository.aclose()
            replies = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
            assert all(not isinstance(r, BaseException) or isinstance(r, RepositoryError) for r in replies)


class TestInvalidation:
    async def test_a_full_server_stores_no_more_but_can_be_told_what_must_go(
        self, tmp_path: Path, namespace: str
    ):
        with redis_server(tmp_path, "--maxmemory-policy", "noeviction") as full:
            async with opened(full, namespace=namespace) as repository:
                one, two = key_of("one", namespace=namespace), key_of("two", namespace=namespace)
                await repository.persist(one, entry_of("x"))
                await repository.persist(two, entry_of("x"))
                under_way = await repository.leases.acquire(
                    key_of("three", namespace=namespace), token=new_token()
                )
                full.command("CONFIG", "SET", "maxmemory", "1mb")
                assert isinstance(under_way, Lease)
                three = key_of("three", namespace=namespace)
                commit = await repository.leases.commit(three, entry_of("x"), ttl=60, lease=under_way)
                assert commit.status is WriteStatus.ERR
                assert "maxmemory" in commit.detail
                with pytest.raises(RepositoryError, match="OutOfMemory"):
                    await repository.persist(key_of("four", namespace=namespace), entry_of("x"))
                assert await repository.delete(one)
                assert await repository.clear() == 1
                full.command("CONFIG", "SET", "maxmemory", "0")
                assert await repository.fetch(two) is None
                assert isinstance(await repository.leases.acquire(three, token=new_token()), Lease)

    async def test_delete_removes_one_and_only_one(self, repository: ResponseRepository, namespace: str):
        gone, stays = key_of("gone", namespace=namespace), key_of("stays", namespace=namespace)
        await repository.persist(gone, entry_of("x"))
        await repository.persist(stays, entry_of("y"))
        assert await repository.delete(gone) is True
        assert await repository.delete(gone) is False
        assert await repository.fetch(gone) is None
        assert await repository.fetch(stays)

    @pytest.mark.parametrize("how", ["delete", "clear"])
    async def test_an_answer_under_way_is_not_stored_after_an_invalidation(
        self, repository: ResponseRepository, namespace: str, how: str
    ):
        key = key_of("late", namespace=namespace)
        lease = await repository.leases.acquire(key, token=new_token())
        assert isinstance(lease, Lease)
        await (repository.delete(key) if how == "delete" else repository.clear())
        commit = await repository.leases.commit(key, entry_of("stale"), ttl=60, lease=lease)
        assert commit.status is WriteStatus.INVALIDATED
        assert await repository.fetch(key) is None

    async def test_clear_empties_its_own_namespace_and_no_other(
        self, server: Server | Cluster, namespace: str
    ):
        neighbours = [f"{namespace}.0", f"{namespace}.1", f"{namespace}*", f"{namespace}:x", f"{namespace}x"]
        odd = [
            namespace,
            f"{namespace}[a-z]*?",
            f"{namespace}{{1}}",
            f"{namespace} ü/%",
            "n" * 99 + namespace,
        ]
        async with opened(server, namespace=namespace) as repository:
            names = neighbours + odd
            keys = [key_of(str(i), namespace=name) for name in names for i in range(5)]
            for key in keys:
                await repository.persist(key, entry_of("x"))
            for cleared in odd:
                assert await repository.clear(cleared) == 5
                for key, found in zip(keys, await repository.fetch_many(keys), strict=True):
                    is_cleared = key.namespace in odd[: odd.index(cleared) + 1]
                    assert (found is None) == is_cleared, (key.namespace, cleared)

    async def test_clear_counts_and_removes_thousands(self, repository: ResponseRepository, namespace: str):
        keys = [key_of(str(i), namespace=namespace) for i in range(1500)]
        await asyncio.gather(*(repository.persist(key, entry_of("x")) for key in keys))
        assert await repository.clear() == 1500
        assert (await repository.size()).entries == 0
        assert (await repository.size()).stored_bytes == 0

    async def test_after_a_clear_no_byte_of_the_namespace_is_left_but_its_marks(
        self, server: Server | Cluster, namespace: str
    ):
        other = f"{namespace}.0"
        async with opened(server, namespace=namespace) as repository:
            for name in (namespace, other):
                await leave_everything(repository, server, namespace=name)
            untouched = contents(server, other)
            books = {"marks", "epoch", "log", "size", "vectors"}
            assert whats_of(server, namespace) == {"resp", "lease", "error", "chunks", "vec", *books}
            assert await repository.clear() == 20
            assert whats_of(server, namespace) == {"marks", "epoch"}
            assert contents(server, other) == untouched

    async def test_flights_that_began_before_a_clear_leave_nothing_after_it(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        key = key_of("late", namespace=namespace)
        late = await repository.leases.acquire(key, token=new_token())
        assert isinstance(late, Lease)
        await repository.clear()
        assert await repository.leases.renew(key, late) is False
        assert await publish(repository, key, late) is False
        record = Record(kind=RecordKind.RATE_LIMITED, seconds=60)
        await repository.leases.fail(key, token=late.token, lease=late, record=record)
        await repository.leases.commit(key, entry_of("stale"), ttl=60, lease=late)
        assert whats_of(server, namespace) == {"marks", "epoch"}

    async def test_a_stream_that_begins_as_the_keys_are_swept_leaves_nothing(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        """Its lease is void from the first step of a clear on, whether the sweep has met it or not."""
        key = key_of("late", namespace=namespace)
        late = await repository.leases.acquire(key, token=new_token())
        assert isinstance(late, Lease)
        lease = server.command("GET", root_of(key, server) + f"lease:{key.digest}")
        await repository.clear()
        server.command("SET", root_of(key, server) + f"lease:{key.digest}", lease, "PX", 10_000)
        assert await publish(repository, key, late) is False

    async def test_flights_that_begin_after_a_clear_survive_its_sweep(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        """A sweep may meet them: it begins when the invalidation is acknowledged, and takes a while."""
        await repository.clear()
        await leave_everything(repository, server, namespace=namespace)
        link = repository._links.current()
        assert await maintenance.sweep(link, repository._layout(namespace, link)) == 0
        assert whats_of(server, namespace) >= {"resp", "lease", "error", "chunks"}
        assert (await repository.size()).entries == 20

    async def test_after_a_clear_new_answers_are_kept(self, repository: ResponseRepository, namespace: str):
        key = key_of("again", namespace=namespace)
        await repository.persist(key, entry_of("old"))
        await repository.clear()
        await repository.persist(key, entry_of("new"))
        assert answer_in(await repository.fetch(key)) == "new"

    async def test_an_entry_survives_the_invalidation_of_another_key_and_is_checked_once(
        self, redis8: Server, namespace: str
    ):
        async with opened(redis8, namespace=namespace) as repository:
            key = key_of("kept", namespace=namespace)
            await repository.persist(key, entry_of("x"))
            redis8.command("DEL", f"llm:{{{namespace}.0}}:epoch")
            redis8.command("CONFIG", "RESETSTAT")
            for _ in range(3):
                assert await repository.fetch(key)
            assert redis8.command("INFO", "commandstats")["cmdstat_evalsha"]["calls"] == 1


class TestLeases:
    async def test_one_leads_and_the_others_wait(self, repository: ResponseRepository, namespace: str):
        key = key_of("led", namespace=namespace)
        replies = await asyncio.gather(
            *(repository.leases.acquire(key, token=new_token()) for _ in range(10))
        )
        assert sum(isinstance(reply, Lease) for reply in replies) == 1
        waits = [reply for reply in replies if isinstance(reply, Wait)]
        assert len(waits) == 9
        assert all(9 < wait.seconds <= 10 for wait in waits)

    async def test_asking_again_with_the_same_token_is_no_lock_out(
        self, repository: ResponseRepository, namespace: str
    ):
        key, token = key_of("lost reply", namespace=namespace), new_token()
        first = await repository.leases.acquire(key, token=token)
        assert await repository.leases.acquire(key, token=token) == first

    async def test_a_commit_releases_serves_and_may_be_repeated(
        self, repository: ResponseRepository, namespace: str
    ):
        key = key_of("committed", namespace=namespace)
        lease = await repository.leases.acquire(key, token=new_token())
        assert isinstance(lease, Lease)
        for _ in range(2):
            commit = await repository.leases.commit(key, entry_of("x"), ttl=60, lease=lease)
            assert commit.status is WriteStatus.OK
        assert isinstance(await repository.leases.acquire(key, token=new_token()), Found)
        assert (await repository.size()).entries == 1

    async def test_a_late_leader_never_overwrites_a_newer_answer(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        key = key_of("late", namespace=namespace)
        late = await repository.leases.acquire(key, token=new_token())
        server.command("DEL", repository.redis_key(key).replace(":resp:", ":lease:"))
        newer = await repository.leases.acquire(key, token=new_token())
        assert isinstance(late, Lease)
        assert isinstance(newer, Lease)
        assert (
            await repository.leases.commit(key, entry_of("new"), ttl=60, lease=newer)
        ).status is WriteStatus.OK
        commit = await repository.leases.commit(key, entry_of("old"), ttl=60, lease=late)
        assert commit.status is WriteStatus.SUPERSEDED
        assert answer_in(await repository.fetch(key)) == "new"

    async def test_a_leader_that_lost_its_lease_still_stores_what_was_paid_for(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        key = key_of("paid", namespace=namespace)
        lease = await repository.leases.acquire(key, token=new_token())
        assert isinstance(lease, Lease)
        server.command("DEL", repository.redis_key(key).replace(":resp:", ":lease:"))
        assert (
            await repository.leases.commit(key, entry_of("x"), ttl=60, lease=lease)
        ).status is WriteStatus.OK

    async def test_only_the_owner_can_give_a_lease_up(self, repository: ResponseRepository, namespace: str):
        key, token = key_of("owned", namespace=namespace), new_token()
        await repository.leases.acquire(key, token=token)
        await repository.leases.fail(key, token=new_token())
        assert isinstance(await repository.leases.acquire(key, token=new_token()), Wait)
        await repository.leases.fail(key, token=token)
        assert isinstance(await repository.leases.acquire(key, token=new_token()), Lease)

    async def test_a_plain_write_does_not_take_a_lease_from_its_owner(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        key, token = key_of("beside", namespace=namespace), new_token()
        await repository.leases.acquire(key, token=token)
        await repository.persist(key, entry_of("x"))
        assert server.command("EXISTS", repository.redis_key(key).replace(":resp:", ":lease:")) == 1

    async def test_renewing_keeps_takes_back_and_notices_a_loss(
        self, repository: ResponseRepository, server: Server | Cluster, namespace: str
    ):
        key = key_of("renewed", namespace=namespace)
        name = repository.redis_key(key).replace(":resp:", ":lease:")
        lease = await repository.leases.acquire(key, token=new_token())
        assert isinstance(lease, Lease)
        server.command("PEXPIRE", name, 500)
        assert await repository.leases.renew(key, lease)
        assert server.command("PTTL", name) > 9_000
        server.command("DEL", name)
        assert await repository.leases.renew(key, lease)
        server.command("DEL", name)
        await repository.leases.acquire(key, token=new_token())
        assert not await repository.leases.renew(key, lease)

    async def test_a_flight_that_was_invalidated_loses_its_lease_at_the_next_renewal(
        self, repository: ResponseRepository, namespace: str
    ):
        key = key_of("void", namespace=namespace)
        lease = await repository.leases.acquire(key, token=new_token())
        assert isinstance(lease, Lease)
        await repository.clear()
        assert not await repository.leases.renew(key, lease)
        assert isinstance(await repository.leases.acquire(key, token=new_token()), Lease)

    async def test_a_fence_can_be_had_beside_a_leader(self, repository: ResponseRepository, namespace: str):
        key = key_of("fenced", namespace=namespace)
        leader = await repository.leases.acquire(key, token=new_token())
        fenced = await repository.leases.acquire(key, token=new_token(), mode="fence")
        assert isinstance(leader, Lease)
        assert isinstance(fenced, Lease)
        assert fenced.fence > leader.fence

    async def test_what_is_there_can_be_left_out_of_account(
        self, repository: ResponseRepository, namespace: str
    ):
        key = key_of("there", namespace=namespace)
        await repository.persist(key, entry_of("old"))
        found = await repository.leases.acquire(key, token=new_token())
        assert isinstance(found, Found)
        judged = await repository.leases.acquire(key, token=new_token(), mode="fence", seen=found.fence)
        whatever = await repository.leases.acquire(key, token=new_token(), seen="*")
        assert isinstance(judged, Lease)
        assert isinstance(whatever, Lease)
        assert found.fence < judged.fence < whatever.fence
        commit = await repository.leases.commit(key, entry_of("new"), ttl=60, lease=whatever)
        assert commit.status is WriteStatus.OK
        assert answer_in(await repository.fetch(key)) == "new"

    async def test_a_lease_dated_back_before_an_invalidation_stores_nothing(
        self, repository: ResponseRepository, namespace: str
    ):
        key = key_of("backdated", namespace=namespace)
        await repository.persist(key_of("first", namespace=namespace), entry_of("opens the marks"))
        await repository.delete(key)
        lease = await repository.leases.acquire(key, token=new_token())
        assert isinstance(lease, Lease)
        commit = await repository.leases.commit(key, entry_of("x"), ttl=60, lease=lease.backdated(5))
        assert commit.status is WriteStatus.INVALIDATED


class TestBounds:
    async def test_writing_beyond_the_bound_evicts_the_oldest_entries_for_real(
        self, valkey: Server, namespace: str
    ):
        async with opened(valkey, namespace=namespace, max_entries=10) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(25)]
            for key in keys:
                await repository.persist(key, entry_of("x"))
            kept = [found is not None for found in await repository.fetch_many(keys)]
            assert kept == [False] * 15 + [True] * 10
            assert (await repository.size()).entries == 10
            assert len(redis_keys(valkey, f"llm:{{{namespace}.*:resp:*")) == 10
            assert repository.telemetry.stats.evicted == 15

    async def test_in_a_cluster_the_bound_holds_over_all_buckets(self, cluster: Cluster, namespace: str):
        async with opened(cluster, namespace=namespace, max_entries=128) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(600)]
            await asyncio.gather(*(repository.persist(key, entry_of("x")) for key in keys))
            assert (await repository.size()).entries <= 128

    async def test_a_bound_on_bytes_is_kept(self, server: Server | Cluster, namespace: str):
        async with opened(
            server, namespace=namespace, max_bytes=300_000, max_entries=None, compress_from=10**6
        ) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(400)]
            await asyncio.gather(*(repository.persist(key, entry_of("x" * 1000)) for key in keys))
            size = await repository.size()
            lengths = [
                server.command("STRLEN", name) for name in redis_keys(server, f"llm:{{{namespace}.*:resp:*")
            ]
            assert sum(lengths) == size.stored_bytes <= 300_000
            assert size.entries == len(lengths) > 150

    async def test_what_was_read_lately_is_evicted_last(self, server: Server | Cluster, namespace: str):
        async with opened(server, namespace=namespace) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(200)]
            for key in keys:
                await repository.persist(key, entry_of("x"))
            assert await repository.fetch(keys[0])
            assert await repository.evict_stale(max_keys=100) == 100
            assert await repository.fetch(keys[0])

    async def test_a_key_hit_60_times_per_turnover_of_the_bound_survives_it(
        self, server: Server | Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(touches, "FLUSH_AFTER", 3600.0)  # not for the clock's sake
        bound = 20
        async with opened(server, namespace=namespace, max_entries=bound * buckets_of(server)) as repository:
            hot, *others = (in_one_bucket(i, namespace=namespace) for i in range(3 * bound + 1))
            await repository.persist(hot, entry_of("x"))
            for key in others:
                await repository.persist(key, entry_of("x"))
                for _ in range(60 // bound):
                    assert await repository.fetch(hot)
            assert repository.telemetry.stats.evicted == 2 * bound + 1

    async def test_reads_of_a_hot_key_cost_a_tenth_as_many_scripts_and_one_at_a_time(
        self, redis8: Server, namespace: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(touches, "FLUSH_AFTER", 3600.0)
        async with opened(redis8, namespace=namespace) as repository:
            key = key_of("hot", namespace=namespace)
            await repository.persist(key, entry_of("x"))
            before = scripts_run(redis8)
            for _ in range(100):
                await repository.fetch(key)
            await wait_until_async(
                lambda: scripts_run(redis8) == before + 10, description="a note for each ten reads"
            )
            # However many read at one moment: one script is under way, and what it missed goes with the next.
            before = scripts_run(redis8)
            await asyncio.gather(*(repository.fetch(key) for _ in range(1000)))
            await wait_until_async(lambda: scripts_run(redis8) > before, description="a note of the reads")
            assert scripts_run(redis8) - before <= 2

    async def test_evictors_at_one_time_keep_to_the_bound_and_count_nothing_twice(
        self, server: Server | Cluster, namespace: str
    ):
        async with opened(server, namespace=namespace) as one, opened(server, namespace=namespace) as other:
            keys = [key_of(str(i), namespace=namespace) for i in range(300)]
            await asyncio.gather(*(one.persist(key, entry_of("x")) for key in keys))
            evicting = (repository.evict_stale(max_keys=100) for repository in (one, other, one, other))
            removed = sum(await asyncio.gather(*evicting))
            left = len(redis_keys(server, f"llm:{{{namespace}.*:resp:*"))
            assert left == 300 - removed == (await one.size()).entries
            assert 0 < left <= 100

    async def test_evict_stale_evicts_at_the_mission_s_defaults(self, valkey: Server, namespace: str):
        async with opened(valkey, namespace=namespace) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(10_050)]
            await asyncio.gather(*(repository.persist(key, entry_of("x")) for key in keys))
            assert await repository.evict_stale() == 50
            assert (await repository.size()).entries == 10_000
            assert len(redis_keys(valkey, f"llm:{{{namespace}.*:resp:*")) == 10_000
            assert await repository.evict_stale() == 0

    async def test_eviction_leaves_other_namespaces_alone(self, server: Server | Cluster, namespace: str):
        async with opened(server, namespace=namespace) as repository:
            other = key_of("other", namespace=namespace + ".0")
            await repository.persist(other, entry_of("x"))
            for i in range(20):
                await repository.persist(key_of(str(i), namespace=namespace), entry_of("x"))
            assert await repository.evict_stale(max_keys=0) == 20
            assert await repository.fetch(other)

    async def test_the_books_heal_after_the_server_evicted_or_expired_entries(
        self, server: Server | Cluster, namespace: str
    ):
        async with opened(server, namespace=namespace) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(60)]
            for key in keys:
                await repository.persist(key, entry_of("x"))
            for key in keys[:40]:
                server.command("DEL", repository.redis_key(key))
            assert await repository.evict_stale(max_keys=20) == 0
            size = await repository.size()
            assert size.entries == 20
            lengths = [server.command("STRLEN", repository.redis_key(key)) for key in keys[40:]]
            assert size.stored_bytes == sum(lengths)

    async def test_expired_entries_do_not_pile_up_in_the_log(self, valkey: Server, namespace: str):
        async with opened(valkey, namespace=namespace, max_entries=None) as repository:
            for i in range(300):
                await repository.persist(key_of(f"short {i}", namespace=namespace), entry_of("x"), ttl=0.001)
            for i in range(600):
                await repository.persist(key_of(f"long {i}", namespace=namespace), entry_of("x"))
            assert (await repository.size()).entries < 700

    async def test_one_answer_too_big_for_the_bound_does_not_push_all_others_out(
        self, valkey: Server, namespace: str
    ):
        async with opened(valkey, namespace=namespace, max_bytes=20_000, compress_from=10**6) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(10)]
            for key in keys:
                await repository.persist(key, entry_of("x" * 500))
            big = await repository.persist(key_of("big", namespace=namespace), entry_of("x" * 19_990))
            assert big.status is WriteStatus.TOO_BIG
            assert all(await repository.fetch_many(keys))

    async def test_an_answer_beyond_the_limit_of_one_entry_is_not_stored(
        self, repository: ResponseRepository, namespace: str
    ):
        big = await repository.persist(key_of("big", namespace=namespace), entry_of("x" * 1_100_000))
        assert big.status is WriteStatus.TOO_BIG

    async def test_the_newest_entry_is_never_the_one_that_goes(self, valkey: Server, namespace: str):
        """Neither when the log was lost, nor when the server's clock stepped back."""
        async with opened(
            valkey, namespace=namespace, max_entries=5, max_bytes=4_096, max_entry_bytes=2_000
        ) as repository:
            for i in range(20):
                await repository.persist(key_of(str(i), namespace=namespace), entry_of("x" * 400))
            log = f"llm:{{{namespace}.0}}:log"
            valkey.command("DEL", log)
            newest = key_of("newest", namespace=namespace)
            await repository.persist(newest, entry_of("x"))
            assert await repository.fetch(newest)
            ahead = 3_000_000_000_000_000
            for i, member in enumerate(valkey.command("ZRANGE", log, 0, -1)):
                valkey.command("ZADD", log, ahead + i, member)
            valkey.command("HSET", f"llm:{{{namespace}.0}}:marks", "clock", f"{ahead + 100:016d}")
            for i in range(10):
                newer = key_of(f"newer {i}", namespace=namespace)
                await repository.persist(newer, entry_of("x"))
                assert await repository.fetch(newer)

    @pytest.mark.parametrize("lost", ["log", "size"])
    async def test_losing_the_books_loses_no_entry_and_the_bound_returns(
        self, valkey: Server, namespace: str, lost: str
    ):
        async with opened(valkey, namespace=namespace, max_entries=50) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(50)]
            for key in keys:
                await repository.persist(key, entry_of("x"))
            valkey.command("DEL", f"llm:{{{namespace}.0}}:{lost}")
            assert all(await repository.fetch_many(keys))
            await repository.evict_stale(max_keys=1000)  # flushes the reads: they return to the log
            for i in range(100):
                await repository.persist(key_of(f"more {i}", namespace=namespace), entry_of("x"))
            size = await repository.size()
            assert size.entries == len(redis_keys(valkey, f"llm:{{{namespace}.*:resp:*")) == 50
            assert size.stored_bytes >= 0

    @pytest.mark.parametrize(
        ("url", "bound", "least"),
        [
            ("redis+cluster://localhost:1", {"max_entries": 10}, "max_entries must be at least 64"),
            ("redis+cluster://localhost:1", {"max_bytes": 200_000}, "max_bytes must be at least 262144"),
            ("redis://localhost:1", {"max_bytes": 4095}, "max_bytes must be at least 4096"),
        ],
    )
    def test_a_bound_too_small_for_the_buckets_names_the_least_that_works(
        self, url: str, bound: dict[str, int], least: str
    ):
        with pytest.raises(ConfigError, match=least) as refused:
            ResponseRepository(url, config=CacheConfig(**bound))
        assert ("64 buckets" in str(refused.value)) == ("cluster" in url)

    async def test_so_for_a_client_of_the_caller_s(self, cluster: Cluster):
        async with RedisCluster.from_url(cluster.url.replace("redis+cluster", "redis")) as client:
            with pytest.raises(ConfigError, match="max_entries must be at least 64"):
                ResponseRepository(client=client, config=CacheConfig(max_entries=63))

    @pytest.mark.parametrize("bound", [-1, 1.5, "10", True, None])
    async def test_a_bound_that_is_no_number_is_refused(self, bound: Any):
        with pytest.raises(ConfigError, match="max_keys"):
            await ResponseRepository("redis://localhost:1").evict_stale(bound)


class TestClients:
    async def test_a_client_handed_in_is_used_as_it_is_and_stays_open(self, redis8: Server, namespace: str):
        async with aioredis.Redis.from_url(redis8.url, decode_responses=True) as client:
            config = CacheConfig(namespace=namespace)
            async with ResponseRepository(client=client, config=config) as repository:
                key = key_of("text client", namespace=namespace)
                await repository.persist(key, entry_of("ü" * 2000))
                assert answer_in(await repository.fetch(key)) == "ü" * 2000
                assert await repository.clear() == 1
            assert await client.ping()

    async def test_a_cluster_client_handed_in_works(self, cluster: Cluster, namespace: str):
        url = cluster.url.replace("redis+cluster", "redis")
        async with RedisCluster.from_url(url, decode_responses=True) as client:
            config = CacheConfig(namespace=namespace)
            async with ResponseRepository(client=client, config=config) as repository:
                keys = [key_of(str(i), namespace=namespace) for i in range(30)]
                await asyncio.gather(*(repository.persist(key, entry_of("x")) for key in keys))
                assert all(await repository.fetch_many(keys))
            assert await client.ping(target_nodes=RedisCluster.RANDOM)

    async def test_a_synchronous_client_is_refused(self):
        import redis

        with pytest.raises(ConfigError, match="synchronous"):
            ResponseRepository(client=redis.Redis())

    async def test_a_node_of_a_cluster_by_a_plain_url_names_the_right_url(
        self, cluster: Cluster, namespace: str
    ):
        url = cluster.url.replace("redis+cluster", "redis")
        async with ResponseRepository(url, config=CacheConfig(namespace=namespace)) as repository:
            with pytest.raises(ConfigError, match=r"redis\+cluster://"):
                await repository.fetch(key_of("x", namespace=namespace))

    async def test_a_plain_server_by_a_cluster_url_names_the_right_url(self, redis8: Server, namespace: str):
        url = redis8.tcp_url.replace("redis://", "redis+cluster://")
        async with ResponseRepository(url, config=CacheConfig(namespace=namespace)) as repository:
            with pytest.raises(ConfigError, match=r"redis://"):
                await repository.ping()

    async def test_what_the_server_says_is_passed_on_without_our_keys(self, tmp_path: Path, namespace: str):
        with redis_server(tmp_path, "--rename-command", "EVALSHA", "") as server:
            async with opened(server, namespace=namespace) as repository:
                with pytest.raises(RepositoryError) as raised:
                    await repository.persist(key_of("x", namespace=namespace), entry_of("x"))
                assert namespace not in str(raised.value)
                assert "unknown command" in str(raised.value)

    async def test_one_budget_serves_many_keys(self, valkey: Server, namespace: str):
        async with opened(valkey, namespace=namespace) as repository:
            keys = [key_of(str(i), namespace=namespace) for i in range(40)]
            for key in keys:
                await repository.persist(key, entry_of("x"))
            valkey.command("DEL", f"llm:{{{namespace}.0}}:epoch")  # so that each needs a second look
            async with FaultProxy(valkey.url) as proxy:
                proxy.delay = 0.01
                config = CacheConfig(namespace=namespace)
                async with ResponseRepository(proxy.url, config=config) as distant:
                    assert all(await distant.fetch_many(keys, budget=Budget(0.2)))

    async def test_two_caches_on_one_server_do_not_share_counts(self, valkey: Server, namespace: str):
        one = ResponseRepository(valkey.url, telemetry=Telemetry())
        two = ResponseRepository(valkey.url, telemetry=Telemetry())
        assert one.telemetry.stats is not two.telemetry.stats
