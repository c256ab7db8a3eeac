import asyncio
import urllib.request

from openai import AsyncOpenAI
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import set_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import parser, start_http_server

from llmcache_plugins import InferenceGateway, Price, ResponseCache
from llmcache_plugins.providers import OpenAIProvider

set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
server, _ = start_http_server(0, addr="127.0.0.1")  # any free port; yours has a number, such as 9464
ASKED = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is a lease?"}]}


async def main() -> None:
    prices = {"gpt-4o-mini": Price(input=0.15, output=0.60)}  # without: those of LiteLLM's table
    async with ResponseCache.from_url(prices=prices) as cache, AsyncOpenAI() as client:
        gateway = InferenceGateway(OpenAIProvider(client), cache)
        for _ in range(1000):
            await gateway.resolve(ASKED)


asyncio.run(main())
page = urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics").read().decode()
for sample in (one for family in parser.text_string_to_metric_families(page) for one in family.samples):
    if sample.name in ("llmcache_requests_total", "llmcache_saved_cost_total"):
        labels = [value for name, value in sample.labels.items() if not name.startswith("otel_")]
        print(sample.name, *labels, round(sample.value, 4))
# llmcache_requests_total gateway miss 1.0
# llmcache_requests_total gateway hit 999.0
# llmcache_saved_cost_total gpt-4o-mini 0.0896
# Run again within an hour:
# llmcache_requests_total gateway hit 1000.0
# llmcache_saved_cost_total gpt-4o-mini 0.0897
