"""A line chart as SVG text: both axes logarithmic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcache_plugins.reports.svg import box, colour, drawing, label

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Line", "chart"]

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 88, 56
_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line: a value, 1 or more, for each x."""

    label: str
    values: Sequence[int]


def chart(*, title: str, x_title: str, x_values: Sequence[float], lines: Sequence[Line]) -> str:
    """Return the SVG. Each point has its value written beside it."""
    most = max((value for line in lines for value in line.values), default=1)
    top_tick = next((tick for tick in _TICKS if tick >= max(most, 2)), most)
    plot = _Plot(x_values=x_values, most=top_tick)
    parts = [
        label(LEFT, 26, title, css="title", anchor="start"),
        *_legend(lines),
        *_grid(plot, x_title=x_title),
        *(part for number, line in enumerate(lines) for part in _line(plot, number, line)),
    ]
    return drawing(parts, width=WIDTH, height=HEIGHT, title=title)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    x_values: Sequence[float]
    most: float

    def x(self, value: float) -> float:
        first, last = math.log(min(self.x_values)), math.log(max(self.x_values))
        share = (math.log(value) - first) / (last - first)
        return LEFT + 24 + share * (WIDTH - LEFT - RIGHT - 48)

    def y(self, value: float) -> float:
        share = math.log(value) / math.log(self.most)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _legend(lines: Sequence[Line]) -> list[str]:
    parts, x = [], float(LEFT)
    for number, line in enumerate(lines):
        parts.append(box(x, 44, 14, 4, fill=colour(number)))
        parts.append(label(x + 20, 51, line.label, anchor="start"))
        x += 44 + 6.6 * len(line.label)
    return parts


def _grid(plot: _Plot, *, x_title: str) -> list[str]:
    bottom = HEIGHT - BOTTOM
    parts = [label((WIDTH + LEFT - RIGHT) / 2, HEIGHT - 12, x_title)]
    for tick in (tick for tick in _TICKS if tick <= plot.most):
        y = plot.y(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(label(LEFT - 8, y + 4, str(tick), anchor="end"))
    gone = -math.inf
    for value in plot.x_values:
        x = plot.x(value)
        # Two that lie close together do not both have room for their number.
        shift = 6.0 if x - gone < 36 else 0.0
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        parts.append(label(x + shift, bottom + 20, f"{value:g}"))
        gone = x
    return parts


def _line(plot: _Plot, number: int, line: Line) -> list[str]:
    # Lines that lie on each other stay two lines: each a little beside the next.
    points = [
        (plot.x(x), plot.y(value) - 3 * number) for x, value in zip(plot.x_values, line.values, strict=True)
    ]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    fill = colour(number)
    parts = [f'<path d="M{path}" fill="none" stroke="{fill}" stroke-width="2.5"/>']
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}"/>' for x, y in points]
    for (x, y), value in zip(points, line.values, strict=True):
        if value > 1:
            parts.append(label(x - 8, y - 8, str(value), anchor="end", fill=fill))
    return parts
