"""OpenTelemetry metrics: each event becomes a measurement of `llmcache.*`.

Owns names, units, buckets and attributes; docs/telemetry.md lists them. Units are UCUM. Every attribute has a
closed set of values; names of models, which a request may invent, are closed at the first hundred. Uses the
API alone: which SDK listens, if any, is the application's affair.

Gauges are observed, not set: an SDK may forget what was set once it has told it, and a scrape later the
breaker of a server that is still away would be gone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from llmcache_plugins.models import Outcome
from llmcache_plugins.telemetry.counts import Count
from llmcache_plugins.telemetry.events import (
    BreakerChanged,
    Evicted,
    FoundNear,
    LeaseEvent,
    MarksForgotten,
    Measured,
    Missed,
    ProviderCalled,
    Refused,
    Resolved,
    SemanticLooked,
    ShadowCompared,
    Spent,
    Unreadable,
    VerifierAsked,
)
from llmcache_plugins.telemetry.listening import Listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import MeterProvider

    from llmcache_plugins.models import Usage
    from llmcache_plugins.telemetry.events import Event

__all__ = ["Metrics", "metrics_of"]

OTHER_MODEL: Final = "_OTHER"
"""OpenTelemetry's word for a value outside of a closed set."""
MOST_MODELS: Final = 100
_MOST_PLACES = 1000
_STATES = {Measured, BreakerChanged}
"""What is to be known to a provider that comes later."""

_QUICK = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Seconds: a lookup takes a tenth of a millisecond, and is cut off by the lookup budget."""
_SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0)
"""Seconds: a provider takes up to ten minutes."""
_NEAR = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0)
"""Cosine similarity."""

_MODEL = "gen_ai.request.model"
_KIND = "llmcache.token.type"
_PURPOSE = "llmcache.purpose"
_RESULT = "llmcache.semantic.result"
_RESULT_HIT = {"llmcache.lookup.result": "hit"}
_RESULT_MISS = {"llmcache.lookup.result": "miss"}


class Metrics:
    """The instruments of one meter provider, by default the process's. An `Observer`."""

    def __init__(self, meter_provider: MeterProvider | None = None, *, version: str = "") -> None:
        # Without an SDK nothing is measured for nobody; one that is named listens.
        self._is_heard = Listening(_is_there) if meter_provider is None else _always
        meter = metrics.get_meter("llmcache_plugins", version, meter_provider)
        count, time = partial(Count, meter), meter.create_histogram
        self._requests = count(
            "llmcache.requests", "{request}", "Calls that were answered.", "llmcache.outcome", "llmcache.face"
        )
        self._lookup = time(
            "llmcache.lookup.duration",
            "s",
            "From a call to its stored answer, or to the server's word that there is none.",
            explicit_bucket_boundaries_advisory=_QUICK,
        )
        self._provider = time(
            "llmcache.provider.duration",
            "s",
            "From a provider call to its answer, its failure or its cancellation.",
            explicit_bucket_boundaries_advisory=_SLOW,
        )
        self._wait = time(
            "llmcache.singleflight.wait.duration",
            "s",
            "From a call to the answer of an identical one that was under way.",
            explicit_bucket_boundaries_advisory=_SLOW,
        )
        self._saved_seconds = count(
            "llmcache.saved.duration", "s", "What providers had taken for answers that were served again."
        )
        self._saved_tokens = count(
            "llmcache.saved.tokens",
            "{token}",
            "Tokens that were not paid for a second time.",
            _KIND,
            _MODEL,
        )
        self._saved_cost = count(
            "llmcache.saved.cost",
            "{USD}",
            "What those would have cost, in US dollars at list prices.",
            _MODEL,
        )
        self._saved_unpriced = count(
            "llmcache.saved.unpriced",
            "{request}",
            "Calls that were spared and whose price is not known.",
            _MODEL,
        )
        self._spent_tokens = count(
            "llmcache.spent.tokens",
            "{token}",
            "Tokens that the cache itself has used.",
            _KIND,
            _MODEL,
            _PURPOSE,
        )
        self._spent_cost = count(
            "llmcache.spent.cost",
            "{USD}",
            "What those have cost, in US dollars: to be taken off the savings.",
            _MODEL,
            _PURPOSE,
        )
        self._lease = count(
            "llmcache.lease.events", "{event}", "Steps in the lives of leases.", "llmcache.lease.step"
        )
        self._rejected = count(
            "llmcache.persist.rejected",
            "{answer}",
            "Answers that were returned and not stored.",
            "llmcache.reason",
        )
        self._evicted = count("llmcache.evictions", "{entry}", "Entries removed to keep a bound.")
        self._unreadable = count("llmcache.unreadable", "{entry}", "Stored bytes that were no entry: misses.")
        self._forgotten = count(
            "llmcache.marks.forgotten", "{mark}", "Marks of invalidations that made room for newer ones."
        )
        self._near = count("llmcache.near.hits", "{lookup}", "Lookups that the near cache answered.")
        self._looked = count(
            "llmcache.semantic.lookups", "{lookup}", "Searches for an equivalent question.", _RESULT
        )
        self._similarity = time(
            "llmcache.semantic.similarity",
            "1",
            "Cosine similarity of the question whose answer was served, or would have been.",
            explicit_bucket_boundaries_advisory=_NEAR,
        )
        self._vetoed = count(
            "llmcache.semantic.rejections",
            "{question}",
            "Questions near enough that a guard kept back.",
            "llmcache.semantic.guard",
        )
        self._verified = count(
            "llmcache.semantic.verifications",
            "{request}",
            "Questions put to a verifier.",
            "llmcache.semantic.verdict",
        )
        self._shadow = count(
            "llmcache.semantic.shadow",
            "{answer}",
            "Shadow hits beside what was answered.",
            "llmcache.semantic.agreement",
        )
        observe = meter.create_observable_gauge
        observe(
            "llmcache.entries",
            [lambda _: self._measured(0)],
            "{entry}",
            "Entries in the caches' own namespaces, an upper bound.",
        )
        observe("llmcache.size", [lambda _: self._measured(1)], "By", "Bytes of those entries.")
        observe(
            "llmcache.breaker.state",
            [lambda _: (Observation(min(self._open_breakers, 1)),)],
            # Not "1": what comes by a collector would have another name in Prometheus than what is scraped.
            "{state}",
            "1 while the server is not asked, because it did not answer, else 0.",
        )
        self._open_breakers = 0
        self._places: dict[int, tuple[int, int]] = {}
        self._totals: tuple[int, int] | None = None
        self._models: dict[str | None, str] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            Resolved: self._on_resolved,
            Missed: lambda event: self._lookup.record(event.seconds, _RESULT_MISS),
            FoundNear: lambda _: self._near.add(1),
            ProviderCalled: self._on_provider_called,
            Spent: self._on_spent,
            Refused: lambda event: self._rejected.add(1, str(event.reason)),
            SemanticLooked: self._on_semantic_looked,
            VerifierAsked: lambda e: self._verified.add(1, e.verdict),
            ShadowCompared: lambda e: self._shadow.add(1, e.agreement),
            Unreadable: lambda _: self._unreadable.add(1),
            Evicted: lambda event: self._evicted.add(event.entries),
            MarksForgotten: lambda event: self._forgotten.add(event.marks),
            Measured: self._on_measured,
            LeaseEvent: lambda event: self._lease.add(1, event.step.value),
            BreakerChanged: self._on_breaker_changed,
        }

    def on_event(self, event: Event, /) -> None:
        """Measure one event."""
        kind = type(event)
        if kind in _STATES or self._is_heard():
            self._handlers[kind](event)

    def _on_resolved(self, event: Resolved) -> None:
        # Of an enum, `value` is computed in Python.
        self._requests.add(1, event.outcome._value_, event.face._value_)
        if event.outcome.is_stored:
            self._lookup.record(event.seconds, _RESULT_HIT)
        elif event.outcome is Outcome.COALESCED:
            self._wait.record(event.seconds)
        else:
            return
        if event.saved_seconds:
            self._saved_seconds.add(event.saved_seconds)
        model = self._model(event.model)
        if event.saved is not None:
            _add_tokens(self._saved_tokens, event.saved, model)
        if event.saved_cost is not None:
            self._saved_cost.add(event.saved_cost, model)
        elif event.outcome.is_spared:
            self._saved_unpriced.add(1, model)

    def _on_spent(self, event: Spent) -> None:
        model, purpose = self._model(event.model), event.purpose.value
        _add_tokens(self._spent_tokens, event.usage, model, purpose)
        if event.cost is not None:
            self._spent_cost.add(event.cost, model, purpose)

    def _on_provider_called(self, event: ProviderCalled) -> None:
        self._provider.record(event.seconds, {"llmcache.provider.result": "error" if event.failed else "ok"})

    def _on_semantic_looked(self, event: SemanticLooked) -> None:
        result = str(event.result)
        self._looked.add(1, result)
        if event.similarity is not None:
            self._similarity.record(event.similarity, {_RESULT: result})
        for guard in event.vetoes:
            self._vetoed.add(1, guard)

    def _on_measured(self, event: Measured) -> None:
        if event.place in self._places or len(self._places) < _MOST_PLACES:
            self._places[event.place] = (event.entries, event.stored_bytes)
        entries, stored_bytes = (sum(column) for column in zip(*self._places.values(), strict=True))
        # As one: an SDK reads it on a thread of its own.
        self._totals = (entries, stored_bytes)

    def _measured(self, column: int) -> Iterable[Observation]:
        totals = self._totals
        return () if totals is None else (Observation(totals[column]),)

    def _on_breaker_changed(self, event: BreakerChanged) -> None:
        self._open_breakers = max(0, self._open_breakers + (1 if event.open else -1))

    def _model(self, name: str | None) -> str:
        """Return a name, of a closed set."""
        known = self._models.get(name)
        if known is None:
            known = name or "unknown"
            if len(self._models) >= MOST_MODELS or len(known) > 100:
                return OTHER_MODEL
            self._models[name] = known
        return known


def _always() -> bool:
    return True


def _is_there() -> bool:
    # The API has no public name for the provider that waits for a real one.
    return "Proxy" not in type(metrics.get_meter_provider()).__name__


def _add_tokens(count: Count, usage: Usage, *more: str) -> None:
    if usage.input_tokens:
        count.add(usage.input_tokens, "input", *more)
    if usage.output_tokens:
        count.add(usage.output_tokens, "output", *more)


_of: dict[MeterProvider | None, Metrics] = {}


def metrics_of(meter_provider: MeterProvider | None = None, *, version: str = "") -> Metrics:
    """Return the instruments of a meter provider, the same for all who ask: its gauges are sums over caches.

    A gauge that was made twice would say two things.
    """
    if (known := _of.get(meter_provider)) is None:
        known = _of[meter_provider] = Metrics(meter_provider, version=version)
    return known
