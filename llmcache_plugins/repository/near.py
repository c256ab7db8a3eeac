"""The near cache: what this process has read of late, without asking the server again.

An entry is served for `NEAR_SECONDS` from when the server was asked for it, and not longer: whoever forgets
an answer waits that long and knows that no process serves it any more, without knowing who has a near cache.
So the bound is no option. What this process itself writes or forgets is gone from here at once.
"""

from __future__ import annotations

import os
import time
from threading import Lock
from typing import TYPE_CHECKING, Final

import msgspec

from llmcache_plugins.models import Found

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.keys import CacheKey

__all__ = ["NEAR_SECONDS", "NearCache"]

NEAR_SECONDS: Final = 1.0
_BESIDE = 1024
"""Bytes that an entry takes beside its answer."""


class _Held(msgspec.Struct, frozen=True, gc=False):
    found: Found
    until: float


class NearCache:
    """Entries by key, in two generations: a hit keeps no books, and what has grown old goes all at once.

    Holds at most `most_bytes`. `clock` gives seconds and never runs back, `wall_clock` unix seconds. Usable
    from any thread; a forked child begins with what its parent had, as long as it is good.
    """

    def __init__(
        self,
        *,
        most_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.now = clock
        self._wall_clock = wall_clock
        self._most = most_bytes // 2
        self._pid = os.getpid()
        self._lock = Lock()
        self._young: dict[CacheKey, _Held] = {}
        self._old: dict[CacheKey, _Held] = {}
        self._bytes = 0
        self._turned_at = clock()
        # Reads that were sent before this, and of these keys before that, are not kept.
        self._floor = 0.0
        self._dropped: dict[CacheKey, float] = {}
        self._dropped_before: dict[CacheKey, float] = {}
        self._pruned_at = self._turned_at

    def get(self, key: CacheKey) -> Found | None:
        """Return the entry of a key, if the server was asked for it a moment ago."""
        held = self._young.get(key) or self._old.get(key)
        return held.found if held is not None and self.now() < held.until else None

    def put(self, key: CacheKey, found: Found, *, asked_at: float) -> None:
        """Keep an entry that the server was asked for at `asked_at`, by `now`."""
        entry = found.entry
        # Not past its end, by this host's clock: the server is not there to say so.
        left = entry.fresh_until + entry.stale_for - self._wall_clock()
        weight = len(entry.answer.payload) + len(entry.leaves) + _BESIDE
        if left <= 0 or weight > self._most:
            return
        with self._own_lock():
            if asked_at <= max(self._floor, self._dropped.get(key, 0.0), self._dropped_before.get(key, 0.0)):
                return
            now = self.now()
            if now - self._turned_at >= NEAR_SECONDS or self._bytes + weight > self._most:
                self._old, self._young = self._young, {}
                self._turned_at, self._bytes = now, 0
            self._young[key] = _Held(found, min(asked_at + NEAR_SECONDS, now + left))
            self._bytes += weight

    def drop(self, key: CacheKey) -> None:
        """Forget a key, and whatever was asked for until now."""
        with self._own_lock():
            now = self.now()
            if now - self._pruned_at >= NEAR_SECONDS:
                # A read that is older than that would be kept for no time.
                self._dropped_before, self._dropped = self._dropped, {}
                self._pruned_at = now
            self._dropped[key] = now
            self._young.pop(key, None)
            self._old.pop(key, None)

    def drop_all(self) -> None:
        """Forget everything, and whatever was asked for until now."""
        with self._own_lock():
            self._floor = self.now()
            self._young, self._old, self._bytes = {}, {}, 0

    def _own_lock(self) -> Lock:
        # One that another thread of the parent held at the fork would never be released.
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), Lock()
        return self._lock
