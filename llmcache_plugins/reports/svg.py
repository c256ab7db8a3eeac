"""What all charts are made of: texts, boxes, colours. Legible on light and on dark pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COLOURS", "QUIET", "box", "colour", "drawing", "label", "titled"]

COLOURS: Final = ("#2f9e63", "#d9822b", "#8a63d2", "#3b82c4")
"""Of middle lightness: seen on white and on black."""
QUIET: Final = "#8b949e"
"""Of what is only there to be compared with."""
_STYLE = """
  .chart text { font: 13px system-ui, sans-serif; fill: #57606a; }
  .chart .title { font-size: 16px; font-weight: 600; fill: #24292f; }
  .chart .value { fill: #24292f; font-variant-numeric: tabular-nums; }
  .chart .grid { stroke: #8b949e; stroke-opacity: .3; }
  @media (prefers-color-scheme: dark) {
    .chart text { fill: #a8b1bb; } .chart .title, .chart .value { fill: #e6edf3; }
  }
"""


def drawing(parts: Iterable[str], *, width: int, height: int, title: str) -> str:
    """Return a whole SVG; `title` is what is read out instead of it."""
    size = f'viewBox="0 0 {width} {height}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" {size} role="img"'
        f" aria-label={quoteattr(title)}>"
    )
    return "\n".join([head, f"<style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"


def label(x: float, y: float, text: str, *, css: str = "", anchor: str = "middle", fill: str = "") -> str:
    """Return a line of text."""
    attributes = f' class="{css}"' if css else ""
    attributes += f' style="fill: {fill}"' if fill else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{attributes}>{escape(text)}</text>'


def box(x: float, y: float, width: float, height: float, *, fill: str, tip: str = "", round_: int = 2) -> str:
    """Return a filled rectangle; `tip` is shown by a pointer over it."""
    shape = (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round_}" fill="{fill}"'
    )
    return f"{shape}>{titled(tip)}</rect>" if tip else f"{shape}/>"


def titled(text: str) -> str:
    """Return what a pointer shows."""
    return f"<title>{escape(text)}</title>"


def colour(number: int) -> str:
    """Return the colour of a series, by its number."""
    return COLOURS[number % len(COLOURS)]
