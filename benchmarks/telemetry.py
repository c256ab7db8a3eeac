"""What telemetry and the ledger add to a hit: nothing at all, as shipped, and with an SDK that listens.

In turns, in one run: the processor's time of a hit, and how much of it is for being measured. The SDK is the
real one; its metrics go to the Prometheus exporter, its spans to nowhere, in batches.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.servers import own_server
from benchmarks.tables import print_table
from benchmarks.timing import take_turns
from llmcache_plugins import InferenceGateway, OpenTelemetry, Price, ResponseCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

KEYS = 200
TURNS = 15
CALLS = 2_000
ANSWER = {
    "model": "m",
    "choices": [{"message": {"content": "words " * 300}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 900, "completion_tokens": 400},
}
NOTHING = "neither telemetry nor ledger"


class Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def variants(url: str) -> dict[str, ResponseCache]:
    """Make a cache for each way to listen, or not to."""
    reader = PrometheusMetricReader()
    meters = MeterProvider([reader])
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(Nowhere()))

    def make(name: str, **more: Any) -> ResponseCache:
        prices = {"m": Price(input=0.15, output=0.60)}
        return ResponseCache.from_url(url, namespace=name, prices=prices, lookup_budget=5.0, **more)

    silent = make("silent", ledger_days=0)
    silent.repository.telemetry._observers = ()  # noqa: SLF001 - there is no such setting: it would save nothing
    return {
        NOTHING: silent,
        "as shipped, no SDK": make("shipped"),
        "metrics, to Prometheus": make("metrics", observers=[OpenTelemetry(meter_provider=meters)]),
        "metrics, and every call a span": make(
            "spans", observers=[OpenTelemetry(meter_provider=meters, tracer_provider=tracers)]
        ),
    }


async def run(url: str, concurrency: int) -> None:
    """Print a table for one level of concurrency."""
    queries = [
        {"model": "m", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(KEYS)
    ]

    async def provider(_query: object) -> dict[str, Any]:
        return ANSWER

    def calling(gateway: InferenceGateway) -> Callable[[int], Awaitable[Any]]:
        return lambda i: gateway.resolve(queries[i % KEYS])

    async with AsyncExitStack() as stack:
        contenders = {}
        for name, cache in variants(url).items():
            gateway = await stack.enter_async_context(InferenceGateway(provider, cache))
            for query in queries:
                await gateway.resolve(query)
            contenders[name] = calling(gateway)
        stretches = await take_turns(contenders, concurrency=concurrency, calls=CALLS, turns=TURNS)
    cpu = {
        name: statistics.median(one.cpu / len(one.calls) * 1e6 for one in some)
        for name, some in stretches.items()
    }
    print_table(
        f"A hit of the gateway, {concurrency} at a time",
        ["", "us of processor", "more than with neither", "ratio"],
        [
            [name, f"{us:.1f}", f"{us - cpu[NOTHING]:+.1f}", f"{us / cpu[NOTHING]:.2f}"]
            for name, us in cpu.items()
        ],
    )


def main() -> None:
    """Print a table for one call at a time, and for many."""
    with own_server() as server:
        for concurrency in (1, 64):
            asyncio.run(run(server.socket_url, concurrency))
