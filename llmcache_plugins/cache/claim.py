"""One flight's claim on the lease of its key, from the first request to its end.

A request for a lease that was sent is owned until it is answered: a caller that stops waiting for it must
not leave a lease behind that nobody knows of, or everybody else waits ten seconds on a healthy server.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from llmcache_plugins.errors import ConfigError, RepositoryError
from llmcache_plugins.models import Found, Lease, Wait
from llmcache_plugins.repository import ResponseRepository, new_token
from llmcache_plugins.telemetry import LeaseEvent, LeaseStep

if TYPE_CHECKING:
    from llmcache_plugins.budget import Budget
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks

__all__ = ["Claim"]

Reply = Found | Lease | Wait


class Claim:
    """Asks for a lease, keeps it alive, gives it up."""

    def __init__(self, repository: ResponseRepository, key: CacheKey, *, tasks: Tasks) -> None:
        self._repository = repository
        self._key = key
        self._tasks = tasks
        self._token = new_token()
        self._asking: asyncio.Task[Reply] | None = None
        self._answered_at = 0.0

    async def ask(self, budget: Budget, *, mode: Literal["lead", "fence"] = "lead", seen: str = "") -> Reply:
        """Ask and wait within the budget. Raises what the repository raises."""
        self._asking = self._tasks.spawn(self._acquire(mode, seen))
        return await budget.wait_for(self._asking)

    def ask_later(self) -> None:
        """Ask without waiting, unless a request is already on its way."""
        if self._asking is None:
            self._asking = self._tasks.spawn(self._acquire("lead", ""))

    def late_lease(self, *, called_at: float) -> Lease | None:
        """Return the lease that arrived while nobody waited for it, dated back to the provider's call."""
        reply = self._reply()
        if not isinstance(reply, Lease):
            return None
        return reply.backdated(max(0.0, self._answered_at - called_at))

    async def keep(self, lease: Lease) -> None:
        """Renew the lease until cancelled, lost, or held for `max_lead`."""
        config = self._repository.config
        for _ in range(int(config.max_lead / config.heartbeat)):
            await asyncio.sleep(config.heartbeat)
            with suppress(RepositoryError, ConfigError):
                if not await self._repository.renew(self._key, lease):
                    self._repository.telemetry.emit(LeaseEvent(step=LeaseStep.LOST))
                    return

    async def let_go(self) -> None:
        """Give the lease up: now if it is held, as soon as it arrives otherwise. Never raises."""
        if self._asking is not None and not self._asking.done():
            self._asking.add_done_callback(self._give_back)
            return
        if isinstance(self._reply(), Lease):
            await self._fail()

    def _give_back(self, _asked: asyncio.Task[Reply]) -> None:
        if isinstance(self._reply(), Lease):
            self._tasks.spawn(self._fail())

    def _reply(self) -> Reply | None:
        asked = self._asking
        if asked is None or not asked.done() or asked.cancelled() or asked.exception() is not None:
            return None
        return asked.result()

    async def _acquire(self, mode: Literal["lead", "fence"], seen: str) -> Reply:
        reply = await self._repository.acquire(self._key, token=self._token, mode=mode, seen=seen)
        self._answered_at = asyncio.get_running_loop().time()
        return reply

    async def _fail(self) -> None:
        with suppress(RepositoryError, ConfigError):
            await self._repository.fail(self._key, token=self._token)
