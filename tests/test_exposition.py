"""What Prometheus is told, scraped over HTTP from a real SDK after real calls: and the right numbers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from exposition import JUDGE, MODEL, UNPRICED, exposed, scripted
from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider
from servers import valkey_server

from llmcache_plugins import OpenTelemetry, ResponseCache
from llmcache_plugins.telemetry import BreakerChanged, Measured
from llmcache_plugins.telemetry.metrics import MOST_MODELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exposition import Sample, Told
    from servers import Server


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with valkey_server(tmp_path_factory.mktemp("told"), tcp=True) as server, exposed() as exposition:
        yield asyncio.run(scripted(server, exposition))


def by(samples: Sequence[Sample], name: str, *labels: str) -> dict[Any, float]:
    """Return the values of a metric by the values of its labels: of all that it has."""
    found = {}
    for told, has, value in samples:
        if told == name:
            assert set(has) == set(labels)
            found[tuple(has[label] for label in labels) if len(labels) > 1 else has[labels[0]]] = value
    return found


def one(samples: Sequence[Sample], name: str) -> float:
    (value,) = (value for told, has, value in samples if told == name and not has)
    return value


class TestNumbers:
    def test_each_call_by_its_outcome(self, told: Told):
        assert by(told.run, "llmcache_requests_total", "llmcache_face", "llmcache_outcome") == {
            ("gateway", "hit"): 6,
            ("gateway", "semantic_hit"): 2,
            ("gateway", "stale"): 1,
            ("gateway", "coalesced"): 4,
            ("gateway", "miss"): 23,
            ("gateway", "bypass"): 2,
        }

    def test_the_money_to_the_cent(self, told: Told):
        # 6 tokens in, 4 out: 9 calls, streams included, at 0.014. Of two words, 3 in: one at 0.011. And twice
        # what was said to "How do I reset my password?", with 8 in: 0.016.
        saved = 9 * 0.014 + 0.011 + 2 * 0.016
        assert by(told.run, "llmcache_saved_cost_total", "gen_ai_request_model") == {
            MODEL: pytest.approx(saved, abs=1e-9)
        }
        assert saved == pytest.approx(0.169)
        labels = ("gen_ai_request_model", "llmcache_purpose")
        assert by(told.run, "llmcache_spent_cost_total", *labels) == {
            (MODEL, "refresh"): pytest.approx(0.014),
            (JUDGE, "verifier"): pytest.approx(0.010),
        }

    def test_the_tokens(self, told: Told):
        labels = ("gen_ai_request_model", "llmcache_token_type")
        assert by(told.run, "llmcache_saved_tokens_total", *labels) == {
            (MODEL, "input"): 9 * 6 + 3 + 2 * 8,
            (MODEL, "output"): 12 * 4,
            (UNPRICED, "input"): 6,
            (UNPRICED, "output"): 4,
        }
        assert by(told.run, "llmcache_spent_tokens_total", "llmcache_purpose", *labels) == {
            ("refresh", MODEL, "input"): 6,
            ("refresh", MODEL, "output"): 4,
            ("verifier", JUDGE, "input"): 90,
            ("verifier", JUDGE, "output"): 10,
        }

    def test_what_has_no_price_is_told_and_is_not_zero_dollars(self, told: Told):
        assert by(told.run, "llmcache_saved_unpriced_total", "gen_ai_request_model") == {UNPRICED: 1}

    def test_calls_of_the_provider(self, told: Told):
        # Those that missed or went past the cache, and the refresh; an error, and one that was cancelled.
        assert by(told.run, "llmcache_provider_duration_seconds_count", "llmcache_provider_result") == {
            "ok": 23 + 2 + 1,
            "error": 2,
        }

    def test_lookups_and_waits(self, told: Told):
        assert by(told.run, "llmcache_lookup_duration_seconds_count", "llmcache_lookup_result") == {
            "hit": 6 + 2 + 1,
            # All misses; before two semantic hits; of one that then followed, of two that were told an error,
            # and of one that was cancelled.
            "miss": 23 + 2 + 1 + 2 + 1,
        }
        assert one(told.run, "llmcache_singleflight_wait_duration_seconds_count") == 4
        assert one(told.run, "llmcache_near_hits_total") == 1
        assert one(told.run, "llmcache_saved_duration_seconds_total") > 0

    def test_leases(self, told: Told):
        steps = by(told.run, "llmcache_lease_events_total", "llmcache_lease_step")
        assert steps.pop("led") >= 23 - 1
        assert steps == {"followed": 4, "told": 1, "taken_over": 1, "timed_out": 1, "lost": 1}

    def test_what_was_not_stored(self, told: Told):
        assert by(told.run, "llmcache_persist_rejected_total", "llmcache_reason") == {
            "truncated": 1,
            "too_big": 1,
            "temperature": 1,
            "invalidated": 1,
            "superseded": 1,
        }
        assert one(told.run, "llmcache_unreadable_total") == 1

    def test_how_much_there_is(self, told: Told):
        assert one(told.run, "llmcache_evictions_total") == 3
        last = {event.place: event for event in told.events if isinstance(event, Measured)}
        assert len(last) == 9
        assert one(told.run, "llmcache_entries") == sum(event.entries for event in last.values()) > 9
        assert one(told.run, "llmcache_size_bytes") == sum(event.stored_bytes for event in last.values())

    def test_equivalent_questions(self, told: Told):
        result = "llmcache_semantic_result"
        assert by(told.run, "llmcache_semantic_lookups_total", result) == {"none": 4, "hit": 2, "shadow": 1}
        assert by(told.run, "llmcache_semantic_similarity_count", result) == {"hit": 2, "shadow": 1}
        guards = by(told.run, "llmcache_semantic_rejections_total", "llmcache_semantic_guard")
        assert guards == {"numbers": 1}
        assert by(told.run, "llmcache_semantic_verifications_total", "llmcache_semantic_verdict") == {
            "yes": 1
        }
        assert by(told.run, "llmcache_semantic_shadow_total", "llmcache_semantic_agreement") == {"agreed": 1}

    def test_an_outage(self, told: Told):
        states = [one(page, "llmcache_breaker_state") for page in (told.run, told.outage, told.after)]
        assert states == [0, 1, 0]
        requests = by(told.outage, "llmcache_requests_total", "llmcache_face", "llmcache_outcome")
        assert requests["gateway", "unavailable"] == 8


class TestGauges:
    def test_they_are_there_at_every_scrape(self):
        # Older SDKs forget what was set as soon as they have told it: an alert that waits would never fire.
        with exposed() as exposition:
            assert ("llmcache_breaker_state", {}, 0) in exposition.samples()
            exposition.observer.on_event(BreakerChanged(open=True))
            exposition.observer.on_event(Measured(place=1, entries=2, stored_bytes=300))
            for _ in range(3):
                told = {name: value for name, _, value in exposition.samples()}
                assert (told["llmcache_breaker_state"], told["llmcache_entries"]) == (1, 2)
                assert told["llmcache_size_bytes"] == 300

    def test_caches_that_share_a_meter_provider_share_them(self):
        with exposed() as exposition:
            first, second = exposition.observer, OpenTelemetry(meter_provider=exposition.provider)
            first.on_event(Measured(place=1, entries=2, stored_bytes=300))
            second.on_event(Measured(place=2, entries=1, stored_bytes=100))
            told = [(name, value) for name, _, value in exposition.samples() if name == "llmcache_entries"]
            assert told == [("llmcache_entries", 3)]


@pytest.mark.timeout(240)
async def test_ten_thousand_tenants_and_a_thousand_invented_models_cost_no_series(
    valkey: Server, namespace: str
):
    async def answer() -> dict[str, Any]:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": {"role": "assistant", "content": "Said."}, "finish_reason": "stop"}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}

    with exposed() as exposition:
        async with ResponseCache.from_url(
            valkey.url,
            namespace=namespace,
            observers=[exposition.observer],
            lookup_budget=30.0,
            commit_budget=30.0,
            socket_timeout=30.0,
        ) as cache:

            async def ask(number: int) -> None:
                asked = {
                    "model": f"invented-{number % 1000}",
                    "messages": [{"role": "user", "content": f"prompt-{number}"}],
                }
                for _ in range(2 if number < 200 or number % 7 == 0 else 1):  # a miss, and a hit
                    await cache.resolve(asked, answer, tenant=f"tenant-{number}")

            async def ask_all(numbers: range) -> str:
                for first in numbers[::100]:
                    await asyncio.gather(*map(ask, range(first, first + 100)))
                return await asyncio.to_thread(exposition.page)

            few, many = await ask_all(range(200)), await ask_all(range(200, 10_000))

    # The namespace is measured within a second.
    assert {name.partition("{")[0] for name in series(many) ^ series(few)} <= {
        "llmcache_entries",
        "llmcache_size_bytes",
    }
    assert len(series(few)) < 1000
    assert all(secret not in many for secret in ("tenant-", "prompt-", namespace, "Said."))
    models = {line.partition('gen_ai_request_model="')[2].partition('"')[0] for line in many.splitlines()}
    assert len(models - {""}) == MOST_MODELS + 1
    assert "_OTHER" in models


def series(page: str) -> set[str]:
    return {line.rpartition(" ")[0] for line in page.splitlines() if line.startswith("llmcache_")}


class Broken:
    """An instrument that raises whatever is done with it."""

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError


class BrokenMeter(NoOpMeter):
    def create_counter(self, *_args: Any, **_kwargs: Any) -> Any:
        return Broken()

    create_histogram = create_counter


class BrokenProvider(NoOpMeterProvider):
    def get_meter(self, *_args: Any, **_kwargs: Any) -> Any:
        return BrokenMeter("broken")


async def test_an_sdk_that_raises_is_nothing_to_the_caller(
    valkey: Server, namespace: str, caplog: pytest.LogCaptureFixture
):
    async def answer() -> str:
        return "an answer"

    async def narrate() -> Any:
        yield "an answer"

    observer = OpenTelemetry(meter_provider=BrokenProvider())
    async with ResponseCache.from_url(valkey.url, namespace=namespace, observers=[observer]) as cache:
        for _ in range(2):
            assert await cache.get_or_call({"q": 1}, answer) == "an answer"
            assert [chunk async for chunk in cache.stream({"q": 2}, narrate)] == ["an answer"]
            found = await cache.acquire({"q": 3})
            if hasattr(found, "fulfil"):
                await found.fulfil("an answer")
        assert (await cache.stats()).requests == 6
    assert ["observer" in record.message for record in caplog.records] == [True]
