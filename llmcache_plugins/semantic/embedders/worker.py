"""The one thread of this process in which native code computes, beside every event loop.

Owns that it neither holds up the end of the process nor survives a fork. Knows nothing of what is computed.

A daemon thread that is inside native code when the interpreter goes away takes the process down with it, and
a thread that is no daemon holds the exit up until its queue is empty. So this one is a daemon, and the exit
waits for the job that runs and for no other.
"""

from __future__ import annotations

import asyncio
import atexit
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from llmcache_plugins.loops import tell_of_forks

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Worker", "worker"]

T = TypeVar("T")

_PATIENCE: Final = 5.0
"""Seconds that the exit waits for the job that runs."""


class Worker:
    """A thread that starts with the first job. Usable from any event loop."""

    def __init__(self) -> None:
        self._begin()
        atexit.register(self._stop)
        tell_of_forks(self)

    def _begin(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.is_busy = False
        """Whether a job runs now."""
        self.generation = getattr(self, "generation", 0)
        """How often this process and those before it were forked with a job under way: what that job had in
        its hands is in an unknown state here, and must be made anew."""

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns in the thread, or raise what it raises; `RuntimeError` at the exit.

        A caller that is cancelled is gone at once; its job is not begun, or what it returns is dropped.
        """
        if self._stopped:
            raise RuntimeError("the process is ending")
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="llmcache-embedding", daemon=True)
                self._thread.start()
        result: T = await job.future
        return result

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopped:
            self.is_busy = True
            job.do()
            self.is_busy = False
            # Not until the next job comes: what this one holds may be large.
            del job

    def _stop(self) -> None:
        self._stopped = True
        self._jobs.put(None)
        if self._thread is not None:
            self._thread.join(timeout=_PATIENCE)

    def has_forked(self) -> None:
        """Begin anew, in a child that has no such thread."""
        was_busy = self.is_busy
        self._begin()
        self.generation += was_busy


class _Job:
    def __init__(
        self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]
    ) -> None:
        self._work = work
        self._loop = loop
        self.future = future

    def do(self) -> None:
        if self.future.cancelled() or self._loop.is_closed():
            return
        try:
            said = self._work()
        except BaseException as error:  # noqa: BLE001 - the caller's, on its own loop
            self._tell(self._raised, error)
        else:
            self._tell(self._returned, said)

    def _tell(self, tell: Callable[[Any], None], said: object) -> None:
        # The loop has ended meanwhile: nobody waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(tell, said)

    def _returned(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def _raised(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)


worker = Worker()
"""The process has one: two would only take the core from each other."""
