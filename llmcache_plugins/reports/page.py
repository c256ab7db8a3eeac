"""A page of HTML in one file: a title, what it was made from, and parts in their order.

No script, no font, no picture from elsewhere; a policy in the page forbids a browser to ask for any.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Code", "Drawing", "Figure", "Part", "Table", "Tiles", "Words", "page"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that is shown large, with what it is and what it is of."""

    value: str
    name: str
    note: str = ""
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class Tiles:
    """Figures beside each other."""

    figures: Sequence[Figure]


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A line to be copied."""

    text: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart of this package. It goes into the page as it is: nothing else may."""

    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; the first column is words, the others are numbers but for those in `words`."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int | None = None
    """A row that stands out."""
    words: Sequence[int] = (0,)


Block = Tiles | Words | Code | Drawing | Table


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a page, under a heading; an empty one has none."""

    heading: str
    blocks: Sequence[Block]


_STYLE: Final = """
:root { color-scheme: light dark; --ink: #24292f; --dim: #57606a; --line: #d0d7de; --paper: #ffffff;
  --raised: #f6f8fa; --accent: #1f7a4a; --mark: #dafbe1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --dim: #a8b1bb; --line: #30363d;
  --paper: #0d1117; --raised: #161b22; --accent: #4cc38a; --mark: #12261e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 784px; margin: 0 auto; padding: 40px 32px 64px; }
h1 { font-size: 28px; line-height: 1.25; margin: 0 0 8px; }
h2 { font-size: 19px; margin: 44px 0 12px; }
p { margin: 0 0 14px; }
.made { color: var(--dim); font-size: 14px; margin-bottom: 28px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 0 0 20px; }
.tile { background: var(--raised); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile.first b { color: var(--accent); }
.tile span { display: block; }
.tile small { color: var(--dim); }
pre { background: var(--raised); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px;
  white-space: pre-wrap; overflow-wrap: anywhere; font: 14px/1.5 ui-monospace, monospace; margin: 0 0 14px; }
.wide { overflow-x: auto; margin: 0 0 16px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--dim); font-weight: 600; }
.text { text-align: left; white-space: normal; }
tr.marked td { background: var(--mark); font-weight: 600; }
svg { display: block; width: 100%; height: auto; margin: 4px 0 20px; }
"""
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"


def page(*, title: str, made: str, parts: Sequence[Part]) -> str:
    """Return the whole file. `made` says when it was made, and from what."""
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            f'<p class="made">{escape(made)}</p>',
            *(_part(part) for part in parts),
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _part(part: Part) -> str:
    heading = f"<h2>{escape(part.heading)}</h2>\n" if part.heading else ""
    return f"<section>\n{heading}" + "\n".join(map(_block, part.blocks)) + "\n</section>"


def _block(block: Block) -> str:
    if isinstance(block, Words):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Code):
        return f"<pre><code>{escape(block.text)}</code></pre>"
    if isinstance(block, Drawing):
        return block.svg
    if isinstance(block, Tiles):
        return f'<div class="tiles">{"".join(map(_tile, block.figures))}</div>'
    return _table(block)


def _tile(figure: Figure) -> str:
    css = "tile first" if figure.is_first else "tile"
    note = f"<small>{escape(figure.note)}</small>" if figure.note else ""
    return f'<div class="{css}"><b>{escape(figure.value)}</b><span>{escape(figure.name)}</span>{note}</div>'


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str, *, is_marked: bool = False) -> str:
        said = "".join(
            f"<{tag}{_css('text', place in table.words)}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        )
        return f"<tr{_css('marked', is_marked)}>{said}</tr>"

    body = "\n".join(
        row(cells, "td", is_marked=number == table.marked) for number, cells in enumerate(table.rows)
    )
    head = row(table.head, "th")
    return f'<div class="wide"><table><thead>{head}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _css(name: str, applies: bool) -> str:
    return f' class="{name}"' if applies else ""
