"""`litellm.acompletion` with litellm's own Redis cache.

It needs fastapi and soundfile, which litellm does not require: without them, 1.110 raises
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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_BACKGROUND_SECONDS = 2.0


@contextlib.asynccontextmanager
async def open_answer(place: Place) -> AsyncIterator[Answer]:
    """Connect."""
    # Else it fetches its price list from the network when it is imported.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.cache = litellm.Cache(type="redis", url=place.url, ttl=TTL)

    async def answer(question: str) -> str:
        completion = await litellm.acompletion(
            **{**query(question), "model": f"openai/{MODEL}"},
            api_base=place.provider_url,
            api_key="any",
            caching=True,
            max_retries=0,
        )
        return str(completion.choices[0].message.content)

    yield answer
    # It stores in the background, and does not say when it is through.
    await asyncio.sleep(_BACKGROUND_SECONDS)
