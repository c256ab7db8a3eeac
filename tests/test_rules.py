"""The rules of the lease protocol as callers of two processes see them: two caches on one server.

What one process alone does is in `test_singleflight`, what the server's scripts do in `test_leases`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest
from faultproxy import FaultProxy
from waiting import wait_until, wait_until_async

from llmcache_plugins import (
    CacheMiss,
    InferenceGateway,
    Mode,
    Outcome,
    ResponseCache,
    SharedProviderError,
    WaitTimeout,
)
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.errors import ConfigError
from llmcache_plugins.models import AnswerFacts, EncodedAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from servers import Server

PATIENT = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
QUERY = {"model": "m", "prompt": "the same for everybody"}


class StatusError(Exception):
    """An error of a provider as HTTP clients raise them."""

    def __init__(self, status: int | None, *, retry_after: float | None = None) -> None:
        super().__init__("secret words of the provider")
        self.status_code = status
        self.retry_after = retry_after


class Provider:
    """Answers its number, or raises the next of `errors`; waits at its gate."""

    def __init__(self, *errors: BaseException, gate: asyncio.Event | None = None) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.gate = gate or asyncio.Event()

    async def __call__(self, _query: Any) -> str:
        self.calls += 1
        number = self.calls
        error = self.errors.pop(0) if self.errors else None
        await self.gate.wait()
        if error is not None:
            raise error
        return f"answer {number}"


class Fleet:
    """Some caches on one server, as so many processes would be, and one provider behind all."""

    def __init__(self, url: str, namespace: str, provider: Provider, *, size: int, **settings: Any) -> None:
        settings = {**PATIENT, **settings}
        self.provider = provider
        self.caches = [ResponseCache.from_url(url, namespace=namespace, **settings) for _ in range(size)]
        self.gateways = [InferenceGateway(provider, cache) for cache in self.caches]

    async def lead(self, **options: Any) -> asyncio.Task[Any]:
        """Let the first one lead a call."""
        before = self.provider.calls
        # What connecting takes on a busy machine is no matter of these tests.
        await self.caches[0].repository.open()
        task = asyncio.create_task(self.gateways[0].resolve(QUERY, **options))
        await wait_until_async(lambda: self.provider.calls > before, description="the leader calls")
        return task

    async def follow(self, member: int, **options: Any) -> asyncio.Task[Any]:
        """Let another one follow; returns when it waits."""
        before = await self.followed(member)
        await self.caches[member].repository.open()
        task = asyncio.create_task(self.gateways[member].resolve(QUERY, **options))

        async def waits() -> bool:
            return await self.followed(member) > before and self.is_listening(member)

        await wait_until_async(waits, description=f"member {member} follows")
        return task

    async def followed(self, member: int) -> int:
        return (await self.caches[member].stats()).leases["followed"]

    async def has_led(self, member: int) -> bool:
        return (await self.caches[member].stats()).leases["led"] > 0

    def is_listening(self, member: int) -> bool:
        return self.caches[member].repository._links.current().wakes.channels > 0

    async def aclose(self) -> None:
        for cache in self.caches:
            await cache.aclose()


@pytest.fixture
async def fleet(valkey: Server, namespace: str) -> AsyncIterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def make(*errors: BaseException, size: int = 2, url: str = valkey.url, **settings: Any) -> Fleet:
        made.append(Fleet(url, namespace, Provider(*errors), size=size, **settings))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


def keys_of(server: Server, namespace: str, kind: str) -> list[bytes]:
    return list(server.command("KEYS", f"llm:{{{namespace}.*}}:{kind}:*"))


class TestWaking:
    async def test_a_follower_has_the_answer_long_before_it_would_look_by_itself(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet(poll_interval=30.0)
        leader, follower = await herd.lead(), await herd.follow(1)
        herd.provider.gate.set()
        assert await asyncio.wait_for(asyncio.gather(leader, follower), 5) == ["answer 1"] * 2
        assert herd.provider.calls == 1

    async def test_a_thousand_callers_cost_redis_what_one_does(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        herd = fleet(poll_interval=30.0)
        await herd.caches[0].repository.open()
        await herd.caches[1].repository.open()
        leader = await herd.lead()
        before = _commands(valkey)
        followers = [asyncio.create_task(herd.gateways[1].resolve(QUERY)) for _ in range(1000)]
        await wait_until_async(lambda: herd.is_listening(1), description="they follow")
        herd.provider.gate.set()
        answers = await asyncio.gather(leader, *followers)
        assert set(answers) == {"answer 1"}
        after = _commands(valkey)
        spent = {name: count - before.get(name, 0) for name, count in after.items()}
        # A lookup; two requests for the lease, before and after listening, one when woken; the commit, whose
        # script reads by MGET too.
        assert spent["mget"] == 2, spent
        assert spent["subscribe"] == 1, spent
        assert spent["evalsha"] <= 5, spent

    async def test_when_every_message_is_lost_the_followers_look_by_themselves(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        async with FaultProxy(valkey.tcp_url) as proxy:
            proxy.drop_reply(b"SUBSCRIBE")
            herd = fleet(url=proxy.url, poll_interval=0.1, socket_timeout=0.2)
            leader = await herd.lead()
            follower = await herd.follow(1)
            herd.provider.gate.set()
            assert await asyncio.wait_for(asyncio.gather(leader, follower), 5) == ["answer 1"] * 2
            assert herd.provider.calls == 1

    async def test_after_a_herd_nothing_is_left(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        herd = fleet(size=3)
        tasks = [await herd.lead(), await herd.follow(1), await herd.follow(2)]
        tasks[1].cancel()
        herd.provider.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not keys_of(valkey, namespace, "lease")
        assert not any(herd.is_listening(member) for member in range(3))
        await wait_until_async(
            lambda: not list(valkey.command("PUBSUB", "CHANNELS")), description="nobody is subscribed"
        )
        assert [cache.in_flight() for cache in herd.caches] == [0, 0, 0]


def _commands(server: Server) -> dict[str, int]:
    info = server.command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in info.items()}


class TestErrors:
    @pytest.mark.parametrize("status", [400, 404, 413, 422, 429])
    async def test_what_fails_for_everybody_is_asked_once_and_told_to_all(
        self, fleet: Callable[..., Fleet], status: int
    ):
        error = StatusError(status)
        herd = fleet(error, size=4)
        leader = await herd.lead()
        followers = [await herd.follow(member) for member in (1, 2, 3)]
        herd.provider.gate.set()
        outcomes = await asyncio.gather(leader, *followers, return_exceptions=True)
        assert outcomes[0] is error
        for shared in outcomes[1:]:
            assert isinstance(shared, SharedProviderError)
            assert (shared.status, shared.error_class) == (status, "StatusError")
            assert "secret" not in str(shared)
        assert herd.provider.calls == 1

    async def test_who_comes_after_a_rejected_request_may_try_again_but_not_after_a_rate_limit(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet(StatusError(400), StatusError(429, retry_after=20))
        herd.provider.gate.set()
        for expected in (StatusError, StatusError, SharedProviderError, SharedProviderError):
            with pytest.raises(expected):
                await herd.gateways[0].resolve(QUERY)
        assert herd.provider.calls == 2
        with pytest.raises(SharedProviderError) as told:
            await herd.gateways[1].resolve(QUERY)
        assert told.value.status == 429
        assert 15 < (told.value.retry_after or 0) <= 20

    @pytest.mark.parametrize(
        "error", [StatusError(500), StatusError(503), StatusError(408), ValueError("no")]
    )
    async def test_what_may_pass_elects_one_new_leader(self, fleet: Callable[..., Fleet], error: Exception):
        herd = fleet(error, size=4)
        leader = await herd.lead()
        followers = [await herd.follow(member) for member in (1, 2, 3)]
        herd.provider.gate.set()
        outcomes = await asyncio.gather(leader, *followers, return_exceptions=True)
        assert outcomes == [error, "answer 2", "answer 2", "answer 2"]
        assert herd.provider.calls == 2

    async def test_who_has_seen_two_leaders_fail_is_told_so_instead_of_trying_a_third(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet(StatusError(500), StatusError(503), size=5)
        leader = await herd.lead()
        followers = [await herd.follow(member) for member in (1, 2, 3, 4)]
        herd.provider.gate.set()
        outcomes = await asyncio.gather(leader, *followers, return_exceptions=True)
        assert herd.provider.calls == 2
        assert sorted(type(outcome).__name__ for outcome in outcomes) == [
            *["SharedProviderError"] * 3,
            *["StatusError"] * 2,
        ]

    async def test_bad_credentials_of_one_are_no_error_of_another(self, fleet: Callable[..., Fleet]):
        denied = StatusError(401)
        herd = fleet(denied, size=2)
        leader = await herd.lead()
        beside = asyncio.create_task(herd.gateways[0].resolve(QUERY))
        elsewhere = await herd.follow(1)
        herd.provider.gate.set()
        outcomes = await asyncio.gather(leader, beside, elsewhere, return_exceptions=True)
        assert outcomes == [denied, "answer 2", "answer 2"]

    async def test_where_all_credentials_are_bad_nobody_waits_in_line_for_that(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet(*(StatusError(403) for _ in range(40)), size=2)
        leader = await herd.lead()
        beside = [asyncio.create_task(herd.gateways[0].resolve(QUERY)) for _ in range(9)]
        elsewhere = [await herd.follow(1)]
        elsewhere += [asyncio.create_task(herd.gateways[1].resolve(QUERY)) for _ in range(9)]
        await asyncio.sleep(0)
        herd.provider.gate.set()
        outcomes = await asyncio.wait_for(
            asyncio.gather(leader, *beside, *elsewhere, return_exceptions=True), 5
        )
        assert all(isinstance(outcome, StatusError) for outcome in outcomes)

    async def test_the_caller_s_own_process_gets_the_error_as_it_is(self, fleet: Callable[..., Fleet]):
        error = StatusError(429)
        herd = fleet(error)
        tasks = [await herd.lead(), *(asyncio.create_task(herd.gateways[0].resolve(QUERY)) for _ in range(5))]
        await asyncio.sleep(0)
        herd.provider.gate.set()
        assert await asyncio.gather(*tasks, return_exceptions=True) == [error] * 6

    async def test_a_cancelled_leader_leaves_no_error_but_the_lead(self, fleet: Callable[..., Fleet]):
        herd = fleet(poll_interval=30.0)
        leader, follower = await herd.lead(), await herd.follow(1)
        leader.cancel()
        await asyncio.wait((leader,))
        herd.provider.gate.set()
        assert await asyncio.wait_for(follower, 5) == "answer 2"

    async def test_a_provider_s_class_of_error_is_raised_where_it_can_be_made(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet(StatusError(429))

        class Knows:
            complete = staticmethod(herd.provider)

            @staticmethod
            def error_of(shared: SharedProviderError) -> Exception:
                return StatusError(shared.status)

        leader = await herd.lead()
        herd.gateways[1] = InferenceGateway(Knows(), herd.caches[1])
        follower = await herd.follow(1)
        herd.provider.gate.set()
        outcomes = await asyncio.gather(leader, follower, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StatusError, StatusError]
        assert isinstance(outcomes[1].__cause__, SharedProviderError)


class TestUnshared:
    async def test_after_an_answer_that_must_not_be_shared_all_who_wait_call_at_once(
        self, fleet: Callable[..., Fleet]
    ):
        """A queue of them, one after another, would take a call's time each."""
        herd = fleet(size=4)
        gate = asyncio.Event()
        calls, at_once = 0, asyncio.Event()

        async def truncates(_query: Any) -> dict[str, Any]:
            nonlocal calls
            calls += 1
            if calls == 4:
                at_once.set()
            await (gate if calls == 1 else at_once).wait()
            return {"object": "chat.completion", "choices": [{"finish_reason": "length", "message": {}}]}

        herd.gateways = [InferenceGateway(truncates, cache) for cache in herd.caches]
        leader = asyncio.create_task(herd.gateways[0].resolve(QUERY))
        await wait_until_async(lambda: calls, description="the leader calls")
        followers = [await herd.follow(member) for member in (1, 2, 3)]
        gate.set()
        await asyncio.wait_for(asyncio.gather(leader, *followers), 5)
        assert calls == 4

    async def test_the_callers_beside_the_leader_share_even_that_answer(self, fleet: Callable[..., Fleet]):
        calls, gate = 0, asyncio.Event()

        async def truncates(_query: Any) -> dict[str, Any]:
            nonlocal calls
            calls += 1
            await gate.wait()
            return {"object": "chat.completion", "choices": [{"finish_reason": "length", "message": {}}]}

        gateway = InferenceGateway(truncates, fleet().caches[0])
        tasks = [asyncio.create_task(gateway.resolve(QUERY)) for _ in range(5)]
        await wait_until_async(lambda: calls, description="one calls")
        gate.set()
        await asyncio.gather(*tasks)
        assert calls == 1


class TestPatience:
    async def test_who_has_waited_long_enough_calls_once_for_its_process(self, fleet: Callable[..., Fleet]):
        herd = fleet(wait_timeout=0.3)
        leader = await herd.lead()
        followers = [await herd.follow(1)]
        followers += [asyncio.create_task(herd.gateways[1].resolve(QUERY)) for _ in range(20)]
        await wait_until_async(lambda: herd.provider.calls == 2, description="its process calls")
        herd.provider.gate.set()
        assert set(await asyncio.gather(*followers)) == {"answer 2"}
        assert await leader == "answer 1"
        assert herd.provider.calls == 2
        # The one that began later is the newer answer, whoever was stored first.
        assert await herd.gateways[0].resolve(QUERY) == "answer 2"

    async def test_or_is_told_that_nobody_had_the_answer(self, fleet: Callable[..., Fleet]):
        herd = fleet(wait_timeout=0.2, on_wait_timeout="raise")
        leader = await herd.lead()
        beside = asyncio.create_task(herd.gateways[0].resolve(QUERY))
        elsewhere = await herd.follow(1)
        outcomes = await asyncio.wait_for(asyncio.gather(beside, elsewhere, return_exceptions=True), 5)
        assert [type(outcome) for outcome in outcomes] == [WaitTimeout, WaitTimeout]
        herd.provider.gate.set()
        assert await leader == "answer 1"
        assert herd.provider.calls == 1

    async def test_each_has_the_whole_of_its_patience(self, fleet: Callable[..., Fleet]):
        herd = fleet(wait_timeout=0.5, on_wait_timeout="raise")
        leader, early = await herd.lead(), await herd.follow(1)
        await asyncio.wait((early,), timeout=0.4)
        began = time.monotonic()
        with pytest.raises(WaitTimeout):
            await herd.gateways[1].resolve(QUERY)
        assert time.monotonic() - began > 0.45
        with pytest.raises(WaitTimeout):
            await early
        herd.provider.gate.set()
        await leader

    async def test_a_time_limit_of_the_provider_s_is_not_taken_for_ours(self, fleet: Callable[..., Fleet]):
        herd = fleet(TimeoutError("the provider's"), wait_timeout=30, on_wait_timeout="raise")
        tasks = [await herd.lead(), asyncio.create_task(herd.gateways[0].resolve(QUERY))]
        await asyncio.sleep(0)
        herd.provider.gate.set()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert type(outcome) is TimeoutError


class TestModes:
    async def test_refresh_calls_and_replaces_what_is_stored(self, fleet: Callable[..., Fleet]):
        herd = fleet()
        herd.provider.gate.set()
        assert await herd.gateways[0].resolve(QUERY) == "answer 1"
        refreshed = await herd.gateways[1].resolve_detailed(QUERY, mode="refresh")
        assert (refreshed.answer, refreshed.outcome) == ("answer 2", Outcome.MISS)
        assert await herd.gateways[0].resolve(QUERY) == "answer 2"

    async def test_a_refresh_never_joins_a_call_and_its_newer_answer_stays(self, fleet: Callable[..., Fleet]):
        herd = fleet()
        leader, follower = await herd.lead(), await herd.follow(1)
        slow, herd.provider.gate = herd.provider.gate, asyncio.Event()
        herd.provider.gate.set()
        assert await herd.gateways[0].resolve(QUERY, mode=Mode.REFRESH) == "answer 2"
        slow.set()
        assert await leader == "answer 1"
        assert await follower in ("answer 1", "answer 2")
        assert await herd.gateways[1].resolve(QUERY) == "answer 2"

    async def test_read_only_never_calls(self, fleet: Callable[..., Fleet], valkey: Server, namespace: str):
        herd = fleet()
        with pytest.raises(CacheMiss):
            await herd.gateways[0].resolve(QUERY, mode="read_only")
        assert not keys_of(valkey, namespace, "lease")
        herd.provider.gate.set()
        await herd.gateways[0].resolve(QUERY)
        assert await herd.gateways[1].resolve(QUERY, mode="read_only") == "answer 1"
        assert herd.provider.calls == 1

    async def test_read_only_waits_for_a_call_that_is_under_way_here_or_elsewhere(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet()
        leader = await herd.lead()
        elsewhere = await herd.follow(1, mode="read_only")
        here = asyncio.create_task(herd.gateways[0].resolve(QUERY, mode="read_only"))
        await asyncio.sleep(0)
        herd.provider.gate.set()
        assert await asyncio.gather(leader, elsewhere, here) == ["answer 1"] * 3

    async def test_read_only_misses_when_that_call_fails(self, fleet: Callable[..., Fleet]):
        herd = fleet(StatusError(400), size=3)
        leader = await herd.lead()
        elsewhere = await herd.follow(1, mode="read_only")
        here = asyncio.create_task(herd.gateways[0].resolve(QUERY, mode="read_only"))
        await asyncio.sleep(0)
        herd.provider.gate.set()
        outcomes = await asyncio.gather(elsewhere, here, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [CacheMiss, CacheMiss]
        with pytest.raises(StatusError):
            await leader

    async def test_nobody_who_may_call_waits_for_one_who_may_not(self, fleet: Callable[..., Fleet]):
        herd = fleet()
        leader = await herd.lead()
        reader = await herd.follow(1, mode="read_only")
        caller = asyncio.create_task(herd.gateways[1].resolve(QUERY))
        await wait_until_async(lambda: herd.caches[1].in_flight() == 2, description="both are under way")
        leader.cancel()
        herd.provider.gate.set()
        assert await asyncio.wait_for(caller, 5) == "answer 2"
        with contextlib.suppress(CacheMiss):
            assert await asyncio.wait_for(reader, 5) == "answer 2"

    async def test_read_only_says_a_miss_when_redis_is_away(self, fleet: Callable[..., Fleet]):
        herd = fleet(url="redis://127.0.0.1:1")
        with pytest.raises(CacheMiss, match="repository"):
            await herd.gateways[0].resolve(QUERY, mode="read_only")

    async def test_off_asks_nobody_but_the_provider(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        herd = fleet()
        herd.provider.gate.set()
        for number in (1, 2):
            resolution = await herd.gateways[0].resolve_detailed(QUERY, mode="off")
            assert (resolution.answer, resolution.outcome) == (f"answer {number}", Outcome.BYPASS)
        assert not list(valkey.command("KEYS", f"llm:{{{namespace}.*}}:*"))

    async def test_a_cache_s_own_mode_holds_for_calls_that_do_not_say(self, fleet: Callable[..., Fleet]):
        herd = fleet(mode="read_only")
        with pytest.raises(CacheMiss):
            await herd.gateways[0].resolve(QUERY)
        herd.provider.gate.set()
        assert await herd.gateways[0].resolve(QUERY, mode="default") == "answer 1"
        assert await herd.gateways[1].resolve(QUERY) == "answer 1"

    async def test_who_may_call_never_joins_one_who_may_not_whoever_goes_round_first(
        self, fleet: Callable[..., Fleet]
    ):
        """The leader's call ends itself as cancelled; who joined it goes round, the reader first."""
        herd = fleet(asyncio.CancelledError())
        leader = await herd.lead()
        reader = asyncio.create_task(herd.gateways[0].resolve(QUERY, mode="read_only"))
        await asyncio.sleep(0)
        callers = [asyncio.create_task(herd.gateways[0].resolve(QUERY)) for _ in range(3)]
        await asyncio.sleep(0)
        herd.provider.gate.set()
        outcomes = await asyncio.gather(leader, reader, *callers, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert outcomes[2:] == ["answer 2"] * 3

    async def test_refresh_reads_nothing_even_if_it_stores_nothing(self, fleet: Callable[..., Fleet]):
        herd = fleet()
        herd.provider.gate.set()
        assert await herd.gateways[0].resolve(QUERY) == "answer 1"
        assert await herd.gateways[0].resolve(QUERY, mode="refresh", ttl=0) == "answer 2"
        assert await herd.gateways[0].resolve(QUERY) == "answer 1"

    async def test_a_misspelled_option_is_refused(self, fleet: Callable[..., Fleet]):
        gateway: Any = fleet().gateways[0]
        with pytest.raises(TypeError, match="namespace"):
            await gateway.resolve(QUERY, namespce="acme")
        with pytest.raises(TypeError, match="namespace"):
            await gateway.cache.get_or_call(QUERY, gateway.resolve, namespce="acme")

    async def test_an_unknown_mode_is_named_with_those_that_are(self, fleet: Callable[..., Fleet]):
        with pytest.raises(ConfigError, match="read_only"):
            await fleet().gateways[0].resolve(QUERY, mode="readonly")
        with pytest.raises(ConfigError, match="read_only"):
            fleet(mode="readonly")


class TestInvalidation:
    async def test_after_it_a_newcomer_leads_at_once_and_does_not_wait_for_the_old_call(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet(poll_interval=30.0)
        leader, follower = await herd.lead(), await herd.follow(1)
        await herd.caches[1].clear()
        newcomer = asyncio.create_task(herd.gateways[1].resolve(QUERY))
        await wait_until_async(lambda: herd.provider.calls == 2, description="the newcomer calls")
        herd.provider.gate.set()
        assert await asyncio.wait_for(newcomer, 5) == "answer 2"
        assert await asyncio.wait_for(follower, 5) == "answer 2"
        assert await leader == "answer 1"
        assert await herd.gateways[0].resolve(QUERY) == "answer 2"


class TestLossOfRedis:
    async def test_a_leader_s_answer_is_stored_when_redis_is_back(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        herd = fleet(lookup_budget=0.05, socket_timeout=0.1, commit_budget=0.1)
        leader = await herd.lead()
        valkey.pause()
        herd.provider.gate.set()
        began = time.monotonic()
        assert await leader == "answer 1"
        assert time.monotonic() - began < 2
        valkey.resume()

        async def is_stored() -> bool:
            with contextlib.suppress(CacheMiss):
                return await herd.gateways[1].resolve(QUERY, mode="read_only") == "answer 1"
            return False

        await wait_until_async(is_stored, description="the answer is stored", timeout=8)
        assert herd.provider.calls == 1

    async def test_a_follower_does_not_wait_for_a_server_that_died(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        herd = fleet(lookup_budget=0.05, socket_timeout=0.1, poll_interval=30.0)
        leader = await herd.lead()
        followers = [await herd.follow(1)]
        followers += [asyncio.create_task(herd.gateways[1].resolve(QUERY)) for _ in range(9)]
        valkey.kill()
        await wait_until_async(lambda: herd.provider.calls == 2, description="its process calls, once")
        herd.provider.gate.set()
        assert set(await asyncio.wait_for(asyncio.gather(*followers), 5)) == {"answer 2"}
        assert await leader == "answer 1"
        assert herd.provider.calls == 2

    async def test_who_waited_before_redis_lost_its_memory_shares_the_call(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        """Whether there was an invalidation cannot be told: the answer is given, but not stored."""
        herd = fleet()
        tasks = [asyncio.create_task(herd.gateways[0].resolve(QUERY)) for _ in range(10)]
        await wait_until_async(lambda: herd.provider.calls, description="one calls")
        valkey.command("FLUSHALL")
        herd.provider.gate.set()
        assert set(await asyncio.gather(*tasks)) == {"answer 1"}
        assert (await herd.caches[0].stats()).refusals["forgotten"] == 1
        assert await herd.gateways[1].resolve(QUERY) == "answer 2"


def test_a_process_told_to_end_gives_its_lease_up(valkey: Server, namespace: str, tmp_path: Path):
    """SIGTERM, as servers and job runners handle it: the main task is cancelled."""
    script = textwrap.dedent(
        f"""
        import asyncio, signal
        from llmcache_plugins import InferenceGateway, ResponseCache

        async def provider(query):
            print("calling", flush=True)
            await asyncio.Event().wait()

        async def main():
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
            async with ResponseCache.from_url({valkey.url!r}, namespace={namespace!r}) as cache:
                await InferenceGateway(provider, cache).resolve("q")

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            pass
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "calling\n"
        wait_until(lambda: keys_of(valkey, namespace, "lease"), description="it holds the lease")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert not keys_of(valkey, namespace, "lease")


class TestLease:
    """Short, renewed while the provider works, given up at its end."""

    async def test_it_is_kept_for_as_long_as_the_call_takes(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        herd = fleet(lease_ttl=0.2, max_lead=60.0, poll_interval=0.02)
        leader, follower = await herd.lead(), await herd.follow(1)
        asked, began = _commands(valkey)["evalsha"], time.monotonic()
        await wait_until_async(
            lambda: _commands(valkey)["evalsha"] > asked + 50 and time.monotonic() > began + 1,
            description="it is held for several times its own length",
        )
        assert herd.provider.calls == 1
        herd.provider.gate.set()
        assert await asyncio.gather(leader, follower) == ["answer 1"] * 2

    async def test_nobody_waits_for_a_call_that_lasts_longer_than_max_lead(self, fleet: Callable[..., Fleet]):
        herd = fleet(lease_ttl=0.2, max_lead=0.4, wait_timeout=30.0, poll_interval=30.0)
        leader, follower = await herd.lead(), await herd.follow(1)
        await wait_until_async(lambda: herd.provider.calls == 2, description="the follower leads")
        herd.provider.gate.set()
        assert await asyncio.wait_for(follower, 5) == "answer 2"
        assert await leader == "answer 1"
        # The one that began later is the newer answer, whoever was stored first.
        assert await herd.gateways[0].resolve(QUERY) == "answer 2"

    async def test_a_leader_that_was_cut_off_for_longer_takes_it_again(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        async with FaultProxy(valkey.tcp_url) as proxy:
            herd = fleet(url=proxy.url, lease_ttl=0.3, socket_timeout=0.1, connect_timeout=0.1)
            leader = await herd.lead()
            proxy.mode = "black_hole"
            await wait_until_async(
                lambda: not keys_of(valkey, namespace, "lease"), description="the lease has run out"
            )
            await proxy.restore()
            await wait_until_async(
                lambda: keys_of(valkey, namespace, "lease"), description="the leader holds it again"
            )
            herd.provider.gate.set()
            assert await leader == "answer 1"

    async def test_a_killed_leader_s_is_taken_by_one_follower_at_its_end(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        """Nobody is woken, and nobody looks again by chance."""
        herd = fleet(poll_interval=30.0)
        leader = _leading_process(valkey, namespace, lease_ttl=0.5)
        with leader:
            try:
                assert leader.stdout is not None
                assert await asyncio.to_thread(leader.stdout.readline) == "calling\n"
                followers = [await herd.follow(1)]
                followers += [asyncio.create_task(herd.gateways[1].resolve(QUERY)) for _ in range(9)]
            finally:
                leader.kill()
        herd.provider.gate.set()
        assert await asyncio.wait_for(asyncio.gather(*followers), 5) == ["answer 1"] * 10
        assert herd.provider.calls == 1

    async def test_a_failed_leader_gives_it_up_when_redis_is_back(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        async with FaultProxy(valkey.tcp_url) as proxy:
            error = StatusError(500)
            herd = fleet(error, url=proxy.url, lookup_budget=0.05, socket_timeout=0.1)
            leader = await herd.lead()
            await proxy.refuse()
            herd.provider.gate.set()
            assert await asyncio.gather(leader, return_exceptions=True) == [error]
            assert keys_of(valkey, namespace, "lease")
            await proxy.restore()
            await wait_until_async(
                lambda: not keys_of(valkey, namespace, "lease"), description="it is given up"
            )

    async def test_a_hung_redis_does_not_replace_the_leader_s_error(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        error = StatusError(400)
        herd = fleet(error, lookup_budget=0.05, socket_timeout=0.1)
        leader = await herd.lead()
        beside = asyncio.create_task(herd.gateways[0].resolve(QUERY))
        await asyncio.sleep(0)
        valkey.pause()
        herd.provider.gate.set()
        assert await asyncio.gather(leader, beside, return_exceptions=True) == [error] * 2

    async def test_it_ends_with_a_call_whose_answer_cannot_be_written(self, fleet: Callable[..., Fleet]):
        """The script that stores also releases: what never reaches it must be released by another."""
        herd = fleet(poll_interval=30.0)

        class Odd(PlainCodec):
            def encode(self, answer: Any) -> EncodedAnswer:
                payload = super().encode(answer).payload
                return EncodedAnswer(
                    kind=self.kind, payload=payload, facts=AnswerFacts(model="lone surrogate \ud800")
                )

        class Provides:
            complete = staticmethod(herd.provider)
            codec = Odd()

        herd.gateways = [InferenceGateway(Provides(), cache) for cache in herd.caches]
        leader, follower = await herd.lead(), await herd.follow(1)
        herd.provider.gate.set()
        assert await leader == "answer 1"
        assert await asyncio.wait_for(follower, 5) == "answer 2"
        for cache in herd.caches:
            assert (await cache.stats()).refusals == {"write_failed": 1}


def _leading_process(server: Server, namespace: str, *, lease_ttl: float) -> subprocess.Popen[str]:
    """Start a process that calls a provider that never answers, and says so."""
    script = textwrap.dedent(
        f"""
        import asyncio
        from llmcache_plugins import InferenceGateway, ResponseCache

        async def provider(query):
            print("calling", flush=True)
            await asyncio.Event().wait()

        async def main():
            settings = {{"namespace": {namespace!r}, "lease_ttl": {lease_ttl!r}}}
            async with ResponseCache.from_url({server.url!r}, **settings) as cache:
                await InferenceGateway(provider, cache).resolve({QUERY!r})

        asyncio.run(main())
        """
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


class TestInvalidationMeanwhile:
    """Whoever comes after an invalidation is not given what was asked for before it."""

    @pytest.mark.parametrize("how", ["clear", "invalidate"])
    async def test_a_newcomer_in_the_leader_s_own_process_calls_at_once(
        self, fleet: Callable[..., Fleet], how: str
    ):
        herd = fleet()
        leader = await herd.lead()
        await (herd.caches[0].clear() if how == "clear" else herd.gateways[0].invalidate(QUERY))
        newcomer = asyncio.create_task(herd.gateways[0].resolve(QUERY))
        await wait_until_async(lambda: herd.provider.calls == 2, description="the newcomer calls")
        herd.provider.gate.set()
        assert await asyncio.gather(leader, newcomer) == ["answer 1", "answer 2"]

    async def test_those_who_waited_in_the_leader_s_process_share_one_new_call(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet()
        leader = await herd.lead()
        beside = [asyncio.create_task(herd.gateways[0].resolve(QUERY)) for _ in range(20)]
        await asyncio.sleep(0)
        await herd.caches[1].clear()
        herd.provider.gate.set()
        assert await leader == "answer 1"
        assert await asyncio.gather(*beside) == ["answer 2"] * 20
        assert herd.provider.calls == 2
        assert await herd.followed(0) == 0, "they went round through Redis, each by itself"

    async def test_when_redis_lost_its_memory_only_who_came_before_it_was_last_asked_shares_the_call(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        """An invalidation may have been lost with it: after the leader's last renewal, before a newcomer."""
        herd = fleet(lease_ttl=0.6)
        early = [await herd.lead(), asyncio.create_task(herd.gateways[0].resolve(QUERY))]
        await asyncio.sleep(0)
        asked = _commands(valkey)["evalsha"]
        await wait_until_async(
            lambda: _commands(valkey)["evalsha"] >= asked + 2, description="the lease is renewed, twice"
        )
        valkey.command("FLUSHALL")
        late = asyncio.create_task(herd.gateways[0].resolve(QUERY))
        await asyncio.sleep(0)
        herd.provider.gate.set()
        assert await asyncio.gather(*early, late) == ["answer 1", "answer 1", "answer 2"]


class TestWordsLeft:
    """What a leader leaves to those who wait, and for how long."""

    @pytest.mark.parametrize(
        ("error", "most"),
        [(StatusError(400), 2.0), (StatusError(429), 2.0), (StatusError(429, retry_after=3600), 30.0)],
    )
    async def test_of_an_error_everybody_would_get_it_goes_soon(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str, error: Exception, most: float
    ):
        herd = fleet(error)
        herd.provider.gate.set()
        with pytest.raises(StatusError):
            await herd.gateways[0].resolve(QUERY)
        (record,) = keys_of(valkey, namespace, "error")
        assert most / 2 < valkey.command("PTTL", record) / 1000 <= most

    async def test_that_an_answer_is_not_to_be_shared_goes_soon(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        gateway = fleet().gateways[0]
        truncated = {"object": "chat.completion", "choices": [{"finish_reason": "length", "message": {}}]}
        await gateway.resolve(QUERY, provider=lambda _: truncated)
        (record,) = keys_of(valkey, namespace, "error")
        assert 1 < valkey.command("PTTL", record) / 1000 <= 2

    async def test_the_wait_a_provider_asked_for_runs_down(self, fleet: Callable[..., Fleet]):
        herd = fleet(StatusError(429, retry_after=20))
        herd.provider.gate.set()
        with pytest.raises(StatusError):
            await herd.gateways[0].resolve(QUERY)

        async def is_less() -> bool:
            with pytest.raises(SharedProviderError) as told:
                await herd.gateways[1].resolve(QUERY)
            return 15 < (told.value.retry_after or 0) < 19.8

        await wait_until_async(is_less, description="some of it is over")

    async def test_however_many_leaders_are_cancelled_the_next_one_leads(self, fleet: Callable[..., Fleet]):
        herd = fleet(size=4, poll_interval=30.0)
        waiting = {0: await herd.lead(), **{member: await herd.follow(member) for member in (1, 2, 3)}}
        for calls in (2, 3, 4):
            (leading,) = [member for member in waiting if await herd.has_led(member)]
            waiting[leading].cancel()
            await asyncio.wait((waiting.pop(leading),))
            await wait_until_async(
                lambda calls=calls: herd.provider.calls == calls, description="another one leads"
            )
        herd.provider.gate.set()
        assert [await last for last in waiting.values()] == ["answer 4"]


class TestLooking:
    """When those who wait look again."""

    async def test_once_they_listen_for_what_was_said_before(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        async with FaultProxy(valkey.tcp_url) as proxy:
            herd = fleet(poll_interval=30.0)
            elsewhere = fleet(url=proxy.url, poll_interval=30.0)
            await elsewhere.caches[1].repository.open()
            leader = await herd.lead()
            proxy.delay = 0.1
            follower = asyncio.create_task(elsewhere.gateways[1].resolve(QUERY))
            telemetry = elsewhere.caches[1].repository.telemetry
            await wait_until_async(
                lambda: telemetry.snapshot().leases["followed"], description="it is told to wait"
            )
            herd.provider.gate.set()
            assert await leader == "answer 1"
            assert not list(valkey.command("PUBSUB", "CHANNELS")), "it listens already"
            assert await asyncio.wait_for(follower, 5) == "answer 1"

    async def test_after_a_while_even_if_no_message_is_sent(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        herd = fleet(poll_interval=0.1)
        leader, follower = await herd.lead(), await herd.follow(1)
        valkey.command("ACL", "SETUSER", "default", "-publish")
        try:
            herd.provider.gate.set()
            assert await asyncio.wait_for(asyncio.gather(leader, follower), 5) == ["answer 1"] * 2
        finally:
            valkey.command("ACL", "SETUSER", "default", "+publish")
        assert herd.provider.calls == 1

    async def test_at_the_end_of_their_patience_even_if_nothing_wakes_them(self, fleet: Callable[..., Fleet]):
        herd = fleet(wait_timeout=0.3, poll_interval=30.0)
        leader, follower = await herd.lead(), await herd.follow(1)
        await wait_until_async(lambda: herd.provider.calls == 2, description="the follower calls")
        herd.provider.gate.set()
        assert await asyncio.gather(leader, follower) == ["answer 1", "answer 2"]

    async def test_who_reads_only_never_calls_however_long_it_waited(self, fleet: Callable[..., Fleet]):
        herd = fleet(wait_timeout=0.2)
        leader, reader = await herd.lead(), await herd.follow(1, mode="read_only")
        with pytest.raises(CacheMiss):
            await asyncio.wait_for(reader, 5)
        herd.provider.gate.set()
        assert await leader == "answer 1"
        assert herd.provider.calls == 1

    async def test_who_reads_only_waits_with_its_process_and_not_with_redis(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet()
        leader = await herd.lead()
        reader = asyncio.create_task(herd.gateways[0].resolve(QUERY, mode="read_only"))
        await asyncio.sleep(0)
        assert herd.caches[0].in_flight() == 1
        herd.provider.gate.set()
        assert await asyncio.gather(leader, reader) == ["answer 1"] * 2

    async def test_who_reads_only_never_calls_whatever_its_ttl(self, fleet: Callable[..., Fleet]):
        herd = fleet()
        herd.provider.gate.set()
        with pytest.raises(CacheMiss):
            await herd.gateways[0].resolve(QUERY, mode="read_only", ttl=0)
        assert herd.provider.calls == 0


class TestLateCommit:
    async def test_is_tried_until_redis_is_back(
        self, fleet: Callable[..., Fleet], valkey: Server, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr("llmcache_plugins.cache.shelf._AGAIN_AFTER", 0.02)
        async with FaultProxy(valkey.tcp_url) as proxy:
            herd = fleet(url=proxy.url, lookup_budget=0.05, commit_budget=0.1, socket_timeout=0.1)
            leases = herd.caches[0].repository.leases
            commits, commit = 0, leases.commit

            async def counted(*arguments: Any, **options: Any) -> Any:
                nonlocal commits
                commits += 1
                return await commit(*arguments, **options)

            monkeypatch.setattr(leases, "commit", counted)
            leader = await herd.lead()
            await proxy.refuse()
            herd.provider.gate.set()
            assert await leader == "answer 1"
            await wait_until_async(lambda: commits > 3, description="it is tried again and again")
            await proxy.restore()

            async def is_stored() -> bool:
                with contextlib.suppress(CacheMiss):
                    return await herd.gateways[1].resolve(QUERY, mode="read_only") == "answer 1"
                return False

            await wait_until_async(is_stored, description="the answer is stored", timeout=8)
        assert herd.provider.calls == 1


class TestDenied:
    async def test_after_two_were_denied_nobody_waits_for_a_third(self, fleet: Callable[..., Fleet]):
        herd = fleet(*(StatusError(401) for _ in range(10)), size=1)
        tasks = [await herd.lead(), *(asyncio.create_task(herd.gateways[0].resolve(QUERY)) for _ in range(9))]
        await asyncio.sleep(0)
        for calls in (2, 10):
            gate, herd.provider.gate = herd.provider.gate, asyncio.Event()
            gate.set()
            await wait_until_async(
                lambda calls=calls: herd.provider.calls == calls, description=f"there are {calls} calls"
            )
        herd.provider.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, StatusError) for outcome in outcomes)
        assert herd.provider.calls == 10


class TestHungRedis:
    """It answers nothing, and the sockets would be patient."""

    async def test_holds_up_neither_who_leads_nor_who_follows(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        herd = fleet(lookup_budget=0.05, commit_budget=0.1, socket_timeout=60.0, poll_interval=0.05)
        leader, follower = await herd.lead(), await herd.follow(1)
        beside = asyncio.create_task(herd.gateways[1].resolve(QUERY))
        valkey.pause()
        await wait_until_async(lambda: herd.provider.calls == 2, description="the follower calls")
        herd.provider.gate.set()
        answers = await asyncio.wait_for(asyncio.gather(leader, follower, beside), 5)
        valkey.resume()
        assert answers == ["answer 1", "answer 2", "answer 2"]
        assert herd.provider.calls == 2

    async def test_an_invalidation_before_it_is_heeded_when_it_hangs(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        """The old call's answer cannot be judged any more: who came after the invalidation gets another."""
        herd = fleet(lookup_budget=0.05, commit_budget=0.1, socket_timeout=0.1)
        leader = await herd.lead()
        await herd.gateways[1].invalidate(QUERY)
        newcomers = [asyncio.create_task(herd.gateways[0].resolve(QUERY)) for _ in range(5)]
        await asyncio.sleep(0)
        valkey.pause()
        herd.provider.gate.set()
        assert await leader == "answer 1"
        assert set(await asyncio.wait_for(asyncio.gather(*newcomers), 5)) == {"answer 2"}
        valkey.resume()

    async def test_an_invalidation_after_it_is_heeded_by_a_call_begun_before(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        herd = fleet(lookup_budget=0.05, socket_timeout=0.1)
        await herd.caches[0].repository.open()
        valkey.pause()
        alone = await herd.lead()
        valkey.resume()
        await herd.gateways[1].invalidate(QUERY)
        newcomer = asyncio.create_task(herd.gateways[0].resolve(QUERY))
        await asyncio.sleep(0)
        herd.provider.gate.set()
        assert await alone == "answer 1"
        assert await asyncio.wait_for(newcomer, 5) == "answer 2"

    async def test_one_late_answer_sends_no_follower_to_the_provider(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        herd = fleet(lookup_budget=0.05, poll_interval=0.02)
        leader, follower = await herd.lead(), await herd.follow(1)
        for _ in range(5):
            valkey.pause()
            await asyncio.sleep(0.06)
            valkey.resume()
            await asyncio.wait((follower,), timeout=0.1)
        assert herd.provider.calls == 1
        herd.provider.gate.set()
        assert await asyncio.wait_for(asyncio.gather(leader, follower), 5) == ["answer 1"] * 2

    async def test_a_call_begun_while_it_was_known_to_be_away_is_stored_when_it_is_back(
        self, fleet: Callable[..., Fleet], valkey: Server
    ):
        herd = fleet(lookup_budget=0.05, socket_timeout=0.1)
        repository: Any = herd.caches[0].repository
        await herd.gateways[0].resolve({"q": "opens the marks"}, provider=_at_once)
        valkey.pause()

        async def is_known() -> bool:
            await herd.gateways[0].resolve({"q": time.monotonic()}, provider=_at_once)
            return bool(repository._links.current().is_known_bad)

        await wait_until_async(is_known, description="the breaker is open")
        alone = await herd.lead()
        valkey.resume()
        await wait_until_async(
            lambda: not repository._links.current().is_known_bad, description="it closes", timeout=5
        )
        herd.provider.gate.set()
        assert await alone == "answer 1"

        async def is_stored() -> bool:
            with contextlib.suppress(CacheMiss):
                return await herd.gateways[1].resolve(QUERY, mode="read_only") == "answer 1"
            return False

        await wait_until_async(is_stored, description="the answer is stored")

    async def test_a_lease_that_came_late_is_kept_alive(self, fleet: Callable[..., Fleet], valkey: Server):
        herd = fleet(lookup_budget=0.05, lease_ttl=0.5)
        await herd.gateways[0].resolve({"q": "opens the marks"}, provider=_at_once)
        valkey.pause()
        alone = await herd.lead()
        valkey.resume()
        follower = await herd.follow(1)
        await asyncio.wait((follower,), timeout=1.5)
        assert herd.provider.calls == 1
        herd.provider.gate.set()
        assert await asyncio.wait_for(asyncio.gather(alone, follower), 5) == ["answer 1"] * 2

    async def test_leaves_no_lease_of_a_request_whose_reply_was_lost(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        async with FaultProxy(valkey.tcp_url) as proxy:
            error = StatusError(500)
            herd = fleet(error, url=proxy.url, lookup_budget=0.05, socket_timeout=0.1)
            await herd.caches[0].repository.open()
            proxy.drop_reply(lambda request: b"EVALSHA" in request and b"\r\nlead\r\n" in request)
            leader = await herd.lead()
            await wait_until_async(
                lambda: proxy.dropped and not herd.caches[0]._tasks.current()._tasks,
                description="it has asked, in vain",
            )
            assert keys_of(valkey, namespace, "lease")
            herd.provider.gate.set()
            assert await asyncio.gather(leader, return_exceptions=True) == [error]
            await wait_until_async(
                lambda: not keys_of(valkey, namespace, "lease"), description="the lease is given up"
            )


async def _at_once(_query: Any) -> str:
    return "at once"


class TestLostLeases:
    async def test_who_comes_when_a_call_has_hung_for_too_long_gets_one_of_its_own(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet(lease_ttl=0.3, max_lead=0.3)
        leader = await herd.lead()
        hung, herd.provider.gate = herd.provider.gate, asyncio.Event()
        herd.provider.gate.set()
        await wait_until_async(lambda: _is_answered(herd), description="a newcomer beside it is served")
        hung.set()
        assert await leader == "answer 1"
        assert await herd.gateways[1].resolve(QUERY) == "answer 2"

    async def test_who_comes_after_an_invalidation_elsewhere_does_not_wait_for_the_old_call(
        self, fleet: Callable[..., Fleet]
    ):
        herd = fleet(lease_ttl=0.3)
        leader = await herd.lead()
        hung, herd.provider.gate = herd.provider.gate, asyncio.Event()
        herd.provider.gate.set()
        await herd.gateways[1].invalidate(QUERY)
        await wait_until_async(lambda: _is_answered(herd), description="a newcomer is served")
        hung.set()
        assert await leader == "answer 1"


async def _is_answered(herd: Fleet) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            return bool(await herd.gateways[0].resolve(QUERY) == "answer 2")
    return False


class TestHolding:
    async def test_two_processes_that_ask_for_one_another_both_get_answers(self, fleet: Callable[..., Fleet]):
        herd = fleet(poll_interval=30.0)
        asked = {"a": asyncio.Event(), "b": asyncio.Event()}

        def provider(member: int, other: str) -> Callable[[Any], Any]:
            async def ask(query: Any) -> str:
                if asked[query["q"]].is_set():
                    return f"{query['q']} by {member}, plainly"
                asked[query["q"]].set()
                await asyncio.gather(*(event.wait() for event in asked.values()))
                return f"{query['q']} with {await herd.gateways[member].resolve({'q': other})}"

            return ask

        herd.gateways = [
            InferenceGateway(provider(0, "b"), herd.caches[0]),
            InferenceGateway(provider(1, "a"), herd.caches[1]),
        ]
        answers = asyncio.gather(herd.gateways[0].resolve({"q": "a"}), herd.gateways[1].resolve({"q": "b"}))
        assert await asyncio.wait_for(answers, 5) == ["a with b by 0, plainly", "b with a by 1, plainly"]


class TestPolicies:
    async def test_of_those_who_share_a_call_the_leader_s_ttl_counts(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        herd = fleet()
        leader, elsewhere = await herd.lead(ttl=1000), await herd.follow(1, ttl=5)
        beside = asyncio.create_task(herd.gateways[0].resolve(QUERY, ttl=5))
        await asyncio.sleep(0)
        herd.provider.gate.set()
        assert await asyncio.gather(leader, elsewhere, beside) == ["answer 1"] * 3
        (entry,) = keys_of(valkey, namespace, "resp")
        assert 900 < valkey.command("PTTL", entry) / 1000 <= 1000

    async def test_who_stores_nothing_joins_nobody_and_is_joined_by_nobody(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        herd = fleet()
        leader = await herd.lead()
        private = [asyncio.create_task(gateway.resolve(QUERY, ttl=0)) for gateway in herd.gateways]
        await wait_until_async(lambda: herd.provider.calls == 3, description="each calls")
        herd.provider.gate.set()
        assert await leader == "answer 1"
        assert sorted(await asyncio.gather(*private)) == ["answer 2", "answer 3"]
        assert await herd.gateways[1].resolve(QUERY) == "answer 1"


class TestStreams:
    async def test_a_shared_error_is_raised_as_the_provider_s_own_class(self, fleet: Callable[..., Fleet]):
        herd = fleet()

        class Knows:
            complete = staticmethod(herd.provider)

            @staticmethod
            async def stream(query: Any) -> AsyncIterator[str]:
                yield await herd.provider(query)

            @staticmethod
            def error_of(shared: SharedProviderError) -> Exception:
                return StatusError(shared.status)

        herd.provider.errors.append(StatusError(429))
        herd.gateways = [InferenceGateway(Knows(), cache) for cache in herd.caches]
        leader = asyncio.create_task(_read(herd.gateways[0].stream(QUERY)))
        await wait_until_async(lambda: herd.provider.calls, description="the leader calls")
        follower = asyncio.create_task(_read(herd.gateways[1].stream(QUERY)))
        await wait_until_async(lambda: herd.is_listening(1), description="the other one follows")
        herd.provider.gate.set()
        outcomes = await asyncio.gather(leader, follower, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StatusError, StatusError]
        assert isinstance(outcomes[1].__cause__, SharedProviderError)
        assert herd.provider.calls == 1

    async def test_a_follower_is_woken_for_each_chunk_and_the_end(self, fleet: Callable[..., Fleet]):
        herd = fleet(poll_interval=30.0)
        gates = [asyncio.Event() for _ in range(3)]

        class Tells:
            complete = staticmethod(herd.provider)

            @staticmethod
            async def stream(_query: Any) -> AsyncIterator[str]:
                for number, gate in enumerate(gates):
                    yield str(number)
                    await gate.wait()

        herd.gateways = [InferenceGateway(Tells(), cache) for cache in herd.caches]
        leader = asyncio.create_task(_read(herd.gateways[0].stream(QUERY)))
        await wait_until_async(lambda: herd.has_led(0), description="the leader leads")
        async with contextlib.aclosing(herd.gateways[1].stream(QUERY)) as chunks:
            for number, gate in enumerate(gates):
                assert await asyncio.wait_for(anext(chunks), 5) == str(number)
                gate.set()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(chunks), 5)
        assert await leader == ["0", "1", "2"]
        assert herd.provider.calls == 0

    async def test_a_follower_looks_once_it_listens_for_chunks_that_came_before(
        self, fleet: Callable[..., Fleet], valkey: Server, namespace: str
    ):
        async with FaultProxy(valkey.tcp_url) as proxy:
            herd = fleet(poll_interval=30.0)
            elsewhere = fleet(url=proxy.url, poll_interval=30.0)
            gate = asyncio.Event()

            class Tells:
                complete = staticmethod(herd.provider)

                @staticmethod
                async def stream(_query: Any) -> AsyncIterator[str]:
                    yield "0"
                    await gate.wait()
                    yield "1"

            await elsewhere.caches[1].repository.open()
            leader = asyncio.create_task(_read(InferenceGateway(Tells(), herd.caches[0]).stream(QUERY)))
            await wait_until_async(
                lambda: keys_of(valkey, namespace, "chunks"), description="the first chunk is there"
            )
            proxy.delay = 0.1
            following = InferenceGateway(Tells(), elsewhere.caches[1]).stream(QUERY)
            follower = asyncio.create_task(_read(following))
            telemetry = elsewhere.caches[1].repository.telemetry
            await wait_until_async(
                lambda: telemetry.snapshot().leases["followed"], description="it is told to wait"
            )
            gate.set()
            assert await leader == ["0", "1"]
            assert not list(valkey.command("PUBSUB", "CHANNELS")), "it listens already"
            assert await asyncio.wait_for(follower, 5) == ["0", "1"]


async def _read(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


def test_a_program_that_ends_during_a_call_leaves_no_lease(valkey: Server, namespace: str):
    """`asyncio.run` cancels the caller and the call it waits for, both."""
    script = textwrap.dedent(
        f"""
        import asyncio
        from llmcache_plugins import InferenceGateway, ResponseCache

        async def main():
            calling = asyncio.Event()

            async def provider(query):
                calling.set()
                await asyncio.Event().wait()

            settings = {{"namespace": {namespace!r}, **{PATIENT!r}}}
            gateway = InferenceGateway(provider, ResponseCache.from_url({valkey.url!r}, **settings))
            caller = asyncio.create_task(gateway.resolve("q"))
            await calling.wait()

        asyncio.run(main())
        """
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
    assert not keys_of(valkey, namespace, "lease")
