"""One event loop in a thread of its own, for the synchronous halves of frameworks.

Started when it is first needed, again after a fork, stopped at exit; a program that forgets it ends all the
same.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from llmcache_plugins.loops import tell_of_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["BackgroundLoop"]

T = TypeVar("T")

_STOP_WITHIN = 2.0
"""Seconds that an exit may wait for what is being stored."""


class BackgroundLoop:
    """Runs coroutines for threads that have no loop, or whose loop must not be blocked for long.

    `at_end` is run on the loop before it stops.
    """

    def __init__(self, *, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        tell_of_forks(self)
        self._at_end = at_end
        self._lock = threading.Lock()
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread()

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Begin `work` on the loop."""
        # In one step: what a loop has taken in is run or cancelled, and one that stops takes nothing in.
        with self._lock:
            return asyncio.run_coroutine_threadsafe(work, self._running())

    def stop(self) -> None:
        """Run `at_end` and stop the loop, if it runs. It is started again when it is needed."""
        with self._lock:
            # All in one step: another thread may start it again at once.
            loop, self._loop, thread = self._loop, None, self._thread
            if loop is None or self._pid != os.getpid():
                return
            atexit.unregister(self.stop)
        ending = asyncio.run_coroutine_threadsafe(self._at_end(), loop)
        try:
            ending.result(_STOP_WITHIN)
        except (concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            pass
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(_STOP_WITHIN)

    def has_forked(self) -> None:
        """Begin anew, in a child: whoever held the lock is a thread of the parent's."""
        self._lock = threading.Lock()

    def _running(self) -> asyncio.AbstractEventLoop:
        # After a fork the thread is the parent's.
        if self._loop is None or self._pid != os.getpid():
            self._pid, self._loop = os.getpid(), asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(self._loop,), name="llmcache", daemon=True)
            self._thread.start()
            atexit.register(self.stop)
        return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_end_all())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _end_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=_STOP_WITHIN)
