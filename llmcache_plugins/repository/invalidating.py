"""Voiding answers: one script for each bucket, and the certainty that it has run.

It must be known to have happened: each bucket is asked again until it answers or the time is over, whatever
the breaker says.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import InvalidationIncomplete, LLMCacheError, RepositoryUnavailable
from llmcache_plugins.models import Invalidation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmcache_plugins.keys import KeyLayout
    from llmcache_plugins.repository.link import Link, ScriptCall
    from llmcache_plugins.repository.scripts import Argument

__all__ = ["Voiding"]

TIMEOUT = 5.0
"""Seconds."""
MOST_MARKS = 10_000
"""Invalidated tags and models that a bucket remembers, up to twice as many; older answers are then misses."""
KEY_MARKS_US = 3_600_000_000
"""An hour, in microseconds: twice the longest `max_lead` that is expected in any process."""
_PAUSE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """What a bucket said; `replicas` have acknowledged it, if that was asked."""

    reply: Sequence[Any]
    replicas: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Voiding:
    """How subjects are voided. With `replicas` it waits `patience` seconds at most for so many."""

    marks_ms: int
    oldest_us: int
    replicas: int = 0
    patience: float = 1.0

    @property
    def _key_marks_us(self) -> int:
        """How long marks of single keys are kept: others' flights may last longer than this cache's."""
        return max(self.oldest_us, KEY_MARKS_US)

    async def run(self, link: Link, layout: KeyLayout, subjects: Mapping[int, Sequence[str]]) -> Invalidation:
        """Void all entries and flights of the subjects of each bucket.

        Raises `InvalidationIncomplete` when a bucket has not acknowledged in time.
        """
        calls = [self._call(layout, number, what) for number, what in subjects.items()]
        heard = await asyncio.gather(*(self._insist(link, call) for call in calls), return_exceptions=True)
        return _sum_of(_complete(list(subjects), heard))

    def _call(self, layout: KeyLayout, number: int, subjects: Sequence[str]) -> ScriptCall:
        names = layout.bucket(number)
        arguments: dict[str, Argument] = {
            "marks_ms": self.marks_ms,
            "oldest_us": self._key_marks_us,
            "most_marks": MOST_MARKS,
            "root": names.root,
        }
        return names, arguments, subjects

    async def _insist(self, link: Link, call: ScriptCall) -> _Heard:
        clock = asyncio.get_running_loop().time
        deadline = clock() + TIMEOUT + (self.patience if self.replicas else 0.0)
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._ask(link, call)
            except RepositoryUnavailable:
                if clock() + _PAUSE > deadline:
                    raise
                await asyncio.sleep(_PAUSE)

    async def _ask(self, link: Link, call: ScriptCall) -> _Heard:
        if not self.replicas:
            return _Heard(reply=await link.run("invalidate", *call, insist=True))
        reply, acknowledged = await link.run_replicated(
            "invalidate", call, replicas=self.replicas, patience=self.patience
        )
        return _Heard(reply=reply, replicas=acknowledged)


def _complete(numbers: Sequence[int], heard: Iterable[_Heard | BaseException]) -> list[_Heard]:
    """Return what was heard if it is all; raise what has gone wrong otherwise."""
    done: set[int] = set()
    failed: dict[int, BaseException] = {}
    complete = []
    for number, answer in zip(numbers, heard, strict=True):
        if isinstance(answer, _Heard):
            complete.append(answer)
            done.add(number)
        elif isinstance(answer, LLMCacheError | TimeoutError):
            failed[number] = answer
        else:
            raise answer
    if failed:
        raise InvalidationIncomplete(done=done, missing=set(failed)) from next(iter(failed.values()))
    return complete


def _sum_of(heard: Sequence[_Heard]) -> Invalidation:
    replies = [one.reply for one in heard]
    replicas = [one.replicas for one in heard if one.replicas is not None]
    return Invalidation(
        entries=sum(int(unlinked) for _, unlinked, _ in replies),
        forgotten=sum(int(forgotten) for _, _, forgotten in replies),
        replicas=min(replicas, default=None),
    )
