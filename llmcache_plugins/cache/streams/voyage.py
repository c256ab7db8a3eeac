"""One stream under way in this process, as its readers see it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache.shelf import clock
from llmcache_plugins.cache.streams.broadcast import Broadcast
from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.models import AnswerFacts, Outcome, Wait
from llmcache_plugins.repository import new_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.cache.opened import Opened
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import Provenance
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["Voyage"]


class Voyage:
    """What the pump and its readers share."""

    def __init__(
        self,
        repository: ResponseRepository,
        key: CacheKey,
        *,
        provenance: Provenance,
        tasks: Tasks,
        on_void: Callable[[], object],
    ) -> None:
        self.cast = Broadcast()
        self.outcome = Outcome.MISS
        self.opened: Opened | None = None
        """The whole answer where it came at once."""
        self.facts = AnswerFacts()
        """What is known of the answer, when it has ended."""
        self._repository = repository
        self._key = key
        self._provenance = provenance
        self._tasks = tasks
        self._on_void = on_void
        self._is_void = False
        self._fence = ""
        self._confirmed_at = 0.0
        self._checking: asyncio.Task[None] | None = None

    def is_under(self, fence: str, *, confirmed_at: float) -> None:
        """Note by which flight's fence the chunks come, and when (the loop's clock) that was known valid."""
        self._fence, self._confirmed_at = fence, confirmed_at

    def close(self) -> None:
        """Take nobody else aboard: the flight is void, or has lost its lease."""
        self._is_void = True
        self._on_void()

    async def is_valid_for(self, since: float) -> bool:
        """Say whether one that came at `since` (the loop's clock) may be given what there is.

        An invalidation may have been acknowledged elsewhere since the server was last asked: then it is
        asked again, once for all who came meanwhile. If it does not answer, that cannot be known, and they
        are given a call of their own; but a stream begun while it was away is shared while that lasts.
        """
        while not self._is_void and self._confirmed_at < since:
            if self._checking is None or self._checking.done():
                self._checking = self._tasks.spawn(self._check())
            await asyncio.shield(self._checking)
        return not self._is_void

    async def _check(self) -> None:
        asked_at = clock()
        asking = self._repository.leases.acquire(
            self._key, token=new_token(), mode="follow", seen="*", provenance=self._provenance
        )
        try:
            reply = await Budget(self._repository.config.lookup_budget).wait_for(self._tasks.spawn(asking))
        except (RepositoryError, ConfigError):
            is_valid = not self._fence
        else:
            is_valid = isinstance(reply, Wait) and reply.fence == self._fence
        if is_valid:
            self._confirmed_at = asked_at
        else:
            self.close()
