"""What Prometheus is told, scraped over HTTP from a real SDK after real calls: and the right numbers."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from command import run
from exposition import JUDGE, MODEL, UNPRICED, exposed, scripted
from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider
from promql import DOCS, RULES, queries, selected
from servers import valkey_server

from llmcache_plugins import OpenTelemetry, Outcome, ResponseCache
from llmcache_plugins.policy import Refusal
from llmcache_plugins.semantic.guards import Guard
from llmcache_plugins.semantic.question import Skip
from llmcache_plugins.telemetry import BreakerChanged, Face, LeaseStep, Measured, Purpose
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
        assert one(told.run, "llmcache_marks_forgotten_total") > 0
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


LATE = """
from llmcache_plugins import ResponseCache

cache = ResponseCache.from_url("redis://127.0.0.1:1")  # made first, as where a module does it

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
cache.bypass("is not")
print(*sorted({f.name for f in REGISTRY.collect() if f.name.startswith("llmcache")}))
"""


def test_an_sdk_may_be_set_up_after_the_cache():
    done = run(sys.executable, "-c", LATE)
    assert (done.stdout, done.stderr) == ("llmcache_breaker_state llmcache_requests\n", "")


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


CLOSED: dict[str, set[str]] = {
    "llmcache_outcome": set(Outcome),
    "llmcache_face": set(Face),
    "llmcache_lookup_result": {"hit", "miss"},
    "llmcache_provider_result": {"ok", "error"},
    "llmcache_token_type": {"input", "output"},
    "llmcache_purpose": set(Purpose),
    "llmcache_lease_step": set(LeaseStep),
    "llmcache_reason": set(Refusal),
    "llmcache_semantic_result": {"hit", "shadow", "none", "not_kept", *Skip},
    "llmcache_semantic_guard": set(Guard),
    "llmcache_semantic_verdict": {"yes", "no", "failed"},
    "llmcache_semantic_agreement": {"agreed", "differed", "unknown"},
}
"""Every value of every label, but for the names of models."""
OF_TARGETS = {"job", "instance"}
"""Labels that Prometheus adds."""
QUERIES = queries()
RECORDED = {rule["record"] for rule in RULES if "record" in rule}


def test_every_label_has_a_closed_set_of_values(told: Told):
    for name, labels, _ in told.outage:
        if name.startswith("llmcache_"):
            for label, value in labels.items():
                assert label in {"le", "gen_ai_request_model"} or value in CLOSED[label], (name, label)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
class TestQueries:
    def test_it_asks_for_what_there_is(self, told: Told, query: str):
        labels = {name: set(has) | OF_TARGETS for name, has, _ in told.outage}
        labels |= {name: {"job"} for name in RECORDED}
        for one in selected(query):
            assert one.name in labels
            assert one.kept <= labels[one.name]
            for label, operator, value in one.matchers:
                assert label in labels[one.name]
                assert operator in {"=", "=~"}
                if label not in OF_TARGETS:
                    assert set(value.split("|") if operator == "=~" else [value]) <= CLOSED[label]

    def test_counters_are_read_as_rates_and_gauges_as_they_are(self, told: Told, query: str):
        gauges = {"llmcache_entries", "llmcache_size_bytes", "llmcache_breaker_state", *RECORDED}
        for one in selected(query):
            assert one.is_range is (one.name not in gauges)
            assert ("rate" in one.within or "increase" in one.within) is one.is_range

    def test_quantiles_are_those_of_buckets(self, told: Told, query: str):
        for one in selected(query):
            is_bucket = one.name.endswith("_bucket")
            assert is_bucket is ("le" in one.kept)
            if "histogram_quantile" in one.within:
                assert is_bucket
                assert "sum" in one.within


def test_each_measurement_is_shown_or_watched(told: Told):
    asked = {stem(one.name) for query in QUERIES.values() for one in selected(query)}
    assert {stem(name) for name, _, _ in told.outage if name.startswith("llmcache_")} <= asked


def stem(name: str) -> str:
    for suffix in ("_bucket", "_sum", "_count"):
        name = name.removesuffix(suffix)
    return name


class Noting(NoOpMeter):
    """Notes what is made."""

    made: ClassVar[dict[str, tuple[str, str]]] = {}

    def create_observable_counter(
        self, name: str, _callbacks: Any, unit: str = "", description: str = ""
    ) -> Any:
        self.made[name] = ("counter", unit)

    def create_histogram(self, name: str, unit: str = "", description: str = "", **_more: Any) -> Any:
        self.made[name] = ("histogram", unit)

    def create_observable_gauge(
        self, name: str, _callbacks: Any, unit: str = "", description: str = ""
    ) -> Any:
        self.made[name] = ("gauge", unit)


class NotingProvider(NoOpMeterProvider):
    def get_meter(self, *_args: Any, **_kwargs: Any) -> Any:
        return Noting("noting")


PAGE = (DOCS / "telemetry.md").read_text("utf-8")


def rows(columns: int) -> list[list[str]]:
    """Return what stands in code in each cell of the page's tables that are so wide, without their heads."""
    tables = re.findall(r"^\| `(?:.*)\|$", PAGE, re.MULTILINE)
    split = [line.strip("|").split("|") for line in tables]
    return [
        [", ".join(re.findall(r"`([^`]+)`", cell)) for cell in cells]
        for cells in split
        if len(cells) == columns
    ]


class TestPage:
    def test_it_lists_the_instruments_and_no_others(self):
        OpenTelemetry(meter_provider=NotingProvider())
        listed = {name: (kind_of(name), unit) for name, _, _, unit, *_ in rows(6)}
        assert listed == Noting.made

    def test_in_prometheus_they_are_called_what_it_says(self, told: Told):
        labels: dict[str, set[str]] = {}
        for name, has, _ in told.outage:
            labels.setdefault(stem(name), set()).update(set(has) - {"le"})
        assert {
            called: {one.replace(".", "_") for one in attributes.split(", ") if one}
            for _, called, _, _, attributes, _ in rows(6)
        } == {name: has for name, has in labels.items() if name.startswith("llmcache_")}

    def test_it_has_every_value_of_every_attribute(self):
        listed = {name.replace(".", "_"): set(values.split(", ")) for name, values in rows(2)[: len(CLOSED)]}
        assert listed == CLOSED


def kind_of(name: str) -> str:
    """Return the type that the page gives a metric: it stands there as plain text."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    return line.split("|")[3].strip()
