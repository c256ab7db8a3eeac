"""What a message costs on a server, and when our own commit woke the followers."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import threading
import time
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio as aioredis

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHANNEL = "benchmark"
_WAKES = "llm:*wake:*"
_ROUNDS = 400


def round_trip(url: str) -> float:
    """Return the median seconds from publishing on one connection to the message on another."""
    return statistics.median(asyncio.run(_round_trips(url)))


async def _round_trips(url: str) -> list[float]:
    seconds: list[float] = []
    client: Any = aioredis.Redis.from_url(url)
    async with client, client.pubsub() as subscriber:
        await subscriber.subscribe(_CHANNEL)
        await subscriber.get_message(timeout=5)
        for _ in range(_ROUNDS):
            received = asyncio.create_task(_receive(subscriber))
            # Let it wait first: the followers do too.
            await asyncio.sleep(0)
            began = time.monotonic()
            await client.publish(_CHANNEL, "")
            seconds.append(await received - began)
    return seconds


async def _receive(subscriber: Any) -> float:
    await subscriber.get_message(timeout=5)
    return time.monotonic()


class WakeWatch:
    """Notes when followers were woken, in a thread: the processes that are measured keep the loop busy."""

    def __init__(self, client: Any) -> None:
        self._subscriber = client.pubsub()
        self._subscriber.psubscribe(_WAKES)
        self._subscriber.get_message(timeout=5)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.times: list[float] = []
        """Of `time.monotonic()`."""

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._is_over.set()
        self._thread.join()
        self._subscriber.close()

    def first_after(self, moment: float) -> float | None:
        """Return the first time at or after the moment: no commit can come before the provider's answer."""
        return min((time for time in self.times if time >= moment), default=None)

    def _watch(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(redis.RedisError):
                if self._subscriber.get_message(timeout=0.2) is not None:
                    self.times.append(time.monotonic())


@contextlib.contextmanager
def watch_wakes(url: str) -> Iterator[WakeWatch]:
    """Listen to the wake channels of every namespace."""
    with redis.Redis.from_url(url, client_name=_CHANNEL) as client:
        watch = WakeWatch(client)
        watch.start()
        try:
            yield watch
        finally:
            watch.close()
