"""Many callers, one flight: at most one task per key, event loop and process.

The callers of one process share a task that belongs to none of them. A caller that is cancelled leaves
alone; when the last one has left, the flight is cancelled too (or finishes, as configured) and newcomers
start another. After a fork the child starts with none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from llmcache_plugins.loops import PerLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

__all__ = ["Flights"]

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")

_LET_GO = 0.25
"""Seconds the last caller waits for its cancelled flight to give up its lease."""


class _Flight(Generic[T]):
    __slots__ = ("callers", "task")

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self.callers = 0

    @property
    def gave_itself_up(self) -> bool:
        """Whether it ended as cancelled although nobody has cancelled it."""
        return self.task.cancelled() and not self.task.cancelling()


class Flights(Generic[K, T]):
    """The flights under way."""

    def __init__(self, *, on_abandon: Literal["cancel", "finish"] = "cancel") -> None:
        self._on_abandon = on_abandon
        self._per_loop: PerLoop[dict[K, _Flight[T]]] = PerLoop(dict)

    async def join(self, key: K, start: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Wait for the flight of `key`, started by `start` if there is none.

        Returns its result, and whether this call started it. What the flight raises, all its callers get;
        but a cancellation from inside it, a client's own time limit perhaps, only the one that started it.
        """
        while True:
            flights = self._per_loop.current()
            flight = flights.get(key)
            led = flight is None or flight.gave_itself_up
            if flight is None or led:
                flight = self._take_off(flights, key, start)
            try:
                return await self._stay(flights, key, flight), led
            except asyncio.CancelledError:
                if led or not flight.gave_itself_up or _is_cancelled(asyncio.current_task()):
                    raise

    def detach(self, matches: Callable[[K], bool]) -> None:
        """Let newcomers start flights of their own for these keys; who waits already goes on waiting."""
        flights = self._per_loop.current()
        for key in [key for key in flights if matches(key)]:
            del flights[key]

    def count(self) -> int:
        """Return how many flights are under way on the running loop."""
        return len(self._per_loop.current())

    async def aclose(self) -> None:
        """Cancel the flights of the running loop that nobody waits for any more, and wait for their end.

        One that somebody waits for is that caller's: closing a cache cancels no call.
        """
        tasks = [flight.task for flight in self._per_loop.current().values() if flight.callers == 0]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stay(self, flights: dict[K, _Flight[T]], key: K, flight: _Flight[T]) -> T:
        flight.callers += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.callers -= 1
            if flight.callers == 0 and not flight.task.done():
                await self._abandon(flights, key, flight)

    def _take_off(
        self, flights: dict[K, _Flight[T]], key: K, start: Callable[[], Coroutine[Any, Any, T]]
    ) -> _Flight[T]:
        flight = flights[key] = _Flight(asyncio.get_running_loop().create_task(start()))

        def landed(task: asyncio.Task[T]) -> None:
            if flights.get(key) is flight:
                del flights[key]
            if not task.cancelled():
                task.exception()  # with no caller left, an error is nobody's

        flight.task.add_done_callback(landed)
        return flight

    async def _abandon(self, flights: dict[K, _Flight[T]], key: K, flight: _Flight[T]) -> None:
        if self._on_abandon == "finish":
            return
        # Out of the map first: nobody may join a flight that is going down.
        if flights.get(key) is flight:
            del flights[key]
        # A loop that shuts down has cancelled it already: a second time would cut its cleaning up.
        if not flight.task.cancelling():
            flight.task.cancel()
        await asyncio.wait((flight.task,), timeout=_LET_GO)


def _is_cancelled(task: asyncio.Task[Any] | None) -> bool:
    return task is not None and task.cancelling() > 0
