"""Whether anybody listens: asked now and then, for asking takes as long as the rest of counting a hit."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Listening"]

_EVERY = 0.1
"""Seconds after which a provider that was set meanwhile is seen."""


class Listening:
    """Remembers what `asks` has said."""

    def __init__(self, asks: Callable[[], bool]) -> None:
        self._asks = asks
        self._said, self._ask_at = False, 0.0

    def __call__(self) -> bool:
        """Say whether anybody listens."""
        if (now := monotonic()) >= self._ask_at:
            self._ask_at = now + _EVERY
            self._said = self._asks()
        return self._said
