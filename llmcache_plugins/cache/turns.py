"""Whose turn it is to ask the provider: look up, and lead, follow or go alone.

    look up --> ready
       |
    acquire --> ready | lead | told an error | missing
       |
      wait, woken by a message or after a while --> acquire again

Whoever waits longer than `wait_timeout` stops following. When the repository does not answer within the
budget, the call goes alone at once.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, overload

from llmcache_plugins.budget import Budget
from llmcache_plugins.cache.shelf import clock
from llmcache_plugins.errors import (
    ConfigError,
    RepositoryError,
    RepositoryUnavailable,
    SharedProviderError,
    WaitTimeout,
)
from llmcache_plugins.models import Found, Lease, Mode, Outcome, SharedFailure, Wait
from llmcache_plugins.telemetry import LeaseEvent, LeaseStep, Missed

if TYPE_CHECKING:
    from llmcache_plugins.cache.claim import Claim
    from llmcache_plugins.cache.job import Job
    from llmcache_plugins.cache.opened import Opened
    from llmcache_plugins.cache.shelf import Shelf
    from llmcache_plugins.repository import Ear, ResponseRepository

__all__ = ["Alone", "Followed", "LiveTail", "Lookout", "Missing", "Ready", "Turn", "Turns"]

_MOST_MISSED = 1
"""Requests in a row that may go unanswered before a follower takes the server for away."""
_NOBODY = "nobody is fetching the answer"
_SOMEBODY = "somebody else is fetching the answer"
_AFTER_ITS_END = 0.005
"""Seconds after the end of a lease at which to look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The answer is there; `waited` for another process."""

    opened: Opened
    waited: bool
    asked_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Call without a lease: the repository did not answer, or waiting is forbidden."""

    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """There is no answer, and this call must not ask for one."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The chunks of a stream under way were followed to their end."""


Turn = Ready | Lease | Alone | Missing


class LiveTail(Protocol):
    """Takes the chunks of another process's stream as they come."""

    def begin(self, wait: Wait, *, asked_at: float) -> bool:
        """Take what there is of a stream under way; False when it cannot be followed (yet)."""

    async def follow(self, ear: Ear) -> None:
        """Take the rest, to its end."""


class Lookout:
    """A tail that never begins: it sees that there are chunks, and the turn still waits for the answer."""

    def __init__(self) -> None:
        self.sighted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when another process has given out chunks."""

    def begin(self, wait: Wait, *, asked_at: float) -> bool:
        """Note whether there are chunks, and return False."""
        if wait.batches and not self.sighted.done():
            self.sighted.set_result(None)
        return False

    async def follow(self, ear: Ear) -> None:
        """Do nothing: nothing has begun."""


class Turns:
    """Gives turns. One claim takes one turn."""

    def __init__(self, repository: ResponseRepository, shelf: Shelf) -> None:
        self._repository = repository
        self._config = repository.config
        self._shelf = shelf

    @overload
    async def take(self, job: Job, claim: Claim, *, may_wait: bool, tail: Lookout | None = None) -> Turn: ...

    @overload
    async def take(self, job: Job, claim: Claim, *, may_wait: bool, tail: LiveTail) -> Turn | Followed: ...

    async def take(
        self, job: Job, claim: Claim, *, may_wait: bool, tail: LiveTail | None = None
    ) -> Turn | Followed:
        """Return whose turn it is. Raises `SharedProviderError` and `WaitTimeout`.

        Without `may_wait` it is a hit, a lease or a plain call: it waits for no other process. With a `tail`
        a stream that another process has under way is followed to its end.
        """
        try:
            # Who replaces what is there does not look, whatever was seen.
            glance = job.take_glance() if job.mode is not Mode.REFRESH else None
            if glance is None:
                budget = Budget(self._config.lookup_budget)
                if (ready := await self._look_up(job, claim, budget)) is not None:
                    return ready
            elif glance.error is not None:
                raise glance.error
            else:
                budget, claim.seen = glance.budget, glance.seen
            asked_at = clock()
            if (similar := await self._shelf.find_similar(job)) is not None:
                return Ready(opened=similar, waited=False, asked_at=asked_at)
            turn = await self._ask(job, claim, budget, waited=False, live=tail is not None)
            if not isinstance(turn, Wait):
                return turn
            if not may_wait:
                return self._without(claim, _SOMEBODY, Outcome.MISS)
            self._emit(LeaseStep.FOLLOWED)
            has_begun = tail is not None and tail.begin(turn, asked_at=asked_at)
            async with self._repository.leases.listen(job.key) as ear:
                if tail is not None and has_begun:
                    await tail.follow(ear)
                    return Followed()
                return await self._follow(job, claim, ear, None if turn.batches else tail)
        except (RepositoryError, ConfigError):
            return self._without(claim, "the repository does not answer", Outcome.UNAVAILABLE)

    async def _look_up(self, job: Job, claim: Claim, budget: Budget) -> Ready | None:
        if job.mode is Mode.REFRESH:
            claim.seen = "*"
            return None
        asked_at = clock()
        opened, seen = await self._shelf.see(job, budget)
        if opened is not None and opened.may_be_served:
            return Ready(opened=opened, waited=False, asked_at=asked_at)
        self._repository.telemetry.emit(Missed(seconds=clock() - asked_at))
        claim.seen = seen
        return None

    async def _follow(self, job: Job, claim: Claim, ear: Ear, tail: LiveTail | None) -> Turn | Followed:
        give_up_at, missed = clock() + self._config.follow_for, 0
        while True:
            asked_at, budget = clock(), Budget(self._config.lookup_budget)
            try:
                turn = await self._ask(job, claim, budget, waited=True, live=tail is not None)
            except RepositoryUnavailable:
                # One late answer is no reason to pay: it is when the second is late too.
                missed += 1
                if missed > _MOST_MISSED:
                    raise
                continue
            missed = 0
            if not isinstance(turn, Wait):
                if isinstance(turn, Lease) and turn.is_held:
                    self._emit(LeaseStep.TAKEN_OVER)
                return turn
            if tail is not None and tail.begin(turn, asked_at=asked_at):
                await tail.follow(ear)
                return Followed()
            if turn.batches:
                # What is left of it has lost its beginning: it is no use to have it sent again.
                tail = None
            left = give_up_at - clock()
            if left > 0:
                await ear.wait(min(self._pause(), turn.seconds + _AFTER_ITS_END, left))
                continue
            self._emit(LeaseStep.TIMED_OUT)
            if self._config.on_wait_timeout == "raise":
                raise WaitTimeout(f"nobody had the answer within {self._config.follow_for:g} s")
            if claim.ask_for == "follow":
                return Missing(reason="nobody had the answer in time")
            claim.ask_for = "fence"

    async def _ask(self, job: Job, claim: Claim, budget: Budget, *, waited: bool, live: bool) -> Turn | Wait:
        while True:
            asked_at = clock()
            reply = await claim.ask(budget, live=live)
            if isinstance(reply, Lease | Wait):
                return reply
            if isinstance(reply, SharedFailure):
                self._emit(LeaseStep.TOLD)
                raise _error_of(reply)
            if not isinstance(reply, Found):
                return Missing(reason=_NOBODY if claim.ask_for == "follow" else _SOMEBODY)
            opened = self._shelf.open(job, reply)
            if opened is not None and opened.may_be_served:
                return Ready(opened=opened, waited=waited, asked_at=asked_at)
            claim.seen = reply.fence

    def _without(self, claim: Claim, reason: str, outcome: Outcome) -> Missing | Alone:
        return Missing(reason=reason) if claim.ask_for in ("follow", "refresh") else Alone(outcome=outcome)

    def _pause(self) -> float:
        # Not all at the same moment.
        return self._config.poll_interval * random.uniform(0.8, 1.2)  # noqa: S311

    def _emit(self, step: LeaseStep) -> None:
        self._repository.telemetry.emit(LeaseEvent(step=step))


def _error_of(failure: SharedFailure) -> SharedProviderError:
    report = failure.report
    wait = None if report.retry_after is None else max(0.0, report.retry_after - failure.age)
    return SharedProviderError(status=report.status, retry_after=wait, error_class=report.error_class)
