"""What belongs to one event loop of one process, and the tasks somebody must answer for.

Connections, flights and background tasks cannot cross event loops or a fork: several `asyncio.run()` in
one process, threads with loops of their own and prefork servers each get their own.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["PerLoop", "Tasks", "running_loop", "tell_of_forks", "wait_at_most"]

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, or for so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Forks(Protocol):
    """Something that a child may not go on with as its parent has left it."""

    def has_forked(self) -> None:
        """Begin anew, in a child."""


_told: WeakSet[Forks] = WeakSet()


def tell_of_forks(one: Forks) -> None:
    """Let something know when it is in a child, for as long as it lives."""
    _told.add(one)


def _have_forked() -> None:
    for one in list(_told):
        # One that was being made as another thread forked shall not keep the others from hearing of it.
        with suppress(Exception):
            one.has_forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_have_forked)


class PerLoop(Generic[T]):
    """One `T` for each running event loop, made at first use."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._here: dict[asyncio.AbstractEventLoop, T] = {}
        # Kept, never used: to drop a parent's sockets in the child would warn of them or close them.
        self._inherited: list[T] = []
        tell_of_forks(self)

    def current(self) -> T:
        """Return that of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._here:
            self._forget_closed_loops()
            self._here[loop] = self._make()
        return self._here[loop]

    def pop(self) -> T | None:
        """Take that of the running loop out, if there is one."""
        return self._here.pop(asyncio.get_running_loop(), None)

    def has_forked(self) -> None:
        """Leave what there is to the parent, in a child that may never ask for its own."""
        if not self._here:
            return
        self._inherited.extend(self._here.values())
        # Not even at the child's exit may a finaliser run: it would take the parent's sockets out of the
        # selector that both share, and the parent would never hear of its answers again.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._inherited))
        self._here = {}

    def _forget_closed_loops(self) -> None:
        # Copied in one step: threads with loops of their own come and go meanwhile.
        for loop in list(self._here):
            if loop.is_closed():
                self._here.pop(loop, None)


class Tasks:
    """Owns tasks: keeps them alive, fetches the errors nobody waits for, ends them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers: set[asyncio.TimerHandle] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def spawn_later(self, seconds: float, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run `work()` in a task of its own after a while, unless all is ended before.

        A timer and not a task that sleeps: a loop that shuts down meanwhile has nothing to complain about.
        """

        def begin() -> None:
            self._timers.discard(timer)
            self.spawn(work())

        timer = asyncio.get_running_loop().call_later(seconds, begin)
        self._timers.add(timer)

    async def finish(self, *, timeout: float) -> None:
        """Wait for what is under way, and what it starts, at most `timeout` seconds; cancel the rest."""
        self._cancel_timers()
        clock = asyncio.get_running_loop().time
        until = clock() + timeout
        while (others := self._others()) and clock() < until:
            await asyncio.wait(others, timeout=until - clock())
        await self.cancel()

    async def cancel(self) -> None:
        """Cancel what is under way and wait for its end."""
        self._cancel_timers()
        others = self._others()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _others(self) -> list[asyncio.Task[Any]]:
        current = asyncio.current_task()
        return [task for task in self._tasks if task is not current]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited may be gone; an error left unread would be logged as a fault
