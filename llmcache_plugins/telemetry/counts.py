"""Counters that an SDK reads when it collects: to count is to add two numbers, not to call the SDK.

A hit counts in six places. Through the SDK that would cost as much as all the rest of the hit.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions, Meter

__all__ = ["Count"]


class Count:
    """One counter, and a sum for each set of values of its `attributes`. Usable from any thread."""

    def __init__(self, meter: Meter, name: str, unit: str, description: str, *attributes: str) -> None:
        self._attributes = attributes
        self._sums: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()
        meter.create_observable_counter(name, [self._observe], unit, description)

    def add(self, amount: float, *values: str) -> None:
        """Add to the sum of these values of the attributes, in their order."""
        with self._lock:
            self._sums[values] = self._sums.get(values, 0) + amount

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            sums = list(self._sums.items())
        return [
            Observation(total, dict(zip(self._attributes, values, strict=True))) for values, total in sums
        ]
