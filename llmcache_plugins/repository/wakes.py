"""Waking those who wait: one pub/sub connection per event loop, however many channels and tasks.

A message says "look again" and nothing else, so a lost one costs time and never an answer: whoever waits
also looks after a while by itself. A connection that has gone deaf is found by pinging. All are woken when
it is lost and when it is heard again: a message may have come at any time between.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from llmcache_plugins.loops import wait_at_most

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from redis.asyncio.client import PubSub

    Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]

__all__ = ["Ear", "Wakes"]

_PING_EVERY = 3.0
"""Seconds of silence after which the connection is asked whether it still hears."""
_TRY_AGAIN_AFTER = 1.0
"""Seconds from one attempt to the next where it does not work."""
_CONNECT_WITHIN = 10.0
"""Seconds to connect, for a client without timeouts of its own; an embedded server's start included."""


class Ear:
    """Hears one channel. `ready`: it is heard, or cannot be. `heard`: there is something to look at."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.heard = asyncio.Event()

    async def wait(self, timeout: float) -> None:
        """Wait until something was heard since the last time, at most `timeout` seconds."""
        await wait_at_most(self.heard, timeout)
        self.heard.clear()


class Wakes:
    """Who listens to what.

    `subscriber` makes a subscription with a connection of its own, `on_fault` is told why one was lost;
    `patience` is how many seconds to wait for the server to confirm a channel.
    """

    def __init__(
        self,
        *,
        subscriber: Callable[[], PubSub],
        spawn: Spawn,
        on_fault: Callable[[Exception], object],
        patience: float,
    ) -> None:
        self._subscriber = subscriber
        self._spawn = spawn
        self._on_fault = on_fault
        self._patience = patience
        self._ears: dict[str, set[Ear]] = {}
        self._task: asyncio.Task[None] | None = None
        self._line: _Line | None = None
        self._not_before = 0.0

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[Ear]:
        """Hear a channel while the context is open; waits a little for the server to confirm it."""
        ear = Ear()
        self._ears.setdefault(channel, set()).add(ear)
        try:
            self._attend(channel)
            is_held = self._line is not None and self._line.is_held(channel)
            if not is_held and self._seconds_to_pause() <= 0:
                await wait_at_most(ear.ready, self._patience)
                ear.heard.clear()  # whoever is let in looks for itself first
            yield ear
        finally:
            self._ears[channel].discard(ear)
            if not self._ears[channel]:
                del self._ears[channel]
                self._attend(channel)

    @property
    def channels(self) -> int:
        """How many channels are listened to."""
        return len(self._ears)

    def _attend(self, channel: str) -> None:
        if self._task is None:
            self._task = self._spawn(self._run())
            self._task.add_done_callback(self._let_all_in)
        elif not self._ears:
            # Who ended it otherwise has closed us: it is not begun again before all have left.
            self._task.cancel()
            self._task = self._line = None
        elif self._line is not None:
            self._line.look_at(channel)

    def _let_all_in(self, ended: asyncio.Task[None]) -> None:
        if self._task is not ended:
            return
        # Closed, perhaps before its first step: nobody is left waiting for a confirmation.
        for ear in [ear for ears in self._ears.values() for ear in ears]:
            ear.ready.set()
            ear.heard.set()

    def _seconds_to_pause(self) -> float:
        return self._not_before - asyncio.get_running_loop().time()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds_to_pause())
            next_time = asyncio.get_running_loop().time() + _TRY_AGAIN_AFTER
            line = self._line = _Line(self._ears)
            try:
                await line.hold(self._subscriber(), self._spawn)
            except Exception as error:  # noqa: BLE001 - the client's, or of what lies below it: polling does
                self._not_before = next_time
                self._on_fault(error)
                line.wake_all()


class _Line:
    """One connection: subscribes to what somebody has an ear for, and passes on what it hears.

    A channel has one command under way at most, and is looked at again when that is confirmed: else the
    answer to a SUBSCRIBE before an UNSUBSCRIBE could pass for that to the one after it.
    """

    def __init__(self, ears: dict[str, set[Ear]]) -> None:
        self._ears = ears
        self._to_look_at: set[str] = set(ears)
        self._has_to_look = asyncio.Event()
        self._held: set[str] = set()
        self._under_way: set[str] = set()

    def is_held(self, channel: str) -> bool:
        return channel in self._held and channel not in self._under_way

    def look_at(self, channel: str) -> None:
        """See to it that the server knows whether a channel is wanted."""
        self._to_look_at.add(channel)
        self._has_to_look.set()

    def wake_all(self) -> None:
        """Tell all that this line is no more."""
        for channel, ears in self._ears.items():
            for ear in ears:
                ear.ready.set()
                if channel in self._held:
                    ear.heard.set()
        self._held.clear()

    async def hold(self, pubsub: Any, spawn: Spawn) -> None:
        """Connect and stay; raises what ended it. `pubsub`: redis-py types only some of what is used."""
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(_CONNECT_WITHIN):
                await _uncut(pubsub.connect())
            tasks = [spawn(self._tell(pubsub)), spawn(self._hear(pubsub))]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            with suppress(Exception):  # nothing more can be done with it
                await pubsub.aclose()
            with suppress(Exception):  # a connection that was cut short lies open in the pool
                await pubsub.connection_pool.aclose()

    async def _tell(self, pubsub: Any) -> None:
        while True:
            self._has_to_look.clear()
            channels, self._to_look_at = self._to_look_at - self._under_way, set()
            changed = {channel for channel in channels if (channel in self._ears) != (channel in self._held)}
            wanted, unwanted = changed - self._held, changed & self._held
            self._under_way |= changed
            if wanted:
                await _uncut(pubsub.subscribe(*wanted))
            if unwanted:
                await _uncut(pubsub.unsubscribe(*unwanted))
            await self._has_to_look.wait()

    async def _hear(self, pubsub: Any) -> None:
        is_asked = False
        while True:
            message = await pubsub.get_message(timeout=_PING_EVERY)
            if message is not None:
                is_asked = False
                self._take(message["type"], message["channel"])
            elif is_asked:
                raise TimeoutError("the connection for messages has gone deaf")
            else:
                is_asked = True
                await _uncut(pubsub.ping())

    def _take(self, kind: str, name: str | bytes | None) -> None:
        channel = name.decode() if isinstance(name, bytes) else str(name)
        if kind in ("subscribe", "unsubscribe"):
            self._under_way.discard(channel)
            self.look_at(channel)
        if kind == "subscribe":
            self._held.add(channel)
        elif kind == "unsubscribe":
            self._held.discard(channel)
        if kind in ("subscribe", "message"):
            for ear in self._ears.get(channel, ()):
                ear.ready.set()
                ear.heard.set()


async def _uncut(sending: Awaitable[object]) -> None:
    # The client sends with `asyncio.wait_for`, which on Python 3.11 loses a cancellation that comes as it
    # ends: the task would go on, and connect again what was closed.
    try:
        await sending
    finally:
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError
