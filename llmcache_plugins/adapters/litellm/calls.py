"""The calls of LiteLLM under way: who was told of a miss, and by what it is known that nothing will come.

LiteLLM gives each call an id, to the lookup, the write and the report of a failure. Nothing else holds them
together: a write comes in another task, often in another context. For a call that is cancelled, or a stream
that is left, there is no report at all; then LiteLLM's own record of the call goes away, and its task ends.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcache_plugins.adapters.litellm.plans import Plan
    from llmcache_plugins.cache import Errand
    from llmcache_plugins.keys import CacheKey

__all__ = ["Calls", "Pending"]

GRACE = 1.0
"""Seconds between the end of LiteLLM's record of a call and the end of its errand: of a stream that was read
to its end, the record goes just before the answer is written."""
_MOST_DONE = 1024


class Pending:
    """A lookup that was a miss; without an errand it was one that others do not wait for."""

    __slots__ = ("__weakref__", "call_id", "errand", "loop", "plan", "record")

    def __init__(self, call_id: str, plan: Plan, errand: Errand | None) -> None:
        self.call_id = call_id
        self.plan = plan
        self.errand = errand
        self.loop = asyncio.get_running_loop()
        self.record: weakref.ref[Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether others may be waiting for it."""
        return self.errand is not None and not self.errand.is_over


class Calls:
    """Knows the lookups of each call id. Usable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a record may end, in this very thread, while it is held
        self._calls: dict[str, list[Pending]] = {}
        self._done: OrderedDict[tuple[str, CacheKey], None] = OrderedDict()

    def is_open(self, call_id: str) -> bool:
        """Say whether a lookup under this id was told to bring an answer and has not yet."""
        return any(pending.is_open for pending in self._of(call_id))

    def begin(
        self, pending: Pending, *, record: object | None, task: asyncio.Task[Any] | None = None
    ) -> None:
        """Note a miss. `record` is LiteLLM's own of the call, `task` the one that makes it."""
        with self._lock:
            self._calls.setdefault(pending.call_id, []).append(pending)
            self._done.pop((pending.call_id, pending.plan.key), None)
        ended = partial(_later, weakref.ref(self), weakref.ref(pending))
        if record is not None:
            with suppress(TypeError):  # something without weak references
                pending.record = weakref.ref(record, lambda _: ended())
        errand = pending.errand
        if errand is None or errand.ride is None:
            if pending.record is None:
                self._forget(pending)  # nothing would ever tell of its end
            return
        errand.ride.add_done_callback(lambda _: self._forget(pending))
        if task is not None:
            _watch(task, errand)

    def take(
        self, call_id: str, key: CacheKey | None, *, record: object | None, may_guess: bool
    ) -> Pending | None:
        """Return the lookup to which an answer belongs: that of the same key.

        The application may have changed what it had asked, and the key with it; then, if `may_guess`, it is
        the only lookup under this id.
        """
        with self._lock:
            pendings = self._calls.get(call_id, [])
            same = [pending for pending in reversed(pendings) if pending.plan.key == key]
            # Of those that ask the same under one id, some only look and never write.
            found = next((one for one in same if one.is_open), same[0] if same else None)
            if found is None and may_guess and len(pendings) == 1 and _could_be(pendings[0], record):
                found = pendings[0]
            if found is not None:
                for pending in (found, *same):
                    self._remove(pending)
                self._done[call_id, found.plan.key] = None
                if len(self._done) > _MOST_DONE:
                    self._done.popitem(last=False)
        return found

    def last_open(self, call_id: str) -> Pending | None:
        """Take the youngest lookup under this id that others wait for."""
        with self._lock:
            found = next((one for one in reversed(self._calls.get(call_id, [])) if one.is_open), None)
            return (
                self.take(call_id, found.plan.key, record=None, may_guess=False)
                if found is not None
                else None
            )

    def was_brought(self, call_id: str, key: CacheKey) -> bool:
        """Say whether the answer to this lookup has come already: LiteLLM writes some answers twice."""
        with self._lock:
            return (call_id, key) in self._done

    def end(self, call_id: str, error: BaseException | None) -> None:
        """End all lookups of a call that has failed."""
        with self._lock:
            pendings = self._calls.pop(call_id, [])
        for pending in pendings:
            if pending.errand is not None:
                pending.errand.abandon(error)

    def count(self) -> int:
        """Return how many lookups are noted."""
        with self._lock:
            return sum(map(len, self._calls.values()))

    def give_up(self, pending: Pending) -> None:
        """End a lookup whose call is gone."""
        self._forget(pending)
        if pending.errand is not None:
            pending.errand.abandon()

    def _of(self, call_id: str) -> list[Pending]:
        with self._lock:
            return list(self._calls.get(call_id, ()))

    def _forget(self, pending: Pending) -> None:
        with self._lock:
            self._remove(pending)

    def _remove(self, pending: Pending) -> None:
        pendings = self._calls.get(pending.call_id, [])
        if pending in pendings:
            pendings.remove(pending)
        if not pendings:
            self._calls.pop(pending.call_id, None)


def _could_be(pending: Pending, record: object | None) -> bool:
    """Say whether a lookup may be of the call with this record; some writes come without."""
    return record is None or pending.record is None or pending.record() is record


def _later(calls: weakref.ref[Calls], ended: weakref.ref[Pending]) -> None:
    """End a lookup after a grace. Called wherever the garbage is collected."""
    here, pending = calls(), ended()
    if here is None or pending is None:
        return
    with suppress(RuntimeError):  # the loop is closed, and nobody waits there
        pending.loop.call_soon_threadsafe(pending.loop.call_later, GRACE, here.give_up, pending)


def _watch(task: asyncio.Task[Any], errand: Errand) -> None:
    """Let an errand end with the cancellation of a task; one that lives on keeps nothing of it."""

    def ended(task: asyncio.Task[Any]) -> None:
        # Any other end tells nothing: a stream may be read elsewhere.
        if task.cancelled():
            errand.abandon()

    task.add_done_callback(ended)
    if errand.ride is not None:
        errand.ride.add_done_callback(lambda _: task.remove_done_callback(ended))
