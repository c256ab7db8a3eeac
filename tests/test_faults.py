"""What breaks between us and the server costs an answer never, and time within the budget only.

Clocks on a busy machine lie: what can be counted is counted, and what is timed has slack.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis
from faultproxy import FaultProxy
from servers import valkey_server
from waiting import wait_until_async

from llmcache_plugins import (
    CacheConfig,
    CachePolicy,
    InferenceGateway,
    Outcome,
    ResponseCache,
    ResponseRepository,
)
from llmcache_plugins.repository.scripts import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator
    from pathlib import Path

    from servers import Server

BUDGET = 0.05
SLACK = 0.25
"""Seconds that a busy machine may add to anything."""
LEASE = 10.0
NOBODY = "redis://127.0.0.1:1"
"""Nothing listens on port 1."""


class Provider:
    """Counts, takes its time, answers by number; `working` holds the calls under way until `gate` opens."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, query: Any) -> str:
        self.calls += 1
        await self.gate.wait()
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return f"answer to {query['q']}"


@pytest.fixture
async def provider() -> Provider:
    return Provider()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that only this test breaks."""
    with valkey_server(tmp_path, "--requirepass", "right", tcp=True) as server:
        yield server


@pytest.fixture
async def proxy(valkey: Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(valkey.url) as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def using(url: str, provider: Any, namespace: str, **settings: Any) -> AsyncIterator[InferenceGateway]:
    """Yield a gateway whose cache was not connected beforehand, as in most programs."""
    cache = ResponseCache.from_url(url, namespace=namespace, **settings)
    try:
        yield InferenceGateway(provider, cache)
    finally:
        await cache.aclose()


async def ask(gateway: InferenceGateway, question: object) -> Outcome:
    """Ask, check that the answer is the right one, and return how it came about."""
    resolution = await gateway.resolve_detailed({"q": question})
    assert resolution.answer == f"answer to {question}"
    return resolution.outcome


async def timed(work: Awaitable[Any]) -> float:
    """Return the seconds that `work` took, without those for which the machine had no time for this loop."""
    began, withheld = time.perf_counter(), 0.0

    async def watch() -> None:
        nonlocal withheld
        while True:
            slept = time.perf_counter()
            await asyncio.sleep(0.005)
            withheld += time.perf_counter() - slept - 0.005

    watching = asyncio.create_task(watch())
    try:
        await work
    finally:
        watching.cancel()
    return time.perf_counter() - began - withheld


async def until(gateway: InferenceGateway, question: object, wanted: Outcome, timeout: float = 8.0) -> None:
    """Ask until the outcome is `wanted`."""

    async def is_wanted() -> bool:
        return await ask(gateway, question) is wanted

    await wait_until_async(is_wanted, description=f"a call is a {wanted}", timeout=timeout)


async def until_stored(gateway: InferenceGateway, server: Server, question: object) -> None:
    name = gateway.cache.repository.redis_key(gateway.key_of({"q": question}))
    await wait_until_async(lambda: server.command("EXISTS", name), description="the answer is stored")


def leases(server: Server, namespace: str) -> list[bytes]:
    return list(server.command("KEYS", f"llm:{{{namespace}.*}}:lease:*"))


async def warm_up(gateway: InferenceGateway) -> None:
    """Connect, and more than once: a lookup and an acquire of one moment want a connection each."""
    repository = gateway.cache.repository
    await repository.ping()
    client = repository._links.current().topology._client  # type: ignore[attr-defined]
    await asyncio.gather(*(client.ping() for _ in range(4)))
    await until(gateway, "warm 0", Outcome.HIT)


async def openings(gateway: InferenceGateway) -> int:
    return gateway.cache.repository.telemetry.snapshot().breaker_openings


class TestNobodyListens:
    async def test_every_call_succeeds_and_soon_costs_nothing(self, provider: Provider, namespace: str):
        async with using(NOBODY, provider, namespace) as gateway:
            for number in range(10):
                assert await ask(gateway, number) is Outcome.UNAVAILABLE
            assert await openings(gateway) == 1
            took = [await timed(ask(gateway, f"more {number}")) for number in range(100)]
            assert statistics.median(took) < BUDGET / 5
            assert provider.calls == 110
            assert await openings(gateway) == 1

    async def test_a_call_costs_the_budget_at_most(self, provider: Provider, namespace: str):
        async with using(NOBODY, provider, namespace) as gateway:
            for number in range(6):
                assert await timed(ask(gateway, number)) < BUDGET + SLACK

    async def test_local_callers_still_share_one_call(self, provider: Provider, namespace: str):
        async with using(NOBODY, provider, namespace) as gateway:
            for number in range(10):  # before and after the breaker opens
                provider.gate.clear()
                calls = [asyncio.create_task(ask(gateway, number)) for _ in range(20)]
                await wait_until_async(
                    lambda n=number: provider.calls == n + 1, description="the provider is called"
                )
                provider.gate.set()
                outcomes = await asyncio.gather(*calls)
                assert sorted(outcomes) == [Outcome.COALESCED] * 19 + [Outcome.UNAVAILABLE]
            assert provider.calls == 10

    async def test_entering_the_cache_neither_fails_nor_takes_long(self, provider: Provider, namespace: str):
        cache = ResponseCache.from_url(NOBODY, namespace=namespace)
        began = time.perf_counter()
        async with InferenceGateway(provider, cache) as gateway:
            assert await ask(gateway, 1) is Outcome.UNAVAILABLE
        assert time.perf_counter() - began < 1.0 + BUDGET + SLACK

    async def test_a_provider_s_error_passes_unchanged(self, provider: Provider, namespace: str):
        provider.error = ValueError("no")
        async with using(NOBODY, provider, namespace) as gateway:
            for _ in range(8):
                with pytest.raises(ValueError, match="no") as caught:
                    await gateway.resolve({"q": 1})
                assert caught.value is provider.error

    async def test_streams_pass(self, namespace: str):
        class Streams:
            async def complete(self, _query: Any) -> str:
                return "ab"

            async def stream(self, _query: Any) -> AsyncIterator[str]:
                yield "a"
                yield "b"

        async with using(NOBODY, Streams(), namespace) as gateway:
            for _ in range(8):
                assert [chunk async for chunk in gateway.stream({"q": 1})] == ["a", "b"]

    async def test_when_the_server_comes_hits_return_by_themselves(
        self, provider: Provider, proxy: FaultProxy, namespace: str
    ):
        await proxy.refuse()
        async with using(proxy.url, provider, namespace) as gateway:
            for number in range(8):
                await ask(gateway, number)
            assert await openings(gateway) == 1
            await proxy.restore()
            await until(gateway, "again", Outcome.HIT)
            assert await openings(gateway) == 1


class TestKilled:
    async def test_while_idle_calls_succeed_and_hits_return_after_a_restart(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        async with using(own_server.url, provider, namespace) as gateway:
            await warm_up(gateway)
            own_server.kill()
            for number in range(10):
                assert await ask(gateway, number) is Outcome.UNAVAILABLE
            assert await openings(gateway) == 1
            own_server.restart()
            await until(gateway, "again", Outcome.HIT)

    async def test_and_restarted_at_once_nobody_notices_but_by_a_miss(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        async with using(own_server.url, provider, namespace, lookup_budget=2.0) as gateway:
            await warm_up(gateway)
            own_server.restart()
            assert await ask(gateway, "warm 0") is Outcome.MISS  # its scripts are gone as well
            assert await ask(gateway, "warm 0") is Outcome.HIT

    async def test_while_a_call_runs_all_who_wait_get_its_answer(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        async with using(own_server.url, provider, namespace) as gateway:
            await warm_up(gateway)
            provider.gate.clear()
            before = provider.calls
            calls = [asyncio.create_task(ask(gateway, "x")) for _ in range(10)]
            await wait_until_async(lambda: provider.calls > before, description="the provider is called")
            own_server.kill()
            provider.gate.set()
            assert await timed(asyncio.gather(*calls)) < 0.5 + SLACK  # the commit budget
            assert provider.calls == before + 1

    async def test_and_back_before_the_call_ends_its_answer_is_stored(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        """Unless the marks are gone, which only the server's memory held: then the next call is stored."""
        async with using(own_server.url, provider, namespace) as gateway:
            await warm_up(gateway)
            provider.gate.clear()
            calling = asyncio.create_task(ask(gateway, "x"))
            await wait_until_async(lambda: leases(own_server, namespace), description="a lease is held")
            own_server.restart()
            provider.gate.set()
            await calling
            await until(gateway, "x", Outcome.HIT)
            assert not leases(own_server, namespace)

    async def test_who_follows_another_process_calls_by_itself(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        leading = Provider()
        leading.gate.clear()
        async with (
            using(own_server.url, leading, namespace) as leader,
            using(own_server.url, provider, namespace) as follower,
        ):
            await warm_up(follower)
            first = asyncio.create_task(ask(leader, "x"))
            await wait_until_async(lambda: leases(own_server, namespace), description="a lease is held")
            second = asyncio.create_task(ask(follower, "x"))
            stats = follower.cache.repository.telemetry.stats
            await wait_until_async(lambda: stats.leases["followed"], description="the other one follows")
            own_server.kill()
            assert await asyncio.wait_for(second, 3) is Outcome.UNAVAILABLE
            leading.gate.set()
            await first


class TestHung:
    async def test_calls_cost_the_budget_then_nothing_and_hits_return_by_themselves(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        async with using(own_server.url, provider, namespace) as gateway:
            await warm_up(gateway)
            own_server.pause()
            asked = 0
            while not await openings(gateway):
                assert await timed(ask(gateway, f"{asked}")) < BUDGET + SLACK
                asked += 1
                assert asked < 100, "the breaker never opened"
            took = [await timed(ask(gateway, f"more {number}")) for number in range(50)]
            assert statistics.median(took) < BUDGET / 5
            own_server.resume()
            await until(gateway, "warm 0", Outcome.HIT)
            await until(gateway, "again", Outcome.HIT)
            assert await openings(gateway) == 1

    async def test_local_callers_still_share_one_call(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        async with using(own_server.url, provider, namespace) as gateway:
            await warm_up(gateway)
            before = provider.calls
            provider.seconds = 0.1
            own_server.pause()
            outcomes = await asyncio.gather(*(ask(gateway, "x") for _ in range(20)))
            assert sorted(outcomes) == [Outcome.COALESCED] * 19 + [Outcome.UNAVAILABLE]
            assert provider.calls == before + 1

    async def test_a_hang_that_ends_leaves_no_lease_that_others_wait_for(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        """What was sent to a hung server it carries out when it wakes up, whoever has given up meanwhile."""
        async with using(own_server.url, provider, namespace) as gateway:
            await warm_up(gateway)
            for number in range(5):
                own_server.pause()
                assert await ask(gateway, number) is Outcome.UNAVAILABLE
                await asyncio.sleep(0.4)  # past the socket's time limit: the client has closed the connection
                own_server.resume()
                took = await timed(ask(gateway, number))
                assert took < LEASE / 4
                await until(gateway, number, Outcome.HIT, timeout=LEASE / 2)

    async def test_a_hang_during_the_commit_holds_its_caller_up_for_the_commit_budget_at_most(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        async with using(own_server.url, provider, namespace, commit_budget=0.1) as gateway:
            await warm_up(gateway)
            provider.gate.clear()
            calling = asyncio.create_task(ask(gateway, "x"))
            await wait_until_async(lambda: leases(own_server, namespace), description="a lease is held")
            own_server.pause()
            provider.gate.set()
            assert await timed(calling) < 0.1 + SLACK
            own_server.resume()
            await until(gateway, "x", Outcome.HIT)

    async def test_closing_does_not_wait_for_a_hung_server(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        cache = ResponseCache.from_url(own_server.url, namespace=namespace)
        gateway = InferenceGateway(provider, cache)
        await warm_up(gateway)
        own_server.pause()
        await ask(gateway, "x")
        assert await timed(cache.aclose()) < 2.0
        own_server.resume()


class TestSlowLink:
    @pytest.mark.parametrize("seconds", [0.0, 0.3], ids=["fast provider", "slow provider"])
    async def test_with_20_ms_each_way_the_second_call_hits(
        self, provider: Provider, proxy: FaultProxy, valkey: Server, namespace: str, seconds: float
    ):
        """A lookup and an acquire together take longer than the budget: the lease comes late each time."""
        async with using(valkey.url, provider, namespace) as earlier:
            await until(earlier, "marks are there now", Outcome.HIT)
        proxy.delay = 0.02
        provider.seconds, provider.calls = seconds, 0
        cache = ResponseCache.from_url(proxy.url, namespace=namespace)
        async with InferenceGateway(provider, cache) as gateway:
            assert await ask(gateway, "x") in (Outcome.MISS, Outcome.UNAVAILABLE)
            await until_stored(gateway, valkey, "x")
            assert provider.calls == 1

            async def nearly_all_hit() -> bool:
                outcomes = [await ask(gateway, "x") for _ in range(20)]
                return outcomes.count(Outcome.HIT) >= 15

            # 40 of 50 ms are the link's. A busy machine may not have the other 10 for half a second, and then
            # the breaker is open for one more.
            await wait_until_async(nearly_all_hit, description="15 of 20 calls hit", timeout=15)

    async def test_in_a_new_namespace_the_second_call_is_stored(
        self, provider: Provider, proxy: FaultProxy, valkey: Server, namespace: str
    ):
        """The first one's is not: its call is older than the namespace's memory of invalidations."""
        proxy.delay = 0.02
        provider.seconds = 0.6
        async with using(proxy.url, provider, namespace) as gateway:
            assert await ask(gateway, "x") is Outcome.UNAVAILABLE
            await ask(gateway, "x")
            await until_stored(gateway, valkey, "x")
            await until(gateway, "x", Outcome.HIT, timeout=2)
            assert provider.calls == 2

    async def test_the_first_call_of_a_later_process_is_stored_too(
        self, provider: Provider, proxy: FaultProxy, valkey: Server, namespace: str
    ):
        async with using(valkey.url, provider, namespace) as earlier:
            await until(earlier, "marks are there now", Outcome.HIT)
        proxy.delay = 0.02
        provider.seconds = 0.6
        async with using(proxy.url, provider, namespace) as gateway:
            assert await ask(gateway, "x") is Outcome.UNAVAILABLE
            await until_stored(gateway, valkey, "x")

    async def test_an_answer_whose_lease_came_late_obeys_an_invalidation_before_it(
        self, provider: Provider, proxy: FaultProxy, valkey: Server, namespace: str
    ):
        async with using(valkey.url, provider, namespace) as other:
            await until(other, "marks are there now", Outcome.HIT)
            proxy.delay = 0.05
            provider.gate.clear()
            before = provider.calls
            async with using(proxy.url, provider, namespace) as gateway:
                calling = asyncio.create_task(ask(gateway, "x"))
                await wait_until_async(lambda: provider.calls > before, description="the provider is called")
                assert not leases(valkey, namespace)  # still connecting
                await other.invalidate({"q": "x"})
                await wait_until_async(lambda: leases(valkey, namespace), description="the lease comes")
                proxy.delay = 0.0
                provider.gate.set()
                await calling
                await wait_until_async(
                    lambda: not leases(valkey, namespace), description="the lease is released"
                )
            assert await ask(other, "x") is Outcome.MISS

    async def test_a_link_beyond_the_budget_costs_the_budget_and_no_answer(
        self, provider: Provider, proxy: FaultProxy, namespace: str
    ):
        proxy.delay = 0.1
        async with using(proxy.url, provider, namespace) as gateway:
            took = [await timed(ask(gateway, number)) for number in range(8)]
            assert statistics.median(took) < BUDGET + SLACK / 2
            assert max(took) < BUDGET + 2 * SLACK

    async def test_a_lease_that_nobody_needs_when_it_comes_is_given_back(
        self, provider: Provider, proxy: FaultProxy, valkey: Server, namespace: str
    ):
        async with using(proxy.url, provider, namespace) as gateway:
            await warm_up(gateway)
            await asyncio.sleep(0.3)  # a late lease is dated back, and must not come before the marks
            proxy.delay = 0.06
            for number in range(3):
                assert (
                    await ask(gateway, number) is Outcome.UNAVAILABLE
                )  # its provider is faster than the link
            await wait_until_async(
                lambda: not gateway.cache._tasks.current()._tasks, description="all requests are answered"
            )
            assert not leases(valkey, namespace)
            for number in range(3):
                await until_stored(gateway, valkey, number)  # used, if late: nobody had to wait for it

    async def test_a_caller_that_leaves_before_its_lease_comes_gives_it_back(
        self, provider: Provider, proxy: FaultProxy, valkey: Server, namespace: str
    ):
        provider.gate.clear()
        async with using(proxy.url, provider, namespace) as gateway:
            await gateway.cache.repository.ping()
            proxy.delay = 0.06
            before = provider.calls
            calling = asyncio.create_task(ask(gateway, "x"))
            await wait_until_async(lambda: provider.calls > before, description="the provider is called")
            calling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await calling
            await wait_until_async(
                lambda: not gateway.cache._tasks.current()._tasks, description="all requests are answered"
            )
            assert not leases(valkey, namespace)


class TestLostReplies:
    @pytest.mark.parametrize("seconds", [0.0, 0.4], ids=["fast provider", "slow provider"])
    async def test_of_an_acquire_leave_no_lease_that_the_next_one_waits_for(
        self, provider: Provider, proxy: FaultProxy, valkey: Server, namespace: str, seconds: float
    ):
        async with (
            using(proxy.url, provider, namespace) as gateway,
            using(valkey.url, provider, namespace) as other,
        ):
            await warm_up(gateway)
            await warm_up(other)
            provider.seconds = seconds
            proxy.drop_reply(lambda request: b"EVALSHA" in request and b"\r\nlead\r\n" in request)
            assert await ask(gateway, "x") is Outcome.UNAVAILABLE
            assert proxy.dropped >= 1
            await proxy.restore()
            assert await timed(ask(other, "x")) < LEASE / 4 + seconds
            await until(other, "x", Outcome.HIT, timeout=2)
            await wait_until_async(
                lambda: not leases(valkey, namespace), description="no lease is left", timeout=3
            )

    async def test_of_a_commit_cost_no_answer_and_leave_it_stored(
        self, provider: Provider, proxy: FaultProxy, valkey: Server, namespace: str
    ):
        async with using(proxy.url, provider, namespace) as gateway:
            await warm_up(gateway)
            provider.gate.clear()
            calling = asyncio.create_task(ask(gateway, "x"))
            await wait_until_async(lambda: leases(valkey, namespace), description="a lease is held")
            proxy.drop_reply(b"answer to x")
            provider.gate.set()
            assert await calling is Outcome.MISS
            await proxy.restore()
            await until(gateway, "x", Outcome.HIT, timeout=2)
            assert not leases(valkey, namespace)

    async def test_of_everything_cost_no_answer(self, provider: Provider, proxy: FaultProxy, namespace: str):
        async with using(proxy.url, provider, namespace) as gateway:
            await warm_up(gateway)
            proxy.drop_reply(lambda _: True)
            for number in range(5):
                await ask(gateway, number)
            await proxy.restore()
            await until(gateway, "again", Outcome.HIT)

    async def test_a_connection_that_breaks_at_the_commit_keeps_nobody_waiting(
        self, provider: Provider, proxy: FaultProxy, valkey: Server, namespace: str
    ):
        async with (
            using(proxy.url, provider, namespace) as gateway,
            using(valkey.url, provider, namespace) as other,
        ):
            await warm_up(gateway)
            await warm_up(other)
            provider.gate.clear()
            calling = asyncio.create_task(ask(gateway, "x"))
            await wait_until_async(lambda: leases(valkey, namespace), description="a lease is held")
            proxy.mode = "reset"
            provider.gate.set()
            await calling
            await proxy.restore()
            assert await timed(ask(other, "x")) < LEASE / 4

    @pytest.mark.parametrize("fails", [True, False], ids=["provider fails", "provider answers"])
    async def test_a_renewal_that_arrives_late_does_not_take_a_lease_again_that_was_given_up(
        self,
        provider: Provider,
        valkey: Server,
        namespace: str,
        fails: bool,
        monkeypatch: pytest.MonkeyPatch,
    ):
        """1. A renewal is on its way, slowly. 2. The call ends and its lease is released over a faster
        connection. 3. The renewal arrives, finds no lease and takes it."""
        async with using(
            valkey.url, provider, namespace, lease_ttl=6.0, lookup_budget=3.0, socket_timeout=3.0
        ) as gateway:
            await warm_up(gateway)
            link = gateway.cache.repository._links.current()
            topology = link.topology
            run, sent, may_arrive, arrived = topology.run, *(asyncio.Event() for _ in range(3))
            renew = SCRIPTS["renew"].sha

            async def slowly(commands: Any) -> Any:
                if not any(renew in command for command in commands):
                    return await run(commands)
                sent.set()
                await may_arrive.wait()
                replies = await run(commands)
                arrived.set()
                return replies

            monkeypatch.setattr(topology, "run", slowly)
            monkeypatch.setattr(link._scripts, "_run_now", lambda *_: False)
            monkeypatch.setattr(type(gateway.cache.config), "renew_every", 0.01)
            provider.gate.clear()
            provider.error = ConnectionError("reset") if fails else None
            calling = asyncio.create_task(gateway.resolve({"q": "x"}))
            await asyncio.wait_for(sent.wait(), 3)
            provider.gate.set()
            with pytest.raises(ConnectionError) if fails else contextlib.nullcontext():
                await calling
            may_arrive.set()
            await arrived.wait()
            await wait_until_async(
                lambda: not leases(valkey, namespace), description="no lease is left", timeout=3
            )


class TestRefusingServer:
    async def test_a_wrong_password_costs_no_answer_and_is_given_up(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        url = own_server.url.replace("right", "wrong")
        async with using(url, provider, namespace) as gateway:
            for number in range(8):
                assert await timed(ask(gateway, number)) < BUDGET + SLACK
            assert await openings(gateway) == 1
            assert provider.calls == 8

    async def test_a_password_is_never_logged(
        self, provider: Provider, own_server: Server, namespace: str, caplog: pytest.LogCaptureFixture
    ):
        async with using(own_server.url.replace("right", "s3cr3t"), provider, namespace) as gateway:
            for number in range(8):
                await ask(gateway, number)
        assert caplog.records
        assert "s3cr3t" not in caplog.text

    async def test_a_user_without_scripts_costs_no_answer_and_opens_no_breaker(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        own_server.command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@all", "-evalsha")
        url = own_server.tcp_url.replace(":right@", "reader:pw@")
        async with using(url, provider, namespace) as gateway:
            for number in range(8):
                assert await ask(gateway, number) is Outcome.UNAVAILABLE
            assert await openings(gateway) == 0
            assert provider.calls == 8

    async def test_a_user_that_may_only_read_is_served_what_is_stored(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        async with using(own_server.url, provider, namespace) as gateway:
            await until(gateway, "x", Outcome.HIT)
        own_server.command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "&*", "+@all", "-evalsha")
        before = provider.calls
        async with using(own_server.tcp_url.replace(":right@", "reader:pw@"), provider, namespace) as gateway:
            await until(gateway, "x", Outcome.HIT, timeout=2)
            assert provider.calls <= before + 1

    @pytest.mark.parametrize("ttl", [600, 3600])
    async def test_a_full_server_costs_no_answer_is_not_filled_further_and_serves_what_it_has(
        self, provider: Provider, own_server: Server, namespace: str, ttl: float
    ):
        async with using(own_server.url, provider, namespace, policy=CachePolicy(ttl=ttl)) as gateway:
            await until(gateway, "x", Outcome.HIT)
            _fill(own_server)
            before = provider.calls
            for number in range(8):
                assert await ask(gateway, number) in (Outcome.UNAVAILABLE, Outcome.MISS)
                assert await ask(gateway, "x") is Outcome.HIT
            assert provider.calls == before + 8
            assert await openings(gateway) == 0
            assert not leases(own_server, namespace)
            assert len(own_server.command("KEYS", f"llm:{{{namespace}.*}}:resp:*")) == 1
            _make_room(own_server)
            await until(gateway, 0, Outcome.HIT, timeout=2)

    async def test_a_server_that_fills_up_during_a_call_keeps_no_lease(
        self, provider: Provider, own_server: Server, namespace: str
    ):
        async with using(own_server.url, provider, namespace) as gateway:
            await warm_up(gateway)
            provider.gate.clear()
            calling = asyncio.create_task(gateway.resolve_detailed({"q": "x"}))
            await wait_until_async(lambda: leases(own_server, namespace), description="a lease is held")
            _fill(own_server)
            provider.gate.set()
            resolution = await calling
            assert resolution.answer == "answer to x"
            assert resolution.cache_status == "llmcache; fwd=uri-miss; detail=write_failed"
            assert not leases(own_server, namespace)

    async def test_a_server_that_is_loading_is_waited_for_by_nobody(
        self, provider: Provider, namespace: str, tmp_path: Path
    ):
        with valkey_server(
            tmp_path, "--key-load-delay", "20000", "--enable-protected-configs", "yes"
        ) as server:
            for number in range(100):
                server.command("SET", f"filler {number}", "x", "EX", 600)
            server.command("SAVE")
            server.kill()
            server.process = server._spawn()  # 100 keys at 20 ms each
            async with using(server.url, provider, namespace) as gateway:
                await wait_until_async(lambda: "Server initialized" in server.log, description="it listens")
                for number in range(8):
                    assert await timed(ask(gateway, number)) < BUDGET + SLACK
                await until(gateway, "again", Outcome.HIT)
                assert await openings(gateway) <= 1


def _fill(server: Server) -> None:
    server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.command(
        "CONFIG", "SET", "maxmemory", str(int(server.command("INFO", "memory")["used_memory"]) // 2)
    )
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        server.command("SET", "one more", "x", "EX", 60)


def _make_room(server: Server) -> None:
    server.command("CONFIG", "SET", "maxmemory", "0")


class TestBusyLoop:
    async def test_a_loop_that_is_held_up_does_not_make_an_outage_of_a_hit(
        self, provider: Provider, valkey: Server, namespace: str
    ):
        async with using(valkey.url, provider, namespace) as gateway:
            await until(gateway, "x", Outcome.HIT)
            async with _held_up(slice_seconds=0.03):
                outcomes = [await ask(gateway, "x") for _ in range(6)]
            assert outcomes == [Outcome.HIT] * 6
            assert await openings(gateway) == 0

    async def test_nor_of_a_miss(self, provider: Provider, valkey: Server, namespace: str):
        async with using(valkey.url, provider, namespace) as gateway:
            await warm_up(gateway)
            async with _held_up(slice_seconds=0.03):
                assert [await ask(gateway, number) for number in range(3)] == [Outcome.MISS] * 3
                assert [await ask(gateway, number) for number in range(3)] == [Outcome.HIT] * 3

    async def test_one_long_hold_up_does_not_open_the_breaker(
        self, provider: Provider, valkey: Server, namespace: str
    ):
        async with using(valkey.url, provider, namespace) as gateway:
            await warm_up(gateway)
            for number in range(3):
                calls = [asyncio.create_task(ask(gateway, f"{number} {i}")) for i in range(10)]
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                time.sleep(0.6)  # noqa: ASYNC251 - the hold-up
                await asyncio.gather(*calls)
            assert await openings(gateway) == 0
            await until(gateway, "warm 0", Outcome.HIT)


@contextlib.asynccontextmanager
async def _held_up(*, slice_seconds: float) -> AsyncIterator[None]:
    """Let another task compute, in slices, all the time."""

    async def compute() -> None:
        while True:
            ends = time.perf_counter() + slice_seconds
            while time.perf_counter() < ends:
                pass
            await asyncio.sleep(0)

    hog = asyncio.create_task(compute())
    try:
        yield
    finally:
        hog.cancel()
        await asyncio.gather(hog, return_exceptions=True)


class TestInvalidation:
    async def test_is_tried_until_it_is_acknowledged(
        self, provider: Provider, proxy: FaultProxy, namespace: str
    ):
        async with using(proxy.url, provider, namespace) as gateway:
            await until(gateway, "x", Outcome.HIT)
            await proxy.refuse()
            for number in range(8):
                await ask(gateway, number)
            assert await openings(gateway) == 1
            forgetting = asyncio.create_task(gateway.invalidate({"q": "x"}))
            await asyncio.sleep(0.3)  # tried in vain meanwhile
            await proxy.restore()
            assert await forgetting
            await until(gateway, "again", Outcome.HIT)
            assert await ask(gateway, "x") is Outcome.MISS


class TestUnusualSettings:
    async def test_a_repository_s_own_budget_counts(
        self, provider: Provider, proxy: FaultProxy, namespace: str
    ):
        config = CacheConfig(namespace=namespace, lookup_budget=3.0, socket_timeout=3.0)
        proxy.delay = 0.1
        async with InferenceGateway(provider, ResponseRepository(proxy.url, config=config)) as gateway:
            assert await ask(gateway, "x") is Outcome.MISS
            assert await ask(gateway, "x") is Outcome.HIT
