"""The calls that a context was sent to make, for frameworks that call the provider themselves.

Who has one under way waits for nobody: others may be waiting for it.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from llmcache_plugins.cache import Errand

__all__ = ["abandon", "belongs_here", "is_under_way", "note"]


@dataclass(frozen=True, slots=True)
class _Given:
    # Weak: copies of a context outlive the errand; its flight keeps one that is under way.
    errand: ref[Errand]
    to_thread: bool

    @property
    def is_under_way(self) -> bool:
        errand = self.errand()
        return errand is not None and not errand.is_over


_given: ContextVar[tuple[_Given, ...]] = ContextVar("llmcache_errands_of_frameworks", default=())


def note(errand: Errand, *, to_thread: bool = False) -> None:
    """Remember an errand that was given to this context: to a task, or to a thread that blocks."""
    kept = (given for given in _given.get() if given.is_under_way)
    _given.set((*kept, _Given(ref(errand), to_thread)))


def belongs_here(errand: Errand) -> bool:
    """Say whether an errand was given to this context."""
    return any(given.errand() is errand for given in _given.get())


def is_under_way(*, to_thread: bool | None = None) -> bool:
    """Say whether one of this context's errands has not ended: any, or one given to a task or a thread."""
    all_given = _given.get()
    # Nearly always there is none: the rest would be paid for with each hit.
    return bool(all_given) and any(
        given.is_under_way and to_thread in (None, given.to_thread) for given in all_given
    )


def abandon(error: BaseException | None) -> None:
    """End this context's errands: its call has failed."""
    for given in _given.get():
        if (errand := given.errand()) is not None:
            errand.abandon(error)
