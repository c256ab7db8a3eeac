"""Times as logs spell them: numbers of several units, and ISO 8601."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from llmcache_plugins.estimate.calls import Unreadable

__all__ = ["moment_of", "span_of"]

_UNITS = (
    (1e11, 1.0, ""),
    (1e14, 1e3, "milliseconds"),
    (1e17, 1e6, "microseconds"),
    (1e20, 1e9, "nanoseconds"),
)
"""Below so much a number is in this unit: as seconds, 1e11 would be the year 5138."""
_LONGEST = 86_400.0


def moment_of(value: object) -> tuple[float, str]:
    """Return a time in unix seconds, and what was guessed of it; empty if nothing was.

    Raises `Unreadable`.
    """
    if isinstance(value, str):
        return _moment_of_text(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable("its time is neither a number nor an ISO 8601 date")
    for limit, per_second, unit in _UNITS:
        if 0 <= value < limit:
            return value / per_second, f"times are {unit}" if unit else ""
    raise Unreadable("its time is no unix time")


def _moment_of_text(text: str) -> tuple[float, str]:
    try:
        return moment_of(float(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise Unreadable("its time is neither a number nor an ISO 8601 date") from None
    guess = "" if found.tzinfo is not None else "times without a zone are UTC"
    # The number is seconds, whatever its size; before 1970 nobody has asked a model.
    seconds = (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    return moment_of(seconds)[0], guess


def span_of(value: object, *, per_second: float = 1.0) -> float:
    """Return a span in seconds. Raises `Unreadable`."""
    number = _number_of(value)
    if number is None or not 0 <= number / per_second <= _LONGEST:
        raise Unreadable("its latency is no number of seconds from 0 to a day")
    return number / per_second


def _number_of(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
