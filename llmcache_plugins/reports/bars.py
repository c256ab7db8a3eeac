"""Bars as SVG text: one that shows how a whole is divided, several to compare, columns along a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcache_plugins.reports.svg import QUIET, box, colour, drawing, label

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bar", "Slice", "bars", "columns", "share"]

_WIDTH = 720
_LETTER = 6.9
"""How wide a letter of 13 px is, roughly."""
_GAP = 2
_NARROW = 46
"""A slice that is narrower has no room for its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A part of a whole. `text` is its value as people read it."""

    label: str
    value: float
    text: str
    is_quiet: bool = False
    """Of no interest by itself: the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar. `text` is its value as people read it, `note` what a pointer over it shows."""

    label: str
    value: float
    text: str
    note: str = ""
    is_marked: bool = False


def share(slices: Sequence[Slice], *, title: str) -> str:
    """Return one bar that is divided, with a legend below it. Values below 0 count as 0."""
    whole = sum(max(one.value, 0.0) for one in slices) or 1.0
    parts, x, fills = [], 0.0, _fills(slices)
    for one, fill in zip(slices, fills, strict=True):
        width = _WIDTH * max(one.value, 0.0) / whole
        if width > 0:
            parts.append(
                box(x, 8, max(width - _GAP, 1.0), 40, fill=fill, tip=f"{one.label}: {one.text}", round_=3)
            )
        if width >= _NARROW:
            parts.append(label(x + width / 2, 33, f"{one.value / whole:.0%}", fill="#ffffff"))
        x += width
    for row, (one, fill) in enumerate(zip(slices, fills, strict=True)):
        y = 76 + 22 * row
        parts.append(box(0, y - 10, 12, 12, fill=fill))
        parts.append(label(20, y, one.label, anchor="start"))
        parts.append(label(_WIDTH, y, one.text, css="value", anchor="end"))
    return drawing(parts, width=_WIDTH, height=72 + 22 * len(slices), title=title)


def _fills(slices: Sequence[Slice]) -> list[str]:
    numbers = iter(range(len(slices)))
    return [QUIET if one.is_quiet else colour(next(numbers)) for one in slices]


def bars(rows: Sequence[Bar], *, title: str) -> str:
    """Return a bar for each row, one below the other, from a common line on; marked ones are coloured."""
    most = max((row.value for row in rows), default=0.0)
    left = 16 + _LETTER * max((len(row.label) for row in rows), default=0)
    right = 16 + _LETTER * max((len(row.text) for row in rows), default=0)
    room = max(_WIDTH - left - right, 80.0)
    parts = []
    for number, row in enumerate(rows):
        y = 6 + 32 * number
        width = room * max(row.value, 0.0) / most if most > 0 else 0.0
        fill = colour(0) if row.is_marked or not any(one.is_marked for one in rows) else QUIET
        parts.append(label(left - 8, y + 17, row.label, anchor="end"))
        parts.append(box(left, y, max(width, 1.0), 24, fill=fill, tip=row.note or f"{row.label}: {row.text}"))
        parts.append(label(left + width + 8, y + 17, row.text, css="value", anchor="start"))
    return drawing(parts, width=_WIDTH, height=12 + 32 * len(rows), title=title)


def columns(
    whole: Sequence[int],
    part: Sequence[int],
    *,
    title: str,
    whole_label: str,
    part_label: str,
    begin: str,
    end: str,
    unit: str,
) -> str:
    """Return a column for each step of time, of which a part is coloured; `unit` names what is counted."""
    top, bottom, left = 36, 190, 8 + _LETTER * len(f"{max(whole, default=0):,}")
    most = max(whole, default=0) or 1
    step = (_WIDTH - left) / max(len(whole), 1)
    parts = [
        box(left, 8, 12, 12, fill=colour(0)),
        label(left + 20, 19, part_label, anchor="start"),
        box(left + 40 + _LETTER * len(part_label), 8, 12, 12, fill=QUIET),
        label(left + 60 + _LETTER * len(part_label), 19, whole_label, anchor="start"),
    ]
    for tick in (most, most / 2, 0):
        y = bottom - (bottom - top) * tick / most
        parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{_WIDTH}"/>')
        if tick == int(tick):
            parts.append(label(left - 6, y + 4, f"{tick:,.0f}", anchor="end"))
    for number, (all_, some) in enumerate(zip(whole, part, strict=True)):
        x, width = left + number * step, max(step - 1.5, 0.8)
        high, low = ((bottom - top) * value / most for value in (all_, some))
        tip = f"{some:,} of {all_:,} {unit}"
        if all_ > some:
            parts.append(box(x, bottom - high, width, high - low, fill=QUIET, tip=tip, round_=0))
        if some > 0:
            parts.append(box(x, bottom - low, width, low, fill=colour(0), tip=tip, round_=0))
    parts.append(label(left, bottom + 20, begin, anchor="start"))
    parts.append(label(_WIDTH, bottom + 20, end, anchor="end"))
    return drawing(parts, width=_WIDTH, height=bottom + 28, title=title)
