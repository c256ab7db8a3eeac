"""One flight's claim on the lease of its key, from the first request to its end.

A request for a lease that was sent is owned until it is answered: a caller that stops waiting for it must
not leave a lease behind that nobody knows of, or everybody else waits ten seconds on a healthy server.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmcache_plugins.budget import Budget
from llmcache_plugins.errors import ConfigError, RepositoryError, RepositoryUnavailable
from llmcache_plugins.models import UNKNOWN, Lease, Provenance, Wait, WriteStatus
from llmcache_plugins.repository import new_token
from llmcache_plugins.telemetry import LeaseEvent, LeaseStep

if TYPE_CHECKING:
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.loops import Tasks
    from llmcache_plugins.models import Record
    from llmcache_plugins.repository import Acquired, Ask, ResponseRepository

__all__ = ["Claim"]

_WITHDRAW_EVERY = 0.5
"""Seconds between two attempts to give up what a server that is away may have granted."""


class Claim:
    """Asks for a lease, keeps it alive, gives it up. `ask_for` is how it asks: see `Leases.acquire`."""

    def __init__(
        self,
        repository: ResponseRepository,
        key: CacheKey,
        *,
        tasks: Tasks,
        ask_for: Ask = "lead",
        provenance: Provenance = UNKNOWN,
    ) -> None:
        self.ask_for = ask_for
        self.seen = ""
        """The fence of an entry that was read and could not be used; "*" for whatever is there."""
        self.confirmed_at = 0.0
        """When (the loop's clock) the server was last asked and said that the flight is valid."""
        self._repository = repository
        self._leases = repository.leases
        self._key = key
        self._provenance = provenance
        self._tasks = tasks
        self._since = ""
        self._asking: asyncio.Task[Acquired] | None = None
        self._answered_at = 0.0
        self._renewing: asyncio.Task[bool] | None = None
        self.give_up_at = _now() + repository.config.max_lead
        """When (the loop's clock) to stop telling a server that is away what became of the flight."""

    @cached_property
    def _token(self) -> str:
        # Made when it is first needed: a hit asks for no lease.
        return new_token()

    async def ask(self, budget: Budget, *, live: bool = False) -> Acquired:
        """Ask and wait within the budget. Raises what the repository raises."""
        self._asking = self._tasks.spawn(self._acquire(live=live))
        return await budget.wait_for(self._asking)

    def ask_later(self) -> None:
        """Ask without waiting, unless a request is already on its way. Asking again is safe."""
        if self._asking is None or self._went_unanswered:
            self._asking = self._tasks.spawn(self._acquire(live=False))

    async def late_lease(self, *, called_at: float) -> Lease | None:
        """Wait for the lease that did not come in time; it is dated back to the provider's call."""
        lease = None
        for _ in range(2):
            self.ask_later()
            lease = await self.first_lease()
        return lease.backdated(max(0.0, self._answered_at - called_at)) if lease is not None else None

    async def first_lease(self) -> Lease | None:
        """Wait for the answer to the request that is on its way; None if it is no lease."""
        if self._asking is not None:
            await asyncio.wait((self._asking,))
        reply = self._reply
        return reply if isinstance(reply, Lease) else None

    async def keep(self, lease: Lease) -> None:
        """Renew the lease until cancelled, lost, or held for `max_lead`."""
        config = self._repository.config
        for _ in range(int(config.max_lead / config.renew_every)):
            await asyncio.sleep(config.renew_every)
            if not await self.confirm(lease):
                self._repository.telemetry.emit(LeaseEvent(step=LeaseStep.LOST))
                return

    async def confirm(self, lease: Lease) -> bool:
        """Renew the lease; False when it is lost. A server that does not answer has not said so."""
        self._renewing = self._tasks.spawn(self._renew(lease))
        return await asyncio.shield(self._renewing)

    async def let_go(self, record: Record | None = None) -> WriteStatus:
        """Give the lease up: now if it is held, as soon as it arrives otherwise. Never raises.

        `record` is left to those who wait. Returns what is known of whether the flight was invalidated.
        """
        status, renewal = WriteStatus.OK, self.renewal
        if self._asking is not None and not self._asking.done():
            self._asking.add_done_callback(lambda asked: self._let_go_of(asked, record))
        elif isinstance(self._reply, Lease):
            # In a task: whoever waits here may be cancelled again. A hung server holds nobody up for long.
            status = WriteStatus.FORGOTTEN
            with suppress(RepositoryError):
                budget = Budget(self._repository.config.lookup_budget)
                status = await budget.wait_for(self.withdraw(record))
            self.settle(renewal)
        elif self._is_unknown:
            self.withdraw(record)
        return status

    @property
    def renewal(self) -> asyncio.Task[bool] | None:
        """The renewal that is under way."""
        return self._renewing if self._renewing is not None and not self._renewing.done() else None

    def settle(self, renewal: asyncio.Task[bool] | None) -> None:
        """See to it that a renewal that was under way does not take the lease again after its end.

        Whichever of the two was answered first: they may have travelled on two connections.
        """
        if renewal is not None:
            renewal.add_done_callback(lambda renewed: self._let_go_of(renewed, None))

    def withdraw(self, record: Record | None = None) -> asyncio.Task[WriteStatus]:
        """Give up, in the background, what this claim holds or may hold, as soon as the server answers.

        A request without an answer may have been carried out: a hung server does so when it wakes up.
        """
        return self._tasks.spawn(self._withdraw(record))

    def _let_go_of(self, asked: asyncio.Task[Any], record: Record | None) -> None:
        # A request is only cancelled with everything else: nothing can be said to the server any more.
        if not asked.cancelled() and (isinstance(self._reply, Lease) or self._is_unknown):
            self.withdraw(record)

    @property
    def _reply(self) -> Acquired | None:
        asked = self._asking
        if asked is None or not asked.done() or asked.cancelled() or asked.exception() is not None:
            return None
        return asked.result()

    @property
    def _went_unanswered(self) -> bool:
        asked = self._asking
        if asked is None or not asked.done() or asked.cancelled():
            return False
        return isinstance(asked.exception(), RepositoryUnavailable)

    @property
    def _is_unknown(self) -> bool:
        """Whether a request was sent that may have been carried out, and the answer will never come."""
        if self._asking is None or not self._went_unanswered:
            return False
        # Without a cause it was never sent: the server was already known to be away.
        error = self._asking.exception()
        return error is not None and error.__cause__ is not None

    async def _acquire(self, *, live: bool) -> Acquired:
        asked_at = _now()
        reply = await self._leases.acquire(
            self._key,
            token=self._token,
            mode=self.ask_for,
            seen=self.seen,
            since=self._since,
            live=live,
            provenance=self._provenance,
        )
        self._answered_at = _now()
        if isinstance(reply, Wait):
            self._since = self._since or reply.time
        elif isinstance(reply, Lease):
            self.confirmed_at = asked_at
        return reply

    async def _renew(self, lease: Lease) -> bool:
        asked_at = _now()
        with suppress(RepositoryError, ConfigError):
            if not await self._leases.renew(self._key, lease):
                return False
            self.confirmed_at = asked_at
        return True

    async def _withdraw(self, record: Record | None) -> WriteStatus:
        reply = self._reply
        lease = reply if isinstance(reply, Lease) else None
        try:
            return await self._leases.fail(self._key, token=self._token, lease=lease, record=record)
        except RepositoryUnavailable:
            if _now() < self.give_up_at:
                self._tasks.spawn_later(_WITHDRAW_EVERY, lambda: self._withdraw(None))
        except (RepositoryError, ConfigError):
            pass
        return WriteStatus.FORGOTTEN


def _now() -> float:
    return asyncio.get_running_loop().time()
