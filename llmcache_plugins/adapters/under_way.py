"""The calls that a context was sent to make, for frameworks that call the provider themselves.

Who has one under way waits for nobody: others may be waiting for it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmcache_plugins.cache import Errand

__all__ = ["abandon", "is_under_way", "note"]

_under_way: ContextVar[tuple[Errand, ...]] = ContextVar("llmcache_errands_of_frameworks", default=())


def note(errand: Errand) -> None:
    """Remember an errand that was given to this context."""
    _under_way.set((*(one for one in _under_way.get() if not one.is_over), errand))


def is_under_way() -> bool:
    """Say whether one of this context's errands has not ended."""
    return any(not errand.is_over for errand in _under_way.get())


def abandon(error: BaseException | None) -> None:
    """End this context's errands: its call has failed."""
    for errand in _under_way.get():
        errand.abandon(error)
