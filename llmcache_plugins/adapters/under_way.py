"""The calls that a context was sent to make, for frameworks that call the provider themselves.

Who has one under way waits for nobody: others may be waiting for it.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcache_plugins.cache import Errand

__all__ = ["abandon", "belongs_here", "is_under_way", "note"]


@dataclass(frozen=True, slots=True)
class _Given:
    errand: Errand
    to_thread: bool


_given: ContextVar[tuple[_Given, ...]] = ContextVar("llmcache_errands_of_frameworks", default=())


def note(errand: Errand, *, to_thread: bool = False) -> None:
    """Remember an errand that was given to this context: to a task, or to a thread that blocks."""
    kept = (given for given in _given.get() if not given.errand.is_over)
    _given.set((*kept, _Given(errand, to_thread)))


def belongs_here(errand: Errand) -> bool:
    """Say whether an errand was given to this context."""
    return any(given.errand is errand for given in _given.get())


def is_under_way(*, to_thread: bool | None = None) -> bool:
    """Say whether one of this context's errands has not ended: any, or one given to a task or a thread."""
    all_given = _given.get()
    # Nearly always there is none: the rest would be paid for with each hit.
    return bool(all_given) and any(
        not given.errand.is_over and to_thread in (None, given.to_thread) for given in all_given
    )


def abandon(error: BaseException | None) -> None:
    """End this context's errands: its call has failed."""
    for given in _given.get():
        given.errand.abandon(error)
