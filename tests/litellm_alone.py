"""LiteLLM after `pip install "llmcache-plugins[litellm]"` alone: `python tests/litellm_alone.py REDIS_URL`.

Runs where nothing else is installed, no test tools either, which is the point: LiteLLM imports on a hit what
it does not install itself. Each call is made twice; the provider counts. Ends with 1 if a second call was
not a hit. The stand-in provider needs aiohttp, which LiteLLM brings.
"""

from __future__ import annotations

import asyncio
import os
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

# Without it LiteLLM downloads its price list when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

from llmcache_plugins.adapters.litellm import LiteLLMCache
from llmcache_plugins.testing.provider_server import ProviderServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MESSAGES = [{"role": "user", "content": "What is a cache?"}]
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]


async def _streamed(**arguments: Any) -> None:
    async for _ in await litellm.acompletion(stream=True, **arguments):
        pass


def _cases(base: str) -> dict[str, Callable[[], Awaitable[Any]]]:
    common: dict[str, Any] = {"model": "openai/stand-in", "api_base": base, "api_key": "test"}
    # The first would serve the others of the same question: each has a seed of its own.
    chat = {**common, "messages": MESSAGES}
    return {
        "acompletion": lambda: litellm.acompletion(**chat, seed=1),
        "acompletion, stream": lambda: _streamed(**chat, seed=2),
        "acompletion, tools": lambda: litellm.acompletion(**chat, seed=3, tools=TOOLS),
        "completion": lambda: asyncio.to_thread(litellm.completion, **chat, seed=4),
        "aembedding": lambda: litellm.aembedding(**common, input=["one"]),
        "aresponses": lambda: litellm.aresponses(**common, input="What is a cache?"),
    }


async def main(url: str) -> int:
    """Return the exit code."""
    litellm.suppress_debug_info = True
    failed = stored = 0
    patient: Any = {"lookup_budget": 5.0, "commit_budget": 5.0, "socket_timeout": 5.0}
    async with ProviderServer() as provider, LiteLLMCache.from_url(url, **patient) as cache:
        litellm.cache = cache
        for name, call in _cases(provider.base_url).items():
            calls = []
            stored += 1
            for _ in "12":
                before = provider.calls
                await call()
                calls.append(provider.calls - before)
                await _stored(cache, stored)
            failed += calls != [1, 0]
            sys.stdout.write(f"litellm {metadata.version('litellm')}: {name}: provider calls {calls}\n")
        await litellm.close_litellm_async_clients()
    return int(failed > 0)


async def _stored(cache: LiteLLMCache, entries: int) -> None:
    """Wait until so many answers are stored: LiteLLM writes when the caller has gone on."""
    async with asyncio.timeout(30):
        while (await cache.response_cache.stats()).entries != entries:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
