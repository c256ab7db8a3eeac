"""Counting, and observers that misbehave."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from llmcache_plugins import ResponseCache
from llmcache_plugins.models import Outcome, Usage
from llmcache_plugins.telemetry import (
    BreakerChanged,
    Event,
    Evicted,
    Face,
    LeaseEvent,
    LeaseStep,
    Missed,
    ProviderCalled,
    Refused,
    Resolved,
    Telemetry,
    Unreadable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from servers import Server


def resolved(outcome: Outcome, **more: object) -> Resolved:
    return Resolved(outcome=outcome, face=Face.GATEWAY, seconds=0.1, **more)  # type: ignore[arg-type]


EVENTS: list[Event] = [
    resolved(Outcome.MISS),
    resolved(Outcome.HIT, saved=Usage(input_tokens=10, output_tokens=5), saved_seconds=2.0),
    resolved(Outcome.COALESCED, saved=Usage(input_tokens=1, output_tokens=2)),
    resolved(Outcome.UNAVAILABLE),
    ProviderCalled(seconds=1.5, failed=False),
    ProviderCalled(seconds=0.5, failed=True),
    Refused(reason="truncated"),
    LeaseEvent(step=LeaseStep.LED),
    Evicted(entries=3),
    Unreadable(),
    BreakerChanged(open=True),
    BreakerChanged(open=False),
]


def test_every_event_is_counted():
    telemetry = Telemetry()
    for event in EVENTS:
        telemetry.emit(event)
    stats = telemetry.snapshot()
    assert stats.requests == 4
    assert stats.hit_rate == 0.5
    assert (stats.provider_calls, stats.provider_failures, stats.provider_seconds) == (2, 1, 2.0)
    assert (stats.saved_input_tokens, stats.saved_output_tokens, stats.saved_seconds) == (11, 7, 2.0)
    assert stats.refusals == {"truncated": 1}
    assert stats.leases == {LeaseStep.LED: 1}
    assert (stats.evicted, stats.unreadable, stats.breaker_openings) == (3, 1, 1)
    assert "hit rate 50.0%" in str(stats)
    assert "1 truncated" in str(stats)


def test_an_unused_cache_has_a_hit_rate_of_zero():
    assert Telemetry().snapshot().hit_rate == 0.0


def test_a_snapshot_does_not_change_any_more():
    telemetry = Telemetry()
    before = telemetry.snapshot()
    telemetry.emit(resolved(Outcome.HIT))
    assert before.requests == 0


def test_every_observer_sees_every_event_and_one_that_raises_hurts_nobody(caplog: pytest.LogCaptureFixture):
    class Broken:
        def on_event(self, event: Event, /) -> None:
            raise ZeroDivisionError

    class Good:
        def __init__(self) -> None:
            self.seen: list[Event] = []

        def on_event(self, event: Event, /) -> None:
            self.seen.append(event)

    good = Good()
    telemetry = Telemetry([Broken(), good])
    with caplog.at_level(logging.WARNING):
        for event in EVENTS:
            telemetry.emit(event)
    assert good.seen == EVENTS
    assert len(caplog.records) == 1


class Watcher:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event, /) -> None:
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def narrate() -> AsyncGenerator[str, None]:
    yield "once "
    yield "upon a time"


class TestStreams:
    async def test_how_slowly_it_is_read_is_no_matter_of_the_cache(self, valkey: Server, namespace: str):
        watcher = Watcher()
        async with ResponseCache.from_url(valkey.url, namespace=namespace, observers=[watcher]) as cache:
            for _ in range(2):
                async for _ in cache.stream({"q": 1}, narrate):
                    await asyncio.sleep(0.2)
        asked, stored = watcher.of(Resolved)
        assert (asked.outcome, stored.outcome) == (Outcome.MISS, Outcome.HIT)
        assert stored.seconds < 0.2

    async def test_a_miss_is_a_lookup_as_that_of_a_call_is(self, valkey: Server, namespace: str):
        watcher = Watcher()
        async with ResponseCache.from_url(valkey.url, namespace=namespace, observers=[watcher]) as cache:
            for _ in range(2):
                async for _ in cache.stream({"q": 1}, narrate):
                    pass
        assert len(watcher.of(Missed)) == 1

    @pytest.mark.parametrize("how", [{"mode": "off"}, {"mode": "refresh"}, {"max_age": 0.0}, {}])
    async def test_every_call_of_a_provider_is_counted(self, valkey: Server, namespace: str, how: Any):
        async with ResponseCache.from_url(valkey.url, namespace=namespace) as cache:
            async for _ in cache.stream({"q": 1}, narrate, **how):
                pass
            assert (await cache.stats()).provider_calls == 1
