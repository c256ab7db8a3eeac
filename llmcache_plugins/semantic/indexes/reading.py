"""A task of one event loop that others wait for too, on whichever loop and in whichever thread they are."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

__all__ = ["Reading"]


class Reading:
    """A task that is under way, made on the loop it runs on."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._loop = task.get_loop()
        self._ended: Future[Exception | None] = Future()
        # It cannot be cancelled from now on: who waits and goes away ends it for nobody.
        self._ended.set_running_or_notify_cancel()
        task.add_done_callback(self._note)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or never will: its loop is gone."""
        return self._ended.done() or self._loop.is_closed()

    async def wait(self, patience: float | None) -> Exception | None:
        """Wait until it has ended, at most so many seconds; return the error it ended with."""
        waiting = asyncio.wrap_future(self._ended)
        try:
            await asyncio.wait((waiting,), timeout=patience)
            return waiting.result() if waiting.done() else None
        finally:
            waiting.cancel()

    def _note(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._ended.set_result(error if isinstance(error, Exception) else None)
