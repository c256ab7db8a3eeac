"""`AIORedlock` of pottery on one server around a look-up: get, lock, get again, call, set."""

from __future__ import annotations

import contextlib
import importlib
from typing import TYPE_CHECKING, Any

from benchmarks.peers import TTL, Answer, Place
from benchmarks.peers.redis_lock import open_client
from benchmarks.provider import open_ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def open_answer(place: Place) -> AsyncIterator[Answer]:
    """Connect."""
    pottery: Any = importlib.import_module("pottery")
    async with open_ask(place.provider_url) as ask, open_client(place.url) as client:

        async def answer(question: str) -> str:
            found: str | None = await client.get(question)
            if found is not None:
                return found
            lock = pottery.AIORedlock(key=question, masters={client}, auto_release_time=place.lease)
            await lock.acquire()
            try:
                found = await client.get(question)
                if found is None:
                    found = await ask(question)
                    await client.set(question, found, ex=TTL)
                return found
            finally:
                # It may have ended during the call, and be somebody else's by now.
                with contextlib.suppress(pottery.ReleaseUnlockedLock):
                    await lock.release()

        yield answer
