"""What belongs to one event loop of one process, and the tasks somebody must answer for.

Connections, flights and background tasks cannot cross event loops or a fork: several `asyncio.run()` in
one process, threads with loops of their own and prefork servers each get their own.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["PerLoop", "Tasks"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One `T` for each running event loop, made at first use."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._pid = os.getpid()
        self._here: dict[asyncio.AbstractEventLoop, T] = {}
        # Kept, never used: to drop a parent's sockets in the child would warn of them or close them.
        self._inherited: list[T] = []

    def current(self) -> T:
        """Return that of the running loop."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            self._leave_to_parent()
        if loop not in self._here:
            self._forget_closed_loops()
            self._here[loop] = self._make()
        return self._here[loop]

    def pop(self) -> T | None:
        """Take that of the running loop out, if there is one."""
        if self._pid != os.getpid():
            self._leave_to_parent()
        return self._here.pop(asyncio.get_running_loop(), None)

    def _leave_to_parent(self) -> None:
        self._pid = os.getpid()
        self._inherited.extend(self._here.values())
        self._here = {}

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._here if loop.is_closed()]:
            del self._here[loop]


class Tasks:
    """Owns tasks: keeps them alive, fetches the errors nobody waits for, ends them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` in a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def finish(self, *, timeout: float) -> None:
        """Wait for what is under way, at most `timeout` seconds, then cancel the rest."""
        if others := self._others():
            await asyncio.wait(others, timeout=timeout)
        await self.cancel()

    async def cancel(self) -> None:
        """Cancel what is under way and wait for its end."""
        others = self._others()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _others(self) -> list[asyncio.Task[Any]]:
        current = asyncio.current_task()
        return [task for task in self._tasks if task is not current]

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited may be gone; an error left unread would be logged as a fault
