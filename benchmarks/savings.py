"""Traffic of three services on one server, and what `llmcache stats` says of it; draws that for the docs.

Questions repeat by a Zipf law, some at the same moment. The provider is the stand-in on loopback, which bills
tokens as it says; prices are those of LiteLLM's table. What the command says is held against what the
provider has billed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import openai
from rich.console import Console

from benchmarks.servers import own_server
from llmcache_plugins import CacheConfig, InferenceGateway, ResponseCache, ResponseRepository
from llmcache_plugins.cli.stats.view import view
from llmcache_plugins.providers import OpenAIProvider
from llmcache_plugins.testing.provider_server import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmcache_plugins.savings import Savings

SERVICES = {"support": "gpt-4o-mini", "search": "gpt-4o", "reports": "gpt-4.1"}
QUESTIONS = 300
CALLS = 4_000
AT_ONCE = 40
WIDTH = 100


async def _traffic(url: str, provider: ProviderServer) -> None:
    rng = random.Random(7)
    weights = [1 / (rank + 1) for rank in range(QUESTIONS)]
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="none") as client:
        for service, model in SERVICES.items():
            cache = ResponseCache.from_url(url, namespace=service, lookup_budget=5.0)
            async with InferenceGateway(OpenAIProvider(client), cache) as gateway:
                numbers = iter(rng.choices(range(QUESTIONS), weights, k=CALLS))

                async def ask(gateway: InferenceGateway = gateway, model: str = model) -> None:
                    for number in numbers:  # noqa: B023 - all of one service share it
                        text = f"question number {number}, about the terms of delivery"
                        await gateway.resolve(
                            {"model": model, "messages": [{"role": "user", "content": text}]}
                        )

                await asyncio.gather(*(ask() for _ in range(AT_ONCE)))


async def run(url: str) -> tuple[Savings, int]:
    """Return what the ledger says, and how many calls the provider was made."""
    async with ProviderServer(median_seconds=0.05) as provider:
        await _traffic(url, provider)
        calls = provider.calls
    async with ResponseRepository(url, config=CacheConfig(socket_timeout=5.0)) as repository:
        return await repository.ledger.read(), calls


def main(words: Sequence[str] = ()) -> None:
    """Print what the command prints; with `--svg FILE`, draw it too."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks savings", description=__doc__)
    parser.add_argument("--svg", type=Path, help="draw it in this file")
    options = parser.parse_args(words)
    with own_server() as server:
        savings, calls = asyncio.run(run(server.socket_url))
    title = "all namespaces, all days, at a server of its own"
    console = Console(record=True, width=WIDTH, highlight=False)
    console.print(view(savings, title=title))
    print(f"\n  misses {savings.total.misses:,}, calls that the provider has counted {calls:,}")
    if options.svg:
        drawn = console.export_svg(title="llmcache stats")
        # Fonts from elsewhere: the page's own will do.
        options.svg.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL), "utf-8")
        print(f"  drawn in {options.svg}")
