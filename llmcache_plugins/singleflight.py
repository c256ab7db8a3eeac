"""Many callers, one flight: at most one task per key, event loop and process.

The callers of one process share a task that belongs to none of them. A caller that is cancelled leaves
alone; when the last one has left, the flight is cancelled too (or finishes, as configured) and newcomers
start another. After a fork the child starts with none.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from llmcache_plugins.loops import PerLoop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Hashable

__all__ = ["Flight", "Flights", "GaveUp"]

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")

_TURNS = 4
"""Of the loop, in which a task has dealt with a timeout of its own that has fired."""
_LET_GO = 0.25
"""Seconds the last caller waits for its cancelled flight to give up its lease."""


class Flight(Generic[T]):
    """One flight. `cargo` is what its starter lets the others share before it has landed."""

    __slots__ = ("callers", "cargo", "key", "task")

    def __init__(self, key: Any, task: asyncio.Task[T]) -> None:
        self.key = key
        self.task = task
        self.cargo: Any = None
        self.callers = 0

    @property
    def gave_itself_up(self) -> bool:
        """Whether it ended as cancelled although nobody has cancelled it."""
        return self.task.cancelled() and not self.task.cancelling()

    async def landing(self, *, led: bool) -> T:
        """Wait for it, and return its result; `led` is the caller that started it.

        What the flight raises, all its callers get; but a cancellation from inside it only the one that
        started it: the others get `GaveUp`.
        """
        try:
            return await asyncio.shield(self.task)
        except asyncio.CancelledError:
            if led or not self.gave_itself_up or _is_cancelled(asyncio.current_task()):
                raise
            raise GaveUp from None


class GaveUp(Exception):
    """The flight ended itself as cancelled, a client's own time limit perhaps: it was only its starter's."""


class _Detached:
    """The key of a flight that nobody can join any more."""

    __slots__ = ()


class Flights(Generic[K, T]):
    """The flights under way."""

    def __init__(self, *, on_abandon: Literal["cancel", "finish"] = "cancel") -> None:
        self._on_abandon = on_abandon
        self._per_loop: PerLoop[dict[Hashable, Flight[T]]] = PerLoop(dict)

    async def join(self, key: K, start: Callable[[], Coroutine[Any, Any, T]]) -> tuple[T, bool]:
        """Wait for the flight of `key`, started by `start` if there is none.

        Returns its result, and whether this call started it. Raises what `Flight.landing` does.
        """
        async with self.aboard(key, start) as (flight, led):
            return await flight.landing(led=led), led

    @asynccontextmanager
    async def aboard(
        self, key: K, start: Callable[[], Coroutine[Any, Any, T]]
    ) -> AsyncIterator[tuple[Flight[T], bool]]:
        """Be one of those for whom the flight of `key` flies, started by `start` if there is none.

        Gives the flight, and whether this call started it. When the last one has left it is abandoned.
        """
        flights = self._per_loop.current()
        flight, led = self._board(flights, key, start)
        try:
            yield flight, led
        finally:
            await self._leave(flights, flight)

    def is_under_way(self, key: K) -> bool:
        """Say whether a flight could be joined."""
        flight = self._per_loop.current().get(key)
        return flight is not None and not flight.task.done()

    def detach(self, matches: Callable[[K], bool]) -> None:
        """Let newcomers start flights of their own for these keys; who waits already goes on waiting."""
        flights = self._per_loop.current()
        for flight in list(flights.values()):
            if not isinstance(flight.key, _Detached) and matches(flight.key):
                del flights[flight.key]
                flight.key = _Detached()
                flights[flight.key] = flight

    def forget(self, key: K) -> None:
        """Like `detach`, for one key."""
        self.detach(lambda flying: flying == key)

    def count(self) -> int:
        """Return how many flights are under way on the running loop."""
        return sum(not flight.task.done() for flight in self._per_loop.current().values())

    async def aclose(self) -> None:
        """Cancel the flights of the running loop that nobody waits for any more, and wait for their end.

        One that somebody waits for is that caller's: closing a cache cancels no call.
        """
        tasks = [flight.task for flight in self._per_loop.current().values() if flight.callers == 0]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _board(
        self, flights: dict[Hashable, Flight[T]], key: K, start: Callable[[], Coroutine[Any, Any, T]]
    ) -> tuple[Flight[T], bool]:
        flight = flights.get(key)
        # One that has landed is only still in the map until the loop gets to take it out.
        led = flight is None or flight.task.done()
        if flight is None or led:
            flight = self._take_off(flights, key, start)
        flight.callers += 1
        return flight, led

    async def _leave(self, flights: dict[Hashable, Flight[T]], flight: Flight[T]) -> None:
        flight.callers -= 1
        if flight.callers == 0 and not flight.task.done():
            await self._abandon(flights, flight)

    def _take_off(
        self, flights: dict[Hashable, Flight[T]], key: K, start: Callable[[], Coroutine[Any, Any, T]]
    ) -> Flight[T]:
        flight = flights[key] = Flight(key, asyncio.get_running_loop().create_task(start()))

        def landed(task: asyncio.Task[T]) -> None:
            _take_out(flights, flight)
            if not task.cancelled():
                task.exception()  # with no caller left, an error is nobody's

        flight.task.add_done_callback(landed)
        return flight

    async def _abandon(self, flights: dict[Hashable, Flight[T]], flight: Flight[T]) -> None:
        if self._on_abandon == "finish":
            return
        # Out of the map first: nobody may join a flight that is going down.
        _take_out(flights, flight)
        _cancel(flight.task, turns=_TURNS)
        await asyncio.wait((flight.task,), timeout=_LET_GO)


def _take_out(flights: dict[Hashable, Flight[Any]], flight: Flight[Any]) -> None:
    if flights.get(flight.key) is flight:
        del flights[flight.key]


def _cancel(task: asyncio.Task[Any], *, turns: int) -> None:
    """Cancel a task that nobody else has cancelled.

    A loop that shuts down has cancelled it already: a second time would cut its cleaning up. But so has a
    timeout inside the task that has just fired, with which the task deals in a moment, and goes on: so this
    looks again for some turns of the loop.
    """
    if task.done():
        return
    if not task.cancelling():
        task.cancel()
    elif turns:
        asyncio.get_running_loop().call_soon(partial(_cancel, task, turns=turns - 1))


def _is_cancelled(task: asyncio.Task[Any] | None) -> bool:
    return task is not None and task.cancelling() > 0
