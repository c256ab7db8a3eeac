"""Percentiles, and tables as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: a value that was measured. NaN for no values."""
    if not values:
        return math.nan
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, numbers to the right."""
    # A row that is cut short says something in its second cell, which may be as long as it likes.
    whole = [head, *(row for row in rows if len(row) == len(head))]
    widths = [max(len(row[i]) for row in whole) for i in range(len(head))]
    widths[0] = max(len(row[0]) for row in [head, *rows])
    print(f"\n{title}", flush=True)
    for row in [head, *rows]:
        if len(row) < len(head):
            print(f"  {row[0]:<{widths[0]}}  {'  '.join(row[1:])}")
        else:
            cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
            print(f"  {row[0]:<{widths[0]}}  {'  '.join(cells)}")


def milliseconds(seconds: float) -> str:
    """Return seconds as a table has them."""
    return "-" if math.isnan(seconds) else f"{seconds * 1000:,.1f}"
