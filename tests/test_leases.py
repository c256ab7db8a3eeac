"""What a lease promises to who holds it, to those who wait, and to those who follow its stream.

One promise each, on every kind of server. Sequences of them: `test_lease_machine.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from entries import answer_in, entry_of, key_of
from servers import redis_server
from waiting import wait_until_async

from llmcache_plugins import CacheConfig, CacheKey, ResponseRepository
from llmcache_plugins.models import (
    Absent,
    Batch,
    FailureReport,
    Found,
    Lease,
    Record,
    RecordKind,
    SharedFailure,
    Tail,
    Wait,
    WriteStatus,
)
from llmcache_plugins.repository import new_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from servers import Cluster, Server

    from llmcache_plugins.repository import Acquired

REPORT = FailureReport(status=503, retry_after=1.5, error_class="ServiceUnavailableError")
OTHER_REPORT = FailureReport(status=401, error_class="AuthenticationError")
COUNTED = (RecordKind.PASSING, RecordKind.OWN)


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


@pytest.fixture
def key(namespace: str) -> CacheKey:
    return key_of("asked", namespace=namespace)


def place(repository: ResponseRepository, key: CacheKey, what: str) -> str:
    """Where something of a key lies: `lease`, `error`, `marks`."""
    name = repository.redis_key(key)
    root = name[: name.index("resp:")]
    return root + what if what == "marks" else f"{root}{what}:{key.digest}"


def chunks_place(repository: ResponseRepository, key: CacheKey, lease: Lease) -> str:
    return f"{place(repository, key, 'chunks')}:{lease.fence}"


async def leads(repository: ResponseRepository, key: CacheKey, **how: Any) -> Lease:
    """Ask, and be the one who leads."""
    reply = await repository.leases.acquire(key, **{"token": new_token(), **how})
    assert isinstance(reply, Lease), reply
    assert reply.is_held
    return reply


async def waits(repository: ResponseRepository, key: CacheKey) -> str:
    """Ask, be told to wait; return since when."""
    reply = await repository.leases.acquire(key, token=new_token())
    assert isinstance(reply, Wait), reply
    return reply.time


async def ask(repository: ResponseRepository, key: CacheKey, **how: Any) -> Acquired:
    return await repository.leases.acquire(key, **{"token": new_token(), **how})


async def fail(
    repository: ResponseRepository,
    key: CacheKey,
    lease: Lease,
    kind: RecordKind | None = None,
    *,
    report: FailureReport = REPORT,
    seconds: float = 60.0,
) -> None:
    record = None if kind is None else Record(kind=kind, seconds=seconds, report=report)
    status = await repository.leases.fail(key, token=lease.token, lease=lease, record=record)
    assert status is WriteStatus.OK


async def commit(
    repository: ResponseRepository, key: CacheKey, lease: Lease, answer: object = "x"
) -> WriteStatus:
    return (await repository.leases.commit(key, entry_of(answer), ttl=60, lease=lease)).status


async def publish(
    repository: ResponseRepository,
    key: CacheKey,
    lease: Lease,
    data: bytes,
    *,
    first: int = 1,
    is_end: bool = False,
    most: int = 100,
) -> bool:
    """Send one chunk per byte."""
    last = first + len(data) - 1
    return await repository.leases.publish(
        key, lease, first=first, last=last, data=data, is_end=is_end, most=most
    )


def told(reply: Acquired) -> FailureReport:
    assert isinstance(reply, SharedFailure), reply
    return reply.report


def is_alone(reply: Acquired) -> bool:
    return isinstance(reply, Lease) and not reply.is_held


class TestWhatAFailureLeaves:
    """Who is told what of a flight without an answer to share."""

    async def test_a_rate_limit_is_told_to_whoever_asks(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        since = await waits(repository, key)
        await fail(repository, key, lease, RecordKind.RATE_LIMITED)
        assert told(await ask(repository, key, since=since)) == REPORT
        assert told(await ask(repository, key)) == REPORT
        assert told(await ask(repository, key, mode="follow")) == REPORT
        assert told(await ask(repository, key, since=since)) == REPORT

    async def test_a_refused_request_is_told_to_all_who_waited_and_to_nobody_else(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        waiting = [await waits(repository, key) for _ in range(3)]
        await fail(repository, key, lease, RecordKind.REFUSED)
        for since in waiting:
            assert told(await ask(repository, key, since=since)) == REPORT
        newcomer = await leads(repository, key)
        later = await waits(repository, key)
        assert told(await ask(repository, key, since=waiting[0])) == REPORT
        assert isinstance(await ask(repository, key, since=later), Wait)
        await fail(repository, key, newcomer)
        await leads(repository, key, since=later)

    async def test_after_one_failure_that_may_pass_those_who_waited_elect_a_leader(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        one, two = await waits(repository, key), await waits(repository, key)
        await fail(repository, key, lease, RecordKind.PASSING)
        await leads(repository, key, since=one)
        assert isinstance(await ask(repository, key, since=two), Wait)
        assert isinstance(await ask(repository, key), Wait)

    async def test_a_second_failure_is_told_to_those_who_waited_through_both(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        through_both = await waits(repository, key)
        await fail(repository, key, lease, RecordKind.PASSING, report=OTHER_REPORT)
        lease = await leads(repository, key)
        through_one = await waits(repository, key)
        await fail(repository, key, lease, RecordKind.PASSING)
        assert told(await ask(repository, key, since=through_both)) == REPORT
        assert told(await ask(repository, key, since=through_both, mode="follow")) == REPORT
        await leads(repository, key, since=through_one)
        assert isinstance(await ask(repository, key), Wait)
        assert told(await ask(repository, key, since=through_both)) == REPORT

    async def test_after_one_failure_of_the_leaders_own_those_who_waited_elect_another(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        one, two = await waits(repository, key), await waits(repository, key)
        await fail(repository, key, lease, RecordKind.OWN)
        await leads(repository, key, since=one)
        assert isinstance(await ask(repository, key, since=two), Wait)

    async def test_after_two_such_failures_those_who_waited_through_both_go_alone(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        through_both = [await waits(repository, key) for _ in range(2)]
        await fail(repository, key, lease, RecordKind.OWN)
        lease = await leads(repository, key)
        through_one = await waits(repository, key)
        await fail(repository, key, lease, RecordKind.OWN)
        for since in through_both:
            assert is_alone(await ask(repository, key, since=since))
        await leads(repository, key, since=through_one)
        assert is_alone(await ask(repository, key, since=through_both[0]))

    @pytest.mark.parametrize("second", COUNTED)
    @pytest.mark.parametrize("first", COUNTED)
    async def test_the_second_of_two_failures_says_what_becomes_of_those_who_saw_both(
        self, repository: ResponseRepository, key: CacheKey, first: RecordKind, second: RecordKind
    ) -> None:
        lease = await leads(repository, key)
        since = await waits(repository, key)
        await fail(repository, key, lease, first, report=OTHER_REPORT)
        lease = await leads(repository, key)
        await fail(repository, key, lease, second)
        reply = await ask(repository, key, since=since)
        assert is_alone(reply) if second is RecordKind.OWN else told(reply) == REPORT

    @pytest.mark.parametrize("first", [RecordKind.REFUSED, RecordKind.UNSHARED, None])
    async def test_what_was_no_failure_that_may_pass_does_not_count_as_the_first_of_two(
        self, repository: ResponseRepository, key: CacheKey, first: RecordKind | None
    ) -> None:
        lease = await leads(repository, key)
        since = await waits(repository, key)
        await fail(repository, key, lease, first)
        lease = await leads(repository, key)
        await fail(repository, key, lease, RecordKind.PASSING)
        await leads(repository, key, since=since)

    async def test_an_answer_that_must_not_be_shared_sends_all_who_waited_off_alone_at_once(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        waiting = [await waits(repository, key) for _ in range(3)]
        await fail(repository, key, lease, RecordKind.UNSHARED)
        alone = [await ask(repository, key, since=since) for since in waiting]
        assert all(map(is_alone, alone))
        await leads(repository, key)
        assert isinstance(await ask(repository, key), Wait)
        assert is_alone(await ask(repository, key, since=waiting[0]))

    async def test_who_goes_alone_may_store_what_it_gets(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        waiting = [await waits(repository, key) for _ in range(2)]
        await fail(repository, key, lease, RecordKind.UNSHARED)
        one, two = [await ask(repository, key, since=since) for since in waiting]
        assert isinstance(one, Lease)
        assert isinstance(two, Lease)
        assert lease.fence < one.fence < two.fence
        assert await commit(repository, key, two, "two") is WriteStatus.OK
        assert await commit(repository, key, one, "one") is WriteStatus.SUPERSEDED
        assert answer_in(await repository.fetch(key)) == "two"

    async def test_without_a_word_those_who_waited_elect_a_leader_at_once(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        since = await waits(repository, key)
        await fail(repository, key, lease)
        await leads(repository, key, since=since)

    async def test_an_answer_takes_the_word_of_earlier_failures_back(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        since = await waits(repository, key)
        await fail(repository, key, lease, RecordKind.REFUSED)
        newcomer = await leads(repository, key)
        assert await commit(repository, key, newcomer, "answer") is WriteStatus.OK
        assert answer_in(await ask(repository, key, since=since)) == "answer"
        server.command("DEL", repository.redis_key(key))
        await leads(repository, key, since=since)

    async def test_a_deletion_takes_the_word_of_earlier_failures_back(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        await fail(repository, key, await leads(repository, key), RecordKind.RATE_LIMITED)
        await repository.delete(key)
        await leads(repository, key)

    async def test_a_fence_beside_the_leader_is_given_whatever_was_left(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        await fail(repository, key, await leads(repository, key), RecordKind.RATE_LIMITED)
        assert is_alone(await ask(repository, key, mode="fence"))

    async def test_only_the_holder_of_the_lease_leaves_word(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        late = await leads(repository, key)
        server.command("DEL", place(repository, key, "lease"))
        await leads(repository, key)
        await fail(repository, key, late, RecordKind.RATE_LIMITED)
        assert isinstance(await ask(repository, key), Wait)

    @pytest.mark.parametrize(
        "report",
        [
            FailureReport(),
            FailureReport(status=429, retry_after=0.25, error_class="RateLimitError"),
            FailureReport(status=400),
            FailureReport(retry_after=30.0),
            FailureReport(error_class="ConnectionError"),
        ],
    )
    async def test_a_report_arrives_as_it_was_given(
        self, repository: ResponseRepository, key: CacheKey, report: FailureReport
    ) -> None:
        lease = await leads(repository, key)
        await fail(repository, key, lease, RecordKind.RATE_LIMITED, report=report)
        assert told(await ask(repository, key)) == report

    async def test_nothing_but_status_pause_and_class_is_kept_of_an_error(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        await fail(repository, key, await leads(repository, key), RecordKind.REFUSED)
        record = server.command("GET", place(repository, key, "error"))
        assert record[:1] == b"S"
        assert record[1:33].isdigit()
        assert json.loads(record[33:]) == {
            "status": 503,
            "retry_after": 1.5,
            "error_class": "ServiceUnavailableError",
        }

    async def test_a_failure_that_is_told_later_is_older(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        await fail(repository, key, await leads(repository, key), RecordKind.RATE_LIMITED)

        async def age() -> float:
            reply = await ask(repository, key)
            assert isinstance(reply, SharedFailure)
            return reply.age

        first = await age()
        assert 0 <= first < 5

        async def is_older() -> bool:
            return await age() >= first + 0.05

        await wait_until_async(is_older, description="the failure ages")  # type: ignore[arg-type]

    async def test_word_is_kept_for_as_long_as_was_asked(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        await fail(repository, key, lease, RecordKind.RATE_LIMITED, seconds=30)
        assert 20_000 < server.command("PTTL", place(repository, key, "error")) <= 30_000
        await repository.delete(key)
        await fail(repository, key, await leads(repository, key), RecordKind.RATE_LIMITED, seconds=0.05)

        async def is_forgotten() -> bool:
            return isinstance(await ask(repository, key), Lease)

        await wait_until_async(is_forgotten, description="a newcomer leads")  # type: ignore[arg-type]


class TestAsking:
    async def test_who_only_follows_never_leads(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        assert await ask(repository, key, mode="follow") == Absent()
        assert server.command("EXISTS", place(repository, key, "lease")) == 0
        lease = await leads(repository, key)
        reply = await ask(repository, key, mode="follow")
        assert isinstance(reply, Wait)
        await fail(repository, key, lease, RecordKind.UNSHARED)
        assert await ask(repository, key, mode="follow", since=reply.time) == Absent()

    async def test_who_only_follows_gets_the_answer(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        assert await commit(repository, key, await leads(repository, key), "answer") is WriteStatus.OK
        assert answer_in(await ask(repository, key, mode="follow")) == "answer"

    async def test_a_leader_that_asks_again_still_leads_whatever_else_is_known(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        assert await ask(repository, key, token=lease.token) == lease
        await ask(repository, key, mode="fence")
        await waits(repository, key)
        assert await ask(repository, key, token=lease.token, seen="*") == lease
        assert await repository.leases.renew(key, lease)
        assert await ask(repository, key, token=lease.token) == lease

    async def test_who_waits_is_told_whose_flight_it_is_and_how_long_its_lease_lives(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        server.command("PEXPIRE", place(repository, key, "lease"), 5_000)
        first, second = await ask(repository, key), await ask(repository, key)
        assert isinstance(first, Wait)
        assert isinstance(second, Wait)
        assert 2 < second.seconds <= first.seconds <= 5
        assert first.fence == second.fence == lease.fence
        assert lease.fence < first.time < second.time

    async def test_a_lease_that_is_renewed_lives_on_as_long_as_a_new_one(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        server.command("PEXPIRE", place(repository, key, "lease"), 1_000)
        assert await repository.leases.renew(key, lease)
        reply = await ask(repository, key)
        assert isinstance(reply, Wait)
        assert 5 < reply.seconds <= 10

    async def test_a_repeated_commit_says_ok_and_changes_nothing(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        assert await commit(repository, key, lease, "answer") is WriteStatus.OK
        before = server.command("GET", repository.redis_key(key))
        assert await commit(repository, key, lease, "the same, read differently") is WriteStatus.OK
        assert server.command("GET", repository.redis_key(key)) == before
        assert (await repository.size()).entries == 1

    async def test_fences_and_invalidations_stay_in_order_when_the_clock_of_the_server_steps_back(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        await leads(repository, key)
        server.command("HSET", place(repository, key, "marks"), "clock", "3000000000000000")
        fences = [await ask(repository, key, mode="fence") for _ in range(3)]
        leases = [lease for lease in fences if isinstance(lease, Lease)]
        assert "3000000000000000" < leases[0].fence < leases[1].fence < leases[2].fence
        await repository.delete(key)
        assert await commit(repository, key, leases[2]) is WriteStatus.INVALIDATED
        assert await commit(repository, key, await leads(repository, key)) is WriteStatus.OK

    async def test_a_fence_is_later_than_that_of_the_entry_it_is_to_replace(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        """Even when a server with an earlier clock has taken over, and the marks were lost."""
        await leads(repository, key)
        server.command("HSET", place(repository, key, "marks"), "clock", "3000000000000000")
        assert await commit(repository, key, await self.fence(repository, key), "old") is WriteStatus.OK
        server.command("DEL", place(repository, key, "marks"))
        lease = await leads(repository, key, seen="*")
        assert await commit(repository, key, lease, "new") is WriteStatus.OK
        assert answer_in(await repository.fetch(key)) == "new"

    async def fence(self, repository: ResponseRepository, key: CacheKey) -> Lease:
        reply = await ask(repository, key, mode="fence")
        assert isinstance(reply, Lease)
        return reply

    async def test_a_fence_is_no_lease(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        assert is_alone(await ask(repository, key, mode="fence"))
        assert server.command("EXISTS", place(repository, key, "lease")) == 0

    async def test_who_could_not_use_what_it_saw_leads_at_once_and_its_answer_replaces_that(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        await repository.persist(key, entry_of("old"))
        found = await repository.fetch(key)
        assert found is not None
        lease = await leads(repository, key, seen=found.fence)
        assert isinstance(await ask(repository, key, seen=found.fence), Wait)
        assert await commit(repository, key, lease, "new") is WriteStatus.OK
        assert answer_in(await ask(repository, key, seen=found.fence)) == "new"

    async def test_an_entry_that_replaced_the_one_seen_is_returned(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        await repository.persist(key, entry_of("old"))
        found = await repository.fetch(key)
        assert found is not None
        await repository.persist(key, entry_of("new"))
        assert answer_in(await ask(repository, key, seen=found.fence)) == "new"

    async def test_whoever_listens_is_woken_by_every_end_of_a_flight(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        async with repository.leases.listen(key) as ear:

            async def hears() -> None:
                async with asyncio.timeout(10):
                    await ear.wait(60)

            await fail(repository, key, await leads(repository, key))
            await hears()
            lease = await leads(repository, key)
            assert await publish(repository, key, lease, b"a")
            await hears()
            await repository.delete(key)
            await hears()
            lease = await leads(repository, key)
            await repository.clear()
            assert not await repository.leases.renew(key, lease)
            await hears()
            assert await commit(repository, key, await leads(repository, key)) is WriteStatus.OK
            await hears()


class TestVoidLeases:
    @pytest.mark.parametrize("how", ["delete", "clear", "marks lost"])
    async def test_a_newcomer_takes_a_void_lease_over_at_once_and_its_old_holder_disturbs_nobody(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, how: str
    ) -> None:
        old = await leads(repository, key)
        await self.make_void(repository, server, key, how)
        new = await leads(repository, key)
        assert new.fence > old.fence
        assert not await repository.leases.renew(key, old)
        why = WriteStatus.FORGOTTEN if how == "marks lost" else WriteStatus.INVALIDATED
        assert await commit(repository, key, old) is why
        record = Record(kind=RecordKind.RATE_LIMITED, seconds=60)
        assert await repository.leases.fail(key, token=old.token, lease=old, record=record) is why
        assert await repository.fetch(key) is None
        assert await ask(repository, key, token=new.token) == new
        assert isinstance(await ask(repository, key), Wait)
        assert await commit(repository, key, new) is WriteStatus.OK

    async def test_a_deletion_frees_the_lease_at_once(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        await leads(repository, key)
        await repository.delete(key)
        assert server.command("EXISTS", place(repository, key, "lease")) == 0

    @pytest.mark.parametrize("how", ["clear", "marks lost"])
    async def test_its_holder_gives_a_void_lease_up_when_it_renews(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, how: str
    ) -> None:
        old = await leads(repository, key)
        await self.make_void(repository, server, key, how)
        assert not await repository.leases.renew(key, old)
        assert server.command("EXISTS", place(repository, key, "lease")) == 0

    @pytest.mark.parametrize("how", ["delete", "clear", "marks lost"])
    async def test_a_void_flight_does_not_take_its_lease_back(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, how: str
    ) -> None:
        old = await leads(repository, key)
        server.command("DEL", place(repository, key, "lease"))
        await self.make_void(repository, server, key, how)
        assert not await repository.leases.renew(key, old)
        assert server.command("EXISTS", place(repository, key, "lease")) == 0

    @pytest.mark.parametrize("how", ["clear", "marks lost"])
    async def test_the_holder_of_a_void_lease_that_asks_again_begins_a_new_flight(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, how: str
    ) -> None:
        old = await leads(repository, key)
        await self.make_void(repository, server, key, how)
        new = await leads(repository, key, token=old.token)
        assert new.fence > old.fence
        assert await commit(repository, key, new) is WriteStatus.OK

    async def test_a_flight_that_failed_is_told_when_its_answer_is_void(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        """An answer that is not to be stored is still for those who asked before: but for no one after."""
        lease = await leads(repository, key)
        await repository.delete(key)
        assert await repository.leases.fail(key, token=lease.token, lease=lease) is WriteStatus.INVALIDATED
        assert await repository.leases.fail(key, token=lease.token) is WriteStatus.OK

    @pytest.mark.parametrize("how", ["delete", "clear"])
    async def test_a_flight_dated_back_to_the_very_time_of_an_invalidation_is_void(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, how: str
    ) -> None:
        await leads(repository, key)
        await self.make_void(repository, server, key, how)
        subject = f"k:{key.digest}" if how == "delete" else "n"
        mark = server.command("HGET", place(repository, key, "marks"), subject).decode()
        lease = await leads(repository, key)
        dated_back = replace(lease, fence=mark)
        assert await commit(repository, key, dated_back) is WriteStatus.INVALIDATED
        just_after = replace(lease, fence=f"{int(mark) + 1:016d}")
        assert await commit(repository, key, just_after) is WriteStatus.OK

    async def test_a_flight_dated_back_to_before_the_marks_is_void(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        assert await commit(repository, key, replace(lease, fence=lease.birth)) is WriteStatus.FORGOTTEN
        assert await repository.fetch(key) is None

    async def test_a_flight_older_than_marks_are_kept_is_void(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        hour_ago = lease.backdated(3600)
        server.command("HSET", place(repository, key, "marks"), "floor", "0" * 16)
        assert await commit(repository, key, hour_ago) is WriteStatus.FORGOTTEN
        assert await commit(repository, key, lease.backdated(60)) is WriteStatus.OK

    async def make_void(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, how: str
    ) -> None:
        if how == "delete":
            await repository.delete(key)
        elif how == "clear":
            await repository.clear()
        else:
            server.command("DEL", place(repository, key, "marks"))


class TestStreams:
    async def test_chunks_come_in_order_and_once(self, repository: ResponseRepository, key: CacheKey) -> None:
        lease = await leads(repository, key)
        assert await publish(repository, key, lease, b"ab")
        assert await publish(repository, key, lease, b"c", first=3)
        one, two = Batch(last=2, data=b"ab", is_end=False), Batch(last=3, data=b"c", is_end=False)
        assert await self.tail(repository, key, lease, 0) == (one, two)
        assert await self.tail(repository, key, lease, 2) == (two,)
        assert await self.tail(repository, key, lease, 3) == ()
        assert await publish(repository, key, lease, b"de", first=4, is_end=True)
        assert await self.tail(repository, key, lease, 3) == (Batch(last=5, data=b"de", is_end=True),)

    async def test_batches_are_counted_and_not_spelled(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        for number in range(1, 13):
            assert await publish(repository, key, lease, b"x", first=number)
        assert [batch.last for batch in await self.tail(repository, key, lease, 8)] == [9, 10, 11, 12]

    async def test_a_batch_that_is_sent_again_because_its_reply_was_lost_adds_nothing(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        for _ in range(2):
            assert await publish(repository, key, lease, b"ab")
        for _ in range(2):
            assert await publish(repository, key, lease, b"c", first=3, is_end=True)
        assert [batch.data for batch in await self.tail(repository, key, lease, 0)] == [b"ab", b"c"]

    async def test_who_comes_too_late_for_the_first_chunks_can_see_it(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        for first, data in ((1, b"ab"), (3, b"cd"), (5, b"ef")):
            assert await publish(repository, key, lease, data, first=first, most=2)
        batches = await self.tail(repository, key, lease, 0)
        assert [(batch.last, batch.data) for batch in batches] == [(4, b"cd"), (6, b"ef")]
        assert batches[0].last - len(batches[0].data) > 0

    async def test_a_stream_may_end_without_a_chunk(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        assert await publish(repository, key, lease, b"", is_end=True)
        assert await self.tail(repository, key, lease, 0) == (Batch(last=0, data=b"", is_end=True),)

    async def test_the_end_may_come_after_the_last_chunk(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        assert await publish(repository, key, lease, b"ab")
        for _ in range(2):
            assert await publish(repository, key, lease, b"", first=3, is_end=True)
        assert await self.tail(repository, key, lease, 2) == (Batch(last=2, data=b"", is_end=True),)

    async def test_a_pause_adds_nothing_and_keeps_what_there_is(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        name = chunks_place(repository, key, lease)
        assert await publish(repository, key, lease, b"")
        assert server.command("EXISTS", name) == 0
        assert await publish(repository, key, lease, b"ab")
        assert 9_000 < server.command("PTTL", name) <= 10_000
        server.command("PEXPIRE", name, 5_000)
        assert await publish(repository, key, lease, b"", first=3)
        assert 9_000 < server.command("PTTL", name) <= 10_000
        assert [batch.data for batch in await self.tail(repository, key, lease, 0)] == [b"ab"]

    @pytest.mark.parametrize("data", [b"", b"c"])
    async def test_a_leader_is_told_when_its_chunks_were_lost(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, data: bytes
    ) -> None:
        lease = await leads(repository, key)
        assert await publish(repository, key, lease, b"ab")
        server.command("DEL", chunks_place(repository, key, lease))
        assert not await publish(repository, key, lease, data, first=3)
        assert server.command("EXISTS", chunks_place(repository, key, lease)) == 0

    async def test_who_follows_is_told_when_there_is_nothing_to_follow(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        assert await repository.leases.tail(key, fence=lease.fence, count=0) == Tail(is_there=False)

    async def test_flights_of_one_key_do_not_mix_their_chunks(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        late = await leads(repository, key)
        assert await publish(repository, key, late, b"ab")
        server.command("DEL", place(repository, key, "lease"))
        newer = await leads(repository, key)
        assert await publish(repository, key, newer, b"xy")
        assert await publish(repository, key, late, b"c", first=3)
        assert [batch.data for batch in await self.tail(repository, key, late, 0)] == [b"ab", b"c"]
        assert [batch.data for batch in await self.tail(repository, key, newer, 0)] == [b"xy"]

    async def test_who_waits_gets_the_chunks_so_far_if_it_asks_for_them(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        assert await self.batches(repository, key, live=True) == ()
        assert await publish(repository, key, lease, b"ab")
        assert await publish(repository, key, lease, b"c", first=3)
        assert await self.batches(repository, key, live=True) == (
            Batch(last=2, data=b"ab", is_end=False),
            Batch(last=3, data=b"c", is_end=False),
        )
        assert await self.batches(repository, key, live=False) == ()

    @pytest.mark.parametrize("kind", [None, *(kind for kind in RecordKind if kind != RecordKind.UNSHARED)])
    async def test_a_failure_takes_the_chunks_away(
        self, repository: ResponseRepository, key: CacheKey, kind: RecordKind | None
    ) -> None:
        lease = await leads(repository, key)
        assert await publish(repository, key, lease, b"ab")
        await fail(repository, key, lease, kind)
        assert not (await repository.leases.tail(key, fence=lease.fence, count=0)).is_there
        assert not await publish(repository, key, lease, b"c", first=3)

    async def test_chunks_of_an_answer_that_is_stored_or_only_not_to_be_may_be_read_to_the_end(
        self, repository: ResponseRepository, key: CacheKey
    ) -> None:
        lease = await leads(repository, key)
        assert await publish(repository, key, lease, b"ab", is_end=True)
        await fail(repository, key, lease, RecordKind.UNSHARED)
        assert len(await self.tail(repository, key, lease, 0)) == 1
        lease = await leads(repository, key)
        assert await publish(repository, key, lease, b"ab", is_end=True)
        assert await commit(repository, key, lease) is WriteStatus.OK
        assert len(await self.tail(repository, key, lease, 0)) == 1

    async def test_any_bytes_may_be_a_chunk(self, repository: ResponseRepository, key: CacheKey) -> None:
        lease = await leads(repository, key)
        data = bytes(range(256))
        assert await publish(repository, key, lease, data)
        assert (await self.batches(repository, key, live=True))[0].data == data

    async def tail(
        self, repository: ResponseRepository, key: CacheKey, lease: Lease, count: int
    ) -> tuple[Batch, ...]:
        tail = await repository.leases.tail(key, fence=lease.fence, count=count)
        assert tail.is_there
        return tail.batches

    async def batches(
        self, repository: ResponseRepository, key: CacheKey, *, live: bool
    ) -> tuple[Batch, ...]:
        reply = await ask(repository, key, live=live)
        assert isinstance(reply, Wait)
        return reply.batches


GARBAGE = [
    b"",
    b"x",
    b"\x00\xff\xfe",
    b"9" * 64,
    b"9" * 400,
    b"not ours at all, and longer than anything of ours would be" * 3,
    b'{"token": "somebody"}',
    b"f" * 32 + b" " * 32,
    b"f" * 32 + b"1e15" * 8,
    b"f" * 32 + b"-000000000000001" * 2,
]
KINDS = [kind.encode() for kind in RecordKind]
RECORD_HEADS = [
    b"",
    b"x",
    b"2026-11-25",
    b"x" * 32,
    b"0" * 31,
    b"0" * 16 + b"x" * 16,
    b"nan" + b"0" * 29,
    b"-" * 32,
    b"0x" * 16,
    b"~" * 32,
]
RECORD_REPORTS = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe",
    b'{"error_class":"\xff"}',
    b'{"status":"429"}',
    b'{"retry_after":1e999}',
    b'{"unknown":' + b"[" * 100_000,
    b"[" * 100_000,
]


class TestWhatIsNotOurs:
    """Values that others have written under our keys, or that were damaged."""

    @pytest.mark.parametrize("garbage", GARBAGE)
    async def test_a_lease_that_is_not_ours_is_nobodys(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, garbage: bytes
    ) -> None:
        await self.check_lease(repository, server, key, garbage)

    @pytest.mark.parametrize(
        "fence", [b"", b"x", b"x" * 16, b"0" * 15 + b"x", b" " * 16, b"nan", b"-inf", b"1e300"]
    )
    async def test_a_lease_with_a_fence_that_is_not_ours_is_nobodys(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, fence: bytes
    ) -> None:
        birth = (await leads(repository, key)).birth.encode()
        # With marks to compare it with.
        await repository.delete(key)
        await repository.clear()
        await self.check_lease(repository, server, key, b"f" * 32 + fence.ljust(16, b" ") + birth)
        await self.check_lease(repository, server, key, b"f" * 32 + fence + birth)

    async def check_lease(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, garbage: bytes
    ) -> None:
        name = place(repository, key, "lease")

        def write() -> None:
            server.command("SET", name, garbage, "PX", 60_000)

        write()
        assert await ask(repository, key, mode="follow") == Absent()
        write()
        lease = await leads(repository, key, live=True)
        assert await ask(repository, key, token=lease.token) == lease
        assert isinstance(await ask(repository, key), Wait)
        write()
        assert not await repository.leases.renew(key, lease)
        await fail(repository, key, lease, RecordKind.RATE_LIMITED)
        again = await leads(repository, key)
        write()
        assert await commit(repository, key, again) is WriteStatus.OK
        await repository.delete(key)

    async def test_a_lease_of_another_type_is_nobodys(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        name = place(repository, key, "lease")

        def write() -> None:
            server.command("DEL", name)
            server.command("RPUSH", name, "x")
            server.command("PEXPIRE", name, 60_000)

        write()
        lease = await leads(repository, key)
        assert isinstance(await ask(repository, key), Wait)
        write()
        assert not await repository.leases.renew(key, lease)
        await fail(repository, key, lease)
        assert await commit(repository, key, lease) is WriteStatus.OK

    @pytest.mark.parametrize("kind", [b"", b"x", b"\x00", *KINDS])
    async def test_word_that_is_not_ours_is_no_word(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, kind: bytes
    ) -> None:
        since = await self.since(repository, key)
        for head in RECORD_HEADS if kind in KINDS else [*RECORD_HEADS, b"9" * 32]:
            for report in (b"", b"\xff" * 40):
                value = kind + head + report
                server.command("SET", place(repository, key, "error"), value, "PX", 60_000)
                lease = await leads(repository, key)
                assert isinstance(await ask(repository, key, since=since), Wait), value
                # Nor does it count as the first of two failures.
                await fail(repository, key, lease, RecordKind.PASSING)
                lease = await leads(repository, key, since=since)
                await fail(repository, key, lease)

    async def test_word_of_another_type_is_no_word(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        name = place(repository, key, "error")
        server.command("RPUSH", name, "x")
        server.command("PEXPIRE", name, 60_000)
        lease = await leads(repository, key)
        await fail(repository, key, lease, RecordKind.RATE_LIMITED)
        assert told(await ask(repository, key)) == REPORT

    @pytest.mark.parametrize("report", RECORD_REPORTS)
    async def test_a_report_that_cannot_be_read_says_nothing(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey, report: bytes
    ) -> None:
        lease = await leads(repository, key)
        value = b"R" + lease.fence.encode() + b"0" * 16 + report
        server.command("SET", place(repository, key, "error"), value, "PX", 60_000)
        reply = await ask(repository, key)
        assert isinstance(reply, SharedFailure)
        assert reply.report == FailureReport()

    async def test_a_failure_from_the_future_is_not_younger_than_now(
        self, repository: ResponseRepository, server: Server | Cluster, key: CacheKey
    ) -> None:
        """The server's clock stepped back, or another's was ahead before a fail-over."""
        value = b"R" + b"3000000000000000" + b"0" * 16 + b"{}"
        server.command("SET", place(repository, key, "error"), value, "PX", 60_000)
        reply = await ask(repository, key)
        assert isinstance(reply, SharedFailure)
        assert reply.age == 0

    async def since(self, repository: ResponseRepository, key: CacheKey) -> str:
        lease = await leads(repository, key)
        since = await waits(repository, key)
        await fail(repository, key, lease)
        return since


class TestAnswersThatCannotBeStored:
    async def test_an_answer_beyond_the_bound_sends_those_who_waited_off_alone(
        self, server: Server | Cluster, namespace: str, key: CacheKey
    ) -> None:
        async with opened(
            server, namespace=namespace, max_bytes=64 * 5_000, max_entry_bytes=5_000, compress_from=10**6
        ) as repository:
            lease = await leads(repository, key)
            waiting = [await waits(repository, key) for _ in range(2)]
            big = "x" * (64 * 5_000)
            assert await commit(repository, key, lease, big) is WriteStatus.TOO_BIG
            assert all([is_alone(await ask(repository, key, since=since)) for since in waiting])
            assert 0 < server.command("PTTL", place(repository, key, "error")) <= 2_000
            await leads(repository, key)

    async def test_an_answer_a_full_server_refuses_sends_those_who_waited_off_alone(
        self, tmp_path: Path, namespace: str, key: CacheKey
    ) -> None:
        with redis_server(tmp_path, "--maxmemory-policy", "noeviction") as full:
            async with opened(full, namespace=namespace, error_ttl=60.0) as repository:
                lease = await leads(repository, key)
                since = await waits(repository, key)
                full.command("CONFIG", "SET", "maxmemory", "1mb")
                assert await commit(repository, key, lease) is WriteStatus.ERR
                # There is room for the word, but no fence to be had before there is for that, too.
                assert full.command("GET", place(repository, key, "error"))[:1] == b"U"
                assert full.command("EXISTS", place(repository, key, "lease")) == 0
                full.command("CONFIG", "SET", "maxmemory", "0")
                assert is_alone(await ask(repository, key, since=since))
                await leads(repository, key)

    async def test_who_has_no_lease_leaves_no_word(
        self, server: Server | Cluster, namespace: str, key: CacheKey
    ) -> None:
        async with opened(
            server, namespace=namespace, max_bytes=64 * 5_000, max_entry_bytes=5_000, compress_from=10**6
        ) as repository:
            lease = await leads(repository, key)
            since = await waits(repository, key)
            alone = await ask(repository, key, mode="fence")
            assert isinstance(alone, Lease)
            big = "x" * (64 * 5_000)
            assert await commit(repository, key, alone, big) is WriteStatus.TOO_BIG
            assert isinstance(await ask(repository, key, since=since), Wait)
            assert await commit(repository, key, lease, "small") is WriteStatus.OK
            assert isinstance(await ask(repository, key, since=since), Found)
