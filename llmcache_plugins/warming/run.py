"""One run of warming, from its queries to its report.

    queries --batch--> look: fresh? --queue--> workers: purse, pace, gateway --> stored?

One task reads and looks, `concurrency` of them call. Nothing grows with the number of queries: between
reader and workers lie at most as many as there are workers. The memory of a run is the cache itself: an
answer is stored before its line is counted, so a run that was killed is taken up by running it again.

A line whose key is being asked for already is remembered with that one and shares its fate. One that
failed is not paid for again in this run.
"""

from __future__ import annotations

import asyncio
import enum
import math
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmcache_plugins.errors import ConfigError, RepositoryError, SeedingStopped
from llmcache_plugins.models import Outcome
from llmcache_plugins.warming.costs import Guesses
from llmcache_plugins.warming.fates import fate_of, is_of_its_own
from llmcache_plugins.warming.lines import Queries, batches
from llmcache_plugins.warming.report import MOST_POSITIONS, SeedReport, Tally
from llmcache_plugins.warming.retries import Again, Failed, Hopeless, is_told, verdict_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from llmcache_plugins.cache import CallOptions
    from llmcache_plugins.gateway import InferenceGateway
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import Resolution, Usage
    from llmcache_plugins.warming.costs import Purse
    from llmcache_plugins.warming.lines import Line
    from llmcache_plugins.warming.looking import Looked, Lookout
    from llmcache_plugins.warming.pace import Pace
    from llmcache_plugins.warming.retries import Verdict

__all__ = ["Run"]

_BATCH = 128
"""Queries that are looked up in one round trip: the most the repository joins."""
_MOST_REMEMBERED = 100_000
"""Keys that failed in a run."""
_REMEMBERED = 16
"""Digits of each: 64 bits."""
_SERVER_PATIENCE = 10.0
"""Seconds for which a server that does not answer is waited for; nothing is called meanwhile."""
_LOOK_AGAIN = 0.5
_MOST_TOLD = 50
"""How often one line may be told another caller's error: nothing was sent for it."""
_MOST_IN_VAIN = 3
"""Answers in a row that were paid for and not stored for a reason that concerns them all."""
_MOST_DOWN = 10
"""Lines in a row that a provider failed each time they were tried, beside those under way at one moment."""
_MOST_REFUSED = 50
"""The same for reasons of their own."""
_KEPT_WITHIN = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between looks for an answer that is being stored in the background."""
_PAID = (Outcome.MISS, Outcome.BYPASS, Outcome.UNAVAILABLE)
_FOUND = (Outcome.HIT, Outcome.SEMANTIC_HIT, Outcome.STALE)
_ADVICE = "run it again when that is mended: what is stored is not paid for twice"


@dataclass(slots=True)
class _Followers:
    """Lines that have the key of one that is being asked for."""

    lines: int = 0
    positions: list[int] = field(default_factory=list)

    def add(self, position: int) -> None:
        self.lines += 1
        if len(self.positions) < MOST_POSITIONS:
            self.positions.append(position)


class _Ending(enum.Enum):
    """What became of a line that did not fail."""

    SEEDED = enum.auto()
    SKIPPED = enum.auto()
    COALESCED = enum.auto()


class Run:
    """Warms once; `options` are those of each call."""

    def __init__(
        self,
        gateway: InferenceGateway,
        options: CallOptions,
        *,
        lookout: Lookout,
        pace: Pace,
        purse: Purse,
        tally: Tally,
        concurrency: int,
        attempts: int,
        backoff: float,
    ) -> None:
        self._gateway = gateway
        self._options = options
        self._lookout = lookout
        self._pace = pace
        self._purse = purse
        self._tally = tally
        self._concurrency = concurrency
        self._attempts = attempts
        self._backoff = backoff
        self._guesses = Guesses()
        self._under_way: dict[str, _Followers] = {}
        self._failed: dict[str, str] = {}
        # Stored since the last look: what that did not see must not count as a hit of anybody's.
        self._lately: set[str] = set()
        self._in_vain = self._refused = self._down = 0
        self._away_at = -math.inf
        # Held while it is doubted that the server is there: nobody calls before that is known.
        self._doubt = asyncio.Lock()
        self._has_halted = False
        self._error: Exception | None = None

    async def run(self, queries: Queries) -> SeedReport:
        """Ask what is to be asked. Raises what `seed_cache` does."""
        source = batches(queries, size=_BATCH)
        self._queue: asyncio.Queue[Looked | None] = asyncio.Queue(self._concurrency)
        try:
            await self._lookout.check()
            self._reading = asyncio.create_task(self._read(source))
            tasks = [self._reading, *(asyncio.create_task(self._work()) for _ in range(self._concurrency))]
            try:
                await _all_of(tasks)
            finally:
                await _cancelled(tasks)
        except asyncio.CancelledError:
            self._tally.stopped = "interrupted"
            raise
        finally:
            await source.aclose()
            self._tally.tell(at_last=True)
        if isinstance(self._error, SeedingStopped):
            self._error.report = self._tally.report()
        if self._error is not None:
            raise self._error
        return self._tally.report()

    def _halt(self, stopped: str, *, error: Exception | None = None) -> None:
        """Let no further call begin; those under way go on to their end."""
        if self._has_halted:
            return
        self._has_halted, self._error = True, error
        self._tally.stopped = stopped
        self._pace.end()
        if asyncio.current_task() is not self._reading:
            self._reading.cancel()
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    def _give_up(self, reason: str) -> None:
        self._halt(reason, error=SeedingStopped(f"{reason}; {_ADVICE}", report=None))

    # -- reading -----------------------------------------------------------------------------------------

    async def _read(self, source: AsyncGenerator[list[Line], None]) -> None:
        try:
            async for lines in source:
                for looked in await self._look(lines):
                    await self._sort(looked)
                self._tally.tell()
        except Exception as error:  # noqa: BLE001 - whatever the source raises; calls under way end first
            self._halt(f"the queries ended with {type(error).__name__}", error=error)
        if not self._has_halted:
            await self._queue.put(None)

    async def _look(self, lines: Sequence[Line]) -> Sequence[Looked]:
        while not self._has_halted:
            self._lately.clear()
            try:
                return await self._lookout.look(lines)
            except RepositoryError:
                await self._wait_for_server()
        return ()

    async def _sort(self, looked: Looked) -> None:
        if looked.key is None:
            self._tally.fail(looked.error, [looked.line.position])
            return
        if looked.is_fresh:
            self._tally.skipped += 1
            self._guesses.learn(looked.usage)
            return
        digest, position = looked.key.digest, looked.line.position
        if (cause := self._failed.get(digest[:_REMEMBERED])) is not None:
            self._tally.fail(cause, [position])
        elif (followers := self._under_way.get(digest)) is not None:
            followers.add(position)
        elif digest in self._lately:
            self._tally.coalesced += 1
        else:
            self._under_way[digest] = _Followers()
            await self._queue.put(looked)

    # -- calling -----------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while (looked := await self._queue.get()) is not None:
            await self._seed(looked)
            self._tally.tell()
        self._queue.put_nowait(None)

    async def _seed(self, looked: Looked) -> None:
        if looked.key is None:
            return
        try:
            ending = await self._bring(looked, looked.key)
        finally:
            followers = self._under_way.pop(looked.key.digest)
        tally = self._tally
        if isinstance(ending, str):
            if len(self._failed) < _MOST_REMEMBERED:
                self._failed[looked.key.digest[:_REMEMBERED]] = ending
            positions = [looked.line.position, *followers.positions]
            tally.fail(ending, positions, lines=1 + followers.lines)
        elif ending is not None:
            self._lately.add(looked.key.digest)
            tally.skipped += ending is _Ending.SKIPPED
            tally.seeded += ending is _Ending.SEEDED
            tally.coalesced += followers.lines + (ending is _Ending.COALESCED)

    async def _bring(self, looked: Looked, key: CacheKey) -> _Ending | str | None:
        """Return what became of a line, its cause if it failed; None if the run ends without it."""
        sent = told = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                resolution = await self._call(looked, key)
                return None if resolution is None else await self._judge(looked, key, resolution, began)
            except Exception as error:  # noqa: BLE001 - any provider's
                # What another caller was told is no attempt of this one, unless that goes on for ever.
                if is_told(error) and told < _MOST_TOLD:
                    told += 1
                else:
                    sent += 1
                verdict = self._verdict(error, sent)
            if isinstance(verdict, Hopeless):
                self._give_up(verdict.reason)
            elif isinstance(verdict, Failed) and verdict.is_passing:
                self._count_down(verdict.cause)
            if not isinstance(verdict, Again):
                return verdict.cause
            if verdict.for_all:
                self._pace.rest(verdict.seconds)
            else:
                await self._pace.sleep(verdict.seconds)

    def _count_down(self, cause: str) -> None:
        self._down += 1
        if self._down >= _MOST_DOWN + self._concurrency:
            self._give_up(f"{self._down} lines in a row have failed, however often they were tried ({cause})")

    def _verdict(self, error: Exception, attempt: int) -> Verdict:
        return verdict_of(
            error,
            attempt=attempt,
            attempts=self._attempts,
            backoff=self._backoff,
            chance=random.random(),  # noqa: S311
        )

    async def _call(self, looked: Looked, key: CacheKey) -> Resolution | None:
        """Return the answer; None if the run ends before. Raises what the gateway raises."""
        guess = self._guesses.of(looked.line.query)
        try:
            reserved = await self._purse.reserve(self._guesses.at_most(looked.line.query), key.model)
        except ConfigError as error:
            self._halt("a price is not known", error=error)
            return None
        if reserved is None:
            self._halt("budget")
            return None
        has_turn, needed, cost = False, None, 0.0
        try:
            if not (has_turn := await self._pace.turn(guess.total_tokens)):
                return None
            async with self._doubt:
                pass
            if self._has_halted:
                return None
            resolution = await self._gateway.resolve_detailed(looked.line.query, **self._options_of(looked))
        except Exception as error:
            # Nothing was sent for what another caller was told.
            needed = None if is_told(error) else 0
            raise
        else:
            if resolution.outcome in _PAID:
                needed, cost = self._book(resolution, key, guess, reserved)
            return resolution
        finally:
            self._purse.settle(reserved, cost=cost)
            if has_turn:
                self._pace.settle(expected=guess.total_tokens, needed=needed)

    def _options_of(self, looked: Looked) -> CallOptions:
        if looked.max_age is None:
            return self._options
        return {**self._options, "max_age": looked.max_age}

    def _book(
        self, resolution: Resolution, key: CacheKey, guess: Usage, reserved: float
    ) -> tuple[int, float]:
        """Count what was paid; return the tokens and the cost, as guessed where they are not known."""
        usage = resolution.usage
        cost = self._purse.price(usage, key.model, resolution.model)
        self._tally.paid(usage, cost)
        self._guesses.learn(usage)
        return (usage or guess).total_tokens, reserved if cost is None else cost

    # -- judging -----------------------------------------------------------------------------------------

    async def _judge(
        self, looked: Looked, key: CacheKey, resolution: Resolution, began: float
    ) -> _Ending | str:
        """Say what became of an answer whose call began then; end the run where paying is in vain."""
        self._down = 0
        outcome = resolution.outcome
        if outcome in _FOUND:
            return _Ending.SKIPPED
        fate = fate_of(resolution)
        is_stored = await self._is_kept(looked, key) if fate.is_stored is None else fate.is_stored
        is_in_doubt = not is_stored and not is_of_its_own(fate.reason)
        if is_in_doubt or outcome is Outcome.UNAVAILABLE:
            await self._wait_for_server()
        if is_stored:
            self._in_vain = self._refused = 0
            return _Ending.COALESCED if outcome is Outcome.COALESCED else _Ending.SEEDED
        reason = fate.reason or "reason unknown"
        if outcome is not Outcome.COALESCED and began > self._away_at:
            self._count_in_vain(reason)
        return f"not stored: {reason}"

    def _count_in_vain(self, reason: str) -> None:
        self._refused += 1
        self._in_vain += not is_of_its_own(reason)
        # Those under way at one moment may all have met one mishap.
        if self._in_vain >= _MOST_IN_VAIN + self._concurrency or self._refused >= _MOST_REFUSED:
            self._give_up(
                f"{self._refused} answers in a row were paid for and not stored (the last: {reason})"
            )

    async def _is_kept(self, looked: Looked, key: CacheKey) -> bool:
        """Say whether an answer that is stored in the background is there, soon."""
        for seconds in _KEPT_WITHIN:
            await self._pace.sleep(seconds)
            with suppress(RepositoryError):
                if await self._lookout.is_kept(key, instead_of=looked.entry):
                    return True
        return False

    async def _wait_for_server(self) -> None:
        """Let nobody call before the server answers; give up when it does not."""
        clock = asyncio.get_running_loop().time
        async with self._doubt:
            until = clock() + _SERVER_PATIENCE
            while not self._has_halted:
                try:
                    await self._lookout.check()
                    break
                except RepositoryError as error:
                    self._away_at = clock()
                    if self._away_at >= until:
                        self._give_up(f"the repository does not answer ({error})")
                await self._pace.sleep(_LOOK_AGAIN)


async def _all_of(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all tasks, or the first one's error. One that was cancelled is at its end."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        if not task.cancelled():
            task.result()


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
