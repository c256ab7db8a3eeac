"""Who holds, never waits.

A call made from inside a provider call, in the same context, must not wait for anybody: the answer it waits
for may be waiting for its own. Such a call gets a hit, a lease of its own, or a plain provider call.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["holding", "is_held"]


class _Hold:
    """One provider call; a task that outlives it has inherited its context, but holds nothing."""

    __slots__ = ("is_over",)

    def __init__(self) -> None:
        self.is_over = False


_held: ContextVar[_Hold | None] = ContextVar("llmcache_held", default=None)


@contextmanager
def holding() -> Iterator[None]:
    """Mark the context as one for whose answer others may wait."""
    hold = _Hold()
    token = _held.set(hold)
    try:
        yield
    finally:
        hold.is_over = True
        _held.reset(token)


def is_held() -> bool:
    """Say whether others may be waiting for this context."""
    hold = _held.get()
    return hold is not None and not hold.is_over
