"""How sure a share is that was counted: exact confidence bounds of a binomial proportion.

Source: C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
binomial", Biometrika 26 (1934), 404-413. They cover at least as often as they say, whatever the true share.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np

__all__ = ["interval", "is_at_most", "upper_bound"]

_HALVINGS: Final = 50
"""Enough for the last digit of a share as small as 1e-3."""


@lru_cache(maxsize=4096)
def upper_bound(found: int, of: int, confidence: float = 0.95) -> float:
    """Return the share that the true one does not exceed, as sure as `confidence` says (one-sided).

    The least p at which `found` or fewer of `of` are no likelier than 1 - confidence; 1 for nothing counted.
    """
    if found >= of:
        return 1.0
    low, high = found / of, 1.0
    for _ in range(_HALVINGS):
        p = (low + high) / 2
        low, high = (low, p) if is_at_most(p, found, of, confidence) else (p, high)
    return high


def is_at_most(share: float, found: int, of: int, confidence: float = 0.95) -> bool:
    """Say whether `upper_bound` is at most a share (above 0): it asks for less than the bound itself."""
    if share >= 1:
        return True
    if found >= of or found > share * of:
        return False
    hits = np.arange(found + 1)
    tail = np.exp(_ways(found, of) + hits * np.log(share) + (of - hits) * np.log1p(-share)).sum()
    return bool(tail <= 1 - confidence)


@lru_cache(maxsize=64)
def _ways(found: int, of: int) -> Any:
    """Return the logarithms of the binomial coefficients of `of` over 0 .. found."""
    numbers = np.arange(1, found + 1)
    return np.concatenate([[0.0], np.cumsum(np.log((of + 1 - numbers) / numbers))])


def interval(found: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the bounds between which the true share lies, as sure as `confidence` says (two-sided)."""
    each = (1 + confidence) / 2
    if not of:
        return 0.0, 1.0
    return 1 - upper_bound(of - found, of, each), upper_bound(found, of, each)
