"""What Prometheus is told: scraped over HTTP from a real SDK, after real calls."""

from __future__ import annotations

import contextlib
import urllib.request
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, parser, start_http_server

from llmcache_plugins import OpenTelemetry
from llmcache_plugins.telemetry import BreakerChanged, Measured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Exposition:
    """An SDK of the application's, with its `/metrics`."""

    def __init__(self, port: int, provider: MeterProvider) -> None:
        self.provider = provider
        self.observer = OpenTelemetry(meter_provider=provider)
        self._url = f"http://127.0.0.1:{port}/metrics"

    def page(self) -> str:
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            return answer.read().decode()

    def samples(self) -> list[tuple[str, Mapping[str, str], float]]:
        return samples_of(self.page())

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the series with these labels; 0 where there are none."""
        return sum(
            value
            for found, has, value in self.samples()
            if found == name and all(has.get(label) == wanted for label, wanted in labels.items())
        )

    def by(self, name: str, *labels: str) -> dict[Any, float]:
        """Return the values of a metric by its labels: by one, or by a tuple of several."""
        return {
            tuple(has[label] for label in labels) if len(labels) > 1 else has[labels[0]]: value
            for found, has, value in self.samples()
            if found == name
        }


def samples_of(page: str) -> list[tuple[str, Mapping[str, str], float]]:
    return [
        (sample.name, {k: v for k, v in sample.labels.items() if not k.startswith("otel_")}, sample.value)
        for family in parser.text_string_to_metric_families(page)
        for sample in family.samples
    ]


@contextlib.contextmanager
def exposed() -> Iterator[Exposition]:
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(registry=registry)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        yield Exposition(server.server_port, provider)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        provider.shutdown()


def test_a_gauge_is_there_at_every_scrape():
    # Older SDKs forget what was set as soon as they have told it: an alert that waits would never fire.
    with exposed() as exposition:
        assert ("llmcache_breaker_state", {}, 0) in exposition.samples()
        exposition.observer.on_event(BreakerChanged(open=True))
        exposition.observer.on_event(Measured(place=1, entries=2, stored_bytes=300))
        for _ in range(3):
            told = {name: value for name, _, value in exposition.samples()}
            assert (told["llmcache_breaker_state"], told["llmcache_entries"]) == (1, 2)
            assert told["llmcache_size_bytes"] == 300


def test_caches_that_share_a_meter_provider_share_its_gauges():
    with exposed() as exposition:
        first, second = exposition.observer, OpenTelemetry(meter_provider=exposition.provider)
        first.on_event(Measured(place=1, entries=2, stored_bytes=300))
        second.on_event(Measured(place=2, entries=1, stored_bytes=100))
        told = [(name, value) for name, _, value in exposition.samples() if name == "llmcache_entries"]
        assert told == [("llmcache_entries", 3)]
