"""The calls that a context was sent to make, for frameworks that call the provider themselves.

Who has one under way waits for nobody: others may be waiting for it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from llmcache_plugins.cache import Errand

__all__ = ["abandon", "belongs_here", "is_under_way", "note"]


# Weak: copies of a context outlive the errand; its flight keeps one that is under way.
_given: ContextVar[tuple[ref[Errand], ...]] = ContextVar("llmcache_errands_of_frameworks", default=())


def note(errand: Errand) -> None:
    """Remember an errand that was given to this context."""
    _given.set((*filter(_has_not_ended, _given.get()), ref(errand)))


def belongs_here(errand: Errand) -> bool:
    """Say whether an errand was given to this context."""
    return any(given() is errand for given in _given.get())


def is_under_way() -> bool:
    """Say whether one of this context's errands has not ended."""
    all_given = _given.get()
    # Nearly always there is none: the rest would be paid for with each hit.
    return bool(all_given) and any(map(_has_not_ended, all_given))


def abandon(error: BaseException | None) -> None:
    """End this context's errands: its call has failed."""
    for given in _given.get():
        if (errand := given()) is not None:
            errand.abandon(error)


def _has_not_ended(given: ref[Errand]) -> bool:
    errand = given()
    return errand is not None and not errand.is_over
