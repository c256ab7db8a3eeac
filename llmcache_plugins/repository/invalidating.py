"""Voiding answers: one script for each bucket, and the certainty that it has run.

It must be known to have happened: each bucket is asked again until it answers or the time is over, whatever
the breaker says.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import InvalidationIncomplete, LLMCacheError, RepositoryUnavailable
from llmcache_plugins.models import Invalidation

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from llmcache_plugins.keys import KeyLayout
    from llmcache_plugins.repository.link import Link, ScriptCall
    from llmcache_plugins.repository.scripts import Argument

__all__ = ["Voiding"]

TIMEOUT = 5.0
"""Seconds."""
MOST_MARKS = 10_000
"""Invalidated tags and models that a bucket remembers, up to twice as many; older answers are then misses."""
_PAUSE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What the buckets that were asked together said; `replicas` have acknowledged it, if that was asked."""

    replies: Sequence[Any]
    replicas: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Voiding:
    """With `replicas` it waits, at most `patience` seconds, for so many of each node."""

    marks_ms: int
    oldest_us: int
    replicas: int = 0
    patience: float = 1.0

    async def run(self, link: Link, layout: KeyLayout, subjects: Mapping[int, Sequence[str]]) -> Invalidation:
        """Void all entries and flights of the subjects of each bucket.

        Raises `InvalidationIncomplete` when a bucket has not acknowledged in time.
        """
        lanes: dict[Hashable, list[int]] = defaultdict(list)
        for number in subjects:
            # What waits for replicas travels on one connection for each node, all else with its neighbours.
            lane = link.topology.lane(layout.bucket(number).root) if self.replicas else number
            lanes[lane].append(number)
        calls = [[self._call(layout, number, subjects[number]) for number in lane] for lane in lanes.values()]
        heard = await asyncio.gather(*(self._insist(link, lane) for lane in calls), return_exceptions=True)
        return _sum_of(_complete(list(lanes.values()), heard))

    def _call(self, layout: KeyLayout, number: int, subjects: Sequence[str]) -> ScriptCall:
        names = layout.bucket(number)
        arguments: dict[str, Argument] = {
            "marks_ms": self.marks_ms,
            "oldest_us": self.oldest_us,
            "most_marks": MOST_MARKS,
            "root": names.root,
        }
        return names, arguments, subjects

    async def _insist(self, link: Link, calls: Sequence[ScriptCall]) -> _Heard:
        clock = asyncio.get_running_loop().time
        deadline = clock() + TIMEOUT + (self.patience if self.replicas else 0.0)
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._ask(link, calls)
            except RepositoryUnavailable:
                if clock() + _PAUSE > deadline:
                    raise
                await asyncio.sleep(_PAUSE)

    async def _ask(self, link: Link, calls: Sequence[ScriptCall]) -> _Heard:
        if not self.replicas:
            return _Heard(replies=[await link.run("invalidate", *call, insist=True) for call in calls])
        replies, acknowledged = await link.run_replicated(
            "invalidate", calls, replicas=self.replicas, patience=self.patience
        )
        return _Heard(replies=replies, replicas=acknowledged)


def _complete(lanes: Sequence[Sequence[int]], heard: Iterable[_Heard | BaseException]) -> list[_Heard]:
    """Return what was heard if it is all; raise what has gone wrong otherwise."""
    done: set[int] = set()
    failed: dict[int, BaseException] = {}
    complete = []
    for lane, answer in zip(lanes, heard, strict=True):
        if isinstance(answer, _Heard):
            complete.append(answer)
            done.update(lane)
        elif isinstance(answer, LLMCacheError | TimeoutError):
            failed.update(dict.fromkeys(lane, answer))
        else:
            raise answer
    if failed:
        raise InvalidationIncomplete(done=done, missing=set(failed)) from next(iter(failed.values()))
    return complete


def _sum_of(heard: Sequence[_Heard]) -> Invalidation:
    replies = [reply for one in heard for reply in one.replies]
    replicas = [one.replicas for one in heard if one.replicas is not None]
    return Invalidation(
        entries=sum(int(unlinked) for _, unlinked, _ in replies),
        forgotten=sum(int(forgotten) for _, _, forgotten in replies),
        replicas=min(replicas, default=None),
    )
