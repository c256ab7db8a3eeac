"""How things look on a terminal: sizes, spans of time, names of others' making, and tables of them.

Owns the spelling. Nothing that is shown through here can move a cursor or colour a screen.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "count", "duration", "money", "safe", "size", "span"]

_WIDTH_OF_A_PIPE = 160
_SPANS = ((86_400, "d", 1), (3_600, "h", 1), (60, "m", 0))
_SIZES = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))


def console() -> Console:
    """Return where tables are printed: as wide as the terminal, and wide where there is none."""
    from rich.console import Console

    is_known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if is_known else _WIDTH_OF_A_PIPE)


def safe(text: str, *, keeps: str = "") -> str:
    """Return a text with all that does not print escaped, but for the characters in `keeps`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keeps else c.encode("unicode_escape").decode() for c in text)


def span(seconds: float | None) -> str:
    """Return a span of time in its largest unit, such as "12m"; a dash for none."""
    if seconds is None:
        return "-"
    for length, unit, decimals in _SPANS:
        if abs(seconds) >= length:
            return f"{seconds / length:.{decimals}f}{unit}"
    return f"{seconds:.0f}s"


def size(number: int) -> str:
    """Return a number of bytes in its largest unit, such as "1.2 kB" (a thousand)."""
    for length, unit in _SIZES:
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return f"{number} B"


def count(number: int, what: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {what if number == 1 else many}"


def money(dollars: float | None) -> str:
    """Return US dollars: to the cent from one dollar on, below it to the hundredth of one."""
    if dollars is None:
        return "unknown"
    sign, amount = ("-" if dollars < 0 else ""), abs(dollars)
    return f"{sign}${amount:,.2f}" if amount >= 1 or amount == 0 else f"{sign}${amount:.4f}"


def duration(seconds: float, *, decimals: int = 1) -> str:
    """Return what a call took; `decimals` are those of milliseconds below ten."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.{0 if seconds >= 0.01 else decimals}f} ms"
