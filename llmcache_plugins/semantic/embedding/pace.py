"""How long a batch of so many texts takes, learned from those before. Knows no clock and no embedder."""

from __future__ import annotations

from typing import Final

__all__ = ["Pace"]

_WEIGHT: Final = 0.2
"""Of the newest batch: a change shows after about five."""


class Pace:
    """Moving averages of the texts of a batch and of its seconds, and the line through them.

    A line and not seconds per text: an endpoint takes about as long for one text as for twenty. Where all
    batches were of one size the line goes through nothing, and twice the texts take twice as long.
    """

    def __init__(self) -> None:
        self._texts = self._seconds = self._texts_squared = self._product = 0.0
        self._is_known = False

    def note(self, texts: int, seconds: float) -> None:
        """Learn that a batch of so many texts took so many seconds."""
        weight = _WEIGHT if self._is_known else 1.0
        self._is_known = True
        self._texts += weight * (texts - self._texts)
        self._seconds += weight * (seconds - self._seconds)
        self._texts_squared += weight * (texts * texts - self._texts_squared)
        self._product += weight * (texts * seconds - self._product)

    def seconds(self, texts: int) -> float:
        """Return how long a batch of so many texts is expected to take; 0 while nothing is known."""
        if not self._is_known:
            return 0.0
        steepest = self._seconds / self._texts
        variance = self._texts_squared - self._texts**2
        slope = steepest
        if variance > 1e-6 * self._texts_squared:
            slope = (self._product - self._texts * self._seconds) / variance
        slope = min(max(slope, 0.0), steepest)
        return self._seconds + slope * (texts - self._texts)
