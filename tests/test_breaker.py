"""When the breaker opens, and when it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from waiting import wait_until_async

from llmcache_plugins import ResponseCache
from llmcache_plugins.repository.breaker import Breaker
from llmcache_plugins.telemetry import BreakerChanged

if TYPE_CHECKING:
    from servers import Server

    from llmcache_plugins import Event


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock=clock)


def test_opens_at_the_fifth_hard_failure_in_a_row(breaker: Breaker):
    assert [breaker.failed(timeout=False) for _ in range(6)] == [False] * 4 + [True, False]
    assert breaker.is_open


def test_one_answer_starts_the_count_again(breaker: Breaker):
    for _ in range(4):
        breaker.failed(timeout=False)
    breaker.succeeded()
    assert not any(breaker.failed(timeout=False) for _ in range(4))


def test_many_timeouts_at_one_moment_say_nothing_of_the_server(breaker: Breaker):
    assert not any(breaker.failed(timeout=True) for _ in range(1000))


def test_timeouts_that_span_half_a_second_open_it(breaker: Breaker, clock: Clock):
    breaker.failed(timeout=True)
    clock.now += 0.49
    assert not breaker.failed(timeout=True)
    clock.now += 0.02
    assert breaker.failed(timeout=True)


def test_an_answer_between_two_timeouts_breaks_the_span(breaker: Breaker, clock: Clock):
    breaker.failed(timeout=True)
    clock.now += 0.4
    breaker.succeeded()
    clock.now += 0.4
    assert not breaker.failed(timeout=True)


def test_a_late_answer_does_not_close_it_but_the_owner_does(breaker: Breaker):
    assert breaker.trip()
    assert not breaker.trip()
    breaker.succeeded()
    assert breaker.is_open
    assert breaker.close()
    assert not breaker.is_open
    assert not breaker.close()


async def test_a_cache_that_is_closed_during_an_outage_leaves_no_breaker_open(valkey: Server, namespace: str):
    class Watcher:
        def __init__(self) -> None:
            self.states: list[bool] = []

        def on_event(self, event: Event, /) -> None:
            if isinstance(event, BreakerChanged):
                self.states.append(event.open)

    async def call() -> str:
        return "answer"

    watcher = Watcher()
    async with ResponseCache.from_url(valkey.url, namespace=namespace, observers=[watcher]) as cache:
        await cache.get_or_call("q", call)
        valkey.kill()

        async def is_given_up() -> bool:
            await cache.get_or_call("q", call)
            return watcher.states == [True]

        await wait_until_async(is_given_up, description="the breaker is open")
    assert watcher.states == [True, False]
