"""`litellm.acompletion` with one of litellm's own caches, or with ours.

Its own need fastapi and soundfile, which litellm does not require: without them, 1.110 raises
ModuleNotFoundError for a hit.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from typing import TYPE_CHECKING, Any

from benchmarks.peers import TTL, Answer, Place
from benchmarks.provider import MODEL, query
from llmcache_plugins import CachePolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_BACKGROUND_SECONDS = 2.0
_HITS_TTL = 3600


@contextlib.asynccontextmanager
async def open_answer(place: Place, cache: str = "redis", stream: str = "") -> AsyncIterator[Answer]:
    """Connect; `cache` is one of `open_cache`; with a stream, if `stream` says anything."""
    async with open_cache(place, cache, ttl=TTL) as (litellm, opened):
        litellm.cache = opened

        async def answer(question: str) -> str:
            completion = await litellm.acompletion(
                **{**query(question), "model": f"openai/{MODEL}"},
                api_base=place.provider_url,
                api_key="any",
                caching=True,
                max_retries=0,
                stream=bool(stream),
            )
            if not stream:
                return str(completion.choices[0].message.content)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in completion])

        yield answer
        # It stores in the background, and does not say when it is through.
        await asyncio.sleep(_BACKGROUND_SECONDS)


@contextlib.asynccontextmanager
async def open_cache(place: Place, cache: str, *, ttl: int = _HITS_TTL) -> AsyncIterator[tuple[Any, Any]]:
    """Give litellm and one of the caches for it: "local", "redis", "ours" or "near ours"."""
    # Else it fetches its price list from the network when it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    if cache in ("ours", "near ours"):
        adapter: Any = importlib.import_module("llmcache_plugins.adapters.litellm")
        async with adapter.LiteLLMCache.from_url(
            place.url,
            namespace="bench",
            lease_ttl=place.lease,
            policy=CachePolicy(ttl=ttl),
            near_cache=cache == "near ours",
        ) as ours:
            yield litellm, ours
        return
    where = {"url": place.url} if cache == "redis" else {}
    yield litellm, litellm.Cache(type=cache, ttl=ttl, **where)
