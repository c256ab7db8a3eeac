"""Reports to look at: a page of HTML in one file, and the charts in it as SVG. Pure: data in, text out.

Knows neither what is reported nor where it is written. Everything that comes from outside is escaped, and a
page asks for nothing: no script, no font, no address.
"""

from llmcache_plugins.reports.bars import Bar, Slice, bars, columns, share
from llmcache_plugins.reports.lines import Line, chart
from llmcache_plugins.reports.page import Code, Drawing, Figure, Part, Table, Tiles, Words, page

__all__ = [
    "Bar",
    "Code",
    "Drawing",
    "Figure",
    "Line",
    "Part",
    "Slice",
    "Table",
    "Tiles",
    "Words",
    "bars",
    "chart",
    "columns",
    "page",
    "share",
]
