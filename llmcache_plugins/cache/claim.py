"""One flight's claim on the lease of its key, from the first request to its end.

A request for a lease that was sent is owned until it is answered: a caller that stops waiting for it must
not leave a lease behind that nobody knows of, or everybody else waits ten seconds on a healthy server.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from llmcache_plugins.budget import Budget
from llmcache_plugins.errors import ConfigError, RepositoryError, RepositoryUnavailable
from llmcache_plugins.models import Found, Lease, Wait
from llmcache_plugins.repository import ResponseRepository, new_token
from llmcache_plugins.telemetry import LeaseEvent, LeaseStep

if TYPE_CHECKING:
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks

__all__ = ["Claim"]

Reply = Found | Lease | Wait
Mode = Literal["lead", "fence"]

_WITHDRAW_EVERY = 0.5
"""Seconds between two attempts to give up what a server that is away may have granted."""


class Claim:
    """Asks for a lease, keeps it alive, gives it up."""

    def __init__(self, repository: ResponseRepository, key: CacheKey, *, tasks: Tasks) -> None:
        self._repository = repository
        self._key = key
        self._tasks = tasks
        self._asking: asyncio.Task[Reply] | None = None
        self._answered_at = 0.0
        self._renewing: asyncio.Task[bool] | None = None
        self._withdraw_until = asyncio.get_running_loop().time() + repository.config.max_lead

    @cached_property
    def _token(self) -> str:
        # Made when it is first needed: a hit asks for no lease.
        return new_token()

    async def ask(self, budget: Budget, *, mode: Mode = "lead", seen: str = "") -> Reply:
        """Ask and wait within the budget. Raises what the repository raises."""
        self._asking = self._tasks.spawn(self._acquire(mode, seen))
        return await budget.wait_for(self._asking)

    def ask_later(self, *, mode: Mode = "lead") -> None:
        """Ask without waiting, unless a request is already on its way. Asking again is safe."""
        if self._asking is None or self._is_unknown:
            self._asking = self._tasks.spawn(self._acquire(mode, ""))

    async def late_lease(self, *, called_at: float, mode: Mode = "lead") -> Lease | None:
        """Wait for the lease that did not come in time; it is dated back to the provider's call."""
        for _ in range(2):
            self.ask_later(mode=mode)
            if self._asking is not None:
                await asyncio.wait((self._asking,))
        reply = self._reply
        if not isinstance(reply, Lease):
            return None
        return reply.backdated(max(0.0, self._answered_at - called_at))

    async def keep(self, lease: Lease) -> None:
        """Renew the lease until cancelled, lost, or held for `max_lead`."""
        config = self._repository.config
        for _ in range(int(config.max_lead / config.heartbeat)):
            await asyncio.sleep(config.heartbeat)
            self._renewing = self._tasks.spawn(self._renew(lease))
            if not await asyncio.shield(self._renewing):
                return

    async def let_go(self) -> bool:
        """Give the lease up: now if it is held, as soon as it arrives otherwise. Never raises.

        Returns whether the flight is known to have been invalidated.
        """
        is_void = False
        if self._asking is not None and not self._asking.done():
            self._asking.add_done_callback(self._let_go_of)
        elif isinstance(self._reply, Lease):
            # In a task: whoever waits here may be cancelled again. A hung server holds nobody up for long.
            with suppress(RepositoryError):
                is_void = await Budget(self._repository.config.lookup_budget).wait_for(self.withdraw())
            self.settle_renewal()
        elif self._is_unknown:
            self.withdraw()
        return is_void

    def settle_renewal(self) -> None:
        """See to it that a renewal still under way does not take the lease again after its end."""
        if self._renewing is not None and not self._renewing.done():
            self._renewing.add_done_callback(self._let_go_of)

    def withdraw(self) -> asyncio.Task[bool]:
        """Give up, in the background, what this claim holds or may hold, as soon as the server answers.

        A request without an answer may have been carried out: a hung server does so when it wakes up.
        """
        return self._tasks.spawn(self._withdraw())

    def _let_go_of(self, asked: asyncio.Task[Any]) -> None:
        # A request is only cancelled with everything else: nothing can be said to the server any more.
        if not asked.cancelled() and (isinstance(self._reply, Lease) or self._is_unknown):
            self.withdraw()

    @property
    def _reply(self) -> Reply | None:
        asked = self._asking
        if asked is None or not asked.done() or asked.cancelled() or asked.exception() is not None:
            return None
        return asked.result()

    @property
    def _is_unknown(self) -> bool:
        """Whether a request was sent that may have been carried out, and the answer will never come."""
        asked = self._asking
        if asked is None or not asked.done() or asked.cancelled():
            return False
        error = asked.exception()
        # Without a cause it was never sent: the server was already known to be away.
        return isinstance(error, RepositoryUnavailable) and error.__cause__ is not None

    async def _acquire(self, mode: Mode, seen: str) -> Reply:
        reply = await self._repository.acquire(self._key, token=self._token, mode=mode, seen=seen)
        self._answered_at = asyncio.get_running_loop().time()
        return reply

    async def _renew(self, lease: Lease) -> bool:
        with suppress(RepositoryError, ConfigError):
            if not await self._repository.renew(self._key, lease):
                self._repository.telemetry.emit(LeaseEvent(step=LeaseStep.LOST))
                return False
        return True

    async def _withdraw(self) -> bool:
        reply = self._reply
        lease = reply if isinstance(reply, Lease) else None
        try:
            return await self._repository.fail(self._key, token=self._token, lease=lease)
        except RepositoryUnavailable:
            if asyncio.get_running_loop().time() < self._withdraw_until:
                self._tasks.spawn_later(_WITHDRAW_EVERY, self._withdraw)
        except (RepositoryError, ConfigError):
            pass
        return False
