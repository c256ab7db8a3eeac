"""The synchronous half of a framework's face: a cache asked from threads.

All of it happens on one background loop; a thread waits for what it asked. In the thread of a running loop
nothing waits for a call of others: its leader may be on that very loop.
"""

from __future__ import annotations

import concurrent.futures
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from llmcache_plugins.adapters.background import BackgroundLoop
from llmcache_plugins.adapters.threads import from_loop
from llmcache_plugins.adapters.under_way import abandon, is_under_way, note
from llmcache_plugins.cache import Errand
from llmcache_plugins.loops import running_loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator

    from llmcache_plugins.cache import ResponseCache
    from llmcache_plugins.models import Resolution

__all__ = ["SyncHalf"]

T = TypeVar("T")


class SyncHalf:
    """Asks `cache` for threads that have no loop, or whose loop must not be blocked for long."""

    def __init__(self, cache: ResponseCache) -> None:
        self._config = cache.config
        self._background = BackgroundLoop(at_end=cache.aclose)

    def acquire(
        self, ask: Callable[[bool], Coroutine[Any, Any, Resolution | Errand | None]]
    ) -> Resolution | Errand | None:
        """Return what `ask(may_wait)` returns, noted as under way if it is an errand.

        None if it takes too long: in the thread of a running loop, longer than the lookup budget.
        """
        looking = self._background.submit(ask(self.may_wait()))
        longest = self._config.lookup_budget if running_loop() is not None else self._config.follow_for
        try:
            found = looking.result(longest + self._config.connect_timeout)
        except concurrent.futures.CancelledError:
            return None  # the loop was stopped
        except concurrent.futures.TimeoutError:
            looking.add_done_callback(_abandon_late)
            return None
        except BaseException:
            # Ctrl-C, or a worker's time limit: this thread will bring nothing any more.
            looking.add_done_callback(_abandon_late)
            abandon(None)
            raise
        if isinstance(found, Errand):
            note(found)
        return found

    def store(self, storing: Coroutine[Any, Any, object], *, at_end: bool = False) -> None:
        """Wait for what stores an answer, at most the commit budget; then it goes on in the background.

        `at_end` of this thread's loop, which has nothing else to do any more.
        """
        is_busy = running_loop() is not None and not at_end
        longest = 0.0 if is_busy else self._config.commit_budget
        with suppress(concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            self._background.submit(storing).result(longest + self._config.lookup_budget)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns, however long it takes."""
        return self._background.submit(work).result()

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        """Yield what an asynchronous generator gives."""
        return from_loop(items, self._background.submit)

    def may_wait(self) -> bool:
        """Say whether this thread may wait for a call of others."""
        return running_loop() is None and not is_under_way()

    def stop(self) -> None:
        """Stop the background loop, after closing the cache there. It is started again when it is needed."""
        self._background.stop()


def _abandon_late(looking: concurrent.futures.Future[Resolution | Errand | None]) -> None:
    if looking.cancelled() or looking.exception() is not None:
        return
    found = looking.result()
    if isinstance(found, Errand):
        found.abandon()
