"""The decorator of cashews with its lock, as its README shows it."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from benchmarks.peers import CONNECTIONS, TTL, Answer, Place
from benchmarks.provider import open_ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def open_answer(place: Place) -> AsyncIterator[Answer]:
    """Connect. The lock lives as long as the answer does: the decorator knows one TTL."""
    cashews: Any = importlib.import_module("cashews")
    cache = cashews.Cache()
    cache.setup(place.url, max_connections=CONNECTIONS)
    async with open_ask(place.provider_url) as ask:

        @cache(ttl=TTL, key="bench:{question}", lock=True)  # type: ignore[untyped-decorator]
        async def answer(question: str) -> str:
            return await ask(question)

        try:
            yield answer
        finally:
            await cache.close()
