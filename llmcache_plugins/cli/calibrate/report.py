"""What a calibration says, for people and for programs."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmcache_plugins.cli.lines import BadLine
from llmcache_plugins.semantic.calibration import Calibration, Rate, Row
from llmcache_plugins.semantic.calibration.bounds import upper_bound

__all__ = ["print_report", "to_json"]

_SHOWN = 16
"""Rows of the table and the chart."""
_WANTED = 0.2
"""The share of false hits beyond which a threshold is not shown."""
_NAMED = 10
"""Bad lines that are named."""
_WIDTH = 50
"""Columns of the chart."""


def to_json(made: Calibration, bad: Sequence[BadLine], target_error: float) -> str:
    """Return all of it as JSON: every threshold that was counted, and each line that was passed over."""
    said: dict[str, Any] = {
        "embedder": made.embedder,
        "guards": list(made.guards),
        "pairs": made.pairs,
        "same": made.same,
        "target_error": target_error,
        "threshold": made.threshold_for(target_error),
        "bad_lines": [{"line": one.line, "reason": one.reason} for one in bad],
        "thresholds": [_row_as_json(made, row) for row in made.table],
    }
    return json.dumps(said, indent=2)


def _row_as_json(made: Calibration, row: Row) -> dict[str, Any]:
    figures = made.figures(row)
    names = ("precision", "recall", "hit_rate", "error")
    return {
        "threshold": row.threshold,
        "right": row.right,
        "wrong": row.wrong,
        **{name: _rate_as_json(getattr(figures, name)) for name in names},
        "error_at_most": round(upper_bound(row.wrong, row.served), 6),
    }


def _rate_as_json(rate: Rate) -> dict[str, Any]:
    low, high = rate.bounds
    value = rate.value
    return {"value": None if value is None else round(value, 6), "low": round(low, 6), "high": round(high, 6)}


def print_report(made: Calibration, bad: Sequence[BadLine], target_error: float) -> None:
    """Print a table, a chart and what follows from them."""
    console = Console(highlight=False)
    guards = f"{len(made.guards)} guards" if made.guards else "no guards"
    counted = f"{made.pairs:,} pairs, {made.same:,} with one answer"
    console.print(Text(f"{counted}; {made.embedder}, {guards}."), soft_wrap=True)
    for line in _passed_over(bad):
        console.print(Text(line))
    rows = _shown(made, made.threshold_for(target_error))
    if rows:
        console.print(_table(made, rows, made.threshold_for(target_error)))
        console.print(_chart(made, rows, as_blocks=console.encoding.lower().startswith("utf")))
    for line in _conclusions(made, target_error):
        console.print(Text(line), soft_wrap=True)


def _passed_over(bad: Sequence[BadLine]) -> Iterator[str]:
    if bad:
        yield f"{len(bad):,} lines were passed over:"
    for one in bad[:_NAMED]:
        yield f"  line {one.line}: {one.reason}"
    if len(bad) > _NAMED:
        yield f"  and {len(bad) - _NAMED} more, which --json lists"


def _shown(made: Calibration, chosen: float | None) -> list[Row]:
    """Return rows of the thresholds that somebody may want, highest first, and the chosen one among them."""
    serving = [row for row in made.table if row.served]
    rows = [row for row in serving if row.wrong <= _WANTED * row.served] or serving
    step = max(1, math.ceil(len(rows) / _SHOWN))
    picked = [row for row in rows if row.threshold == chosen]
    return sorted({*rows[::-step], *picked}, key=lambda row: -row.threshold)


def _table(made: Calibration, rows: Sequence[Row], chosen: float | None) -> Table:
    title = "What a threshold serves; rates in %, with 95 % confidence intervals"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for name in ("from", "right", "false", "precision", "recall", "hit rate", "false of hits"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        figures = made.figures(row)
        rates = (figures.precision, figures.recall, figures.hit_rate, figures.error)
        counts = (f"{row.threshold:.4f}", f"{row.right:,}", f"{row.wrong:,}")
        table.add_row(*counts, *map(_rate, rates), style="bold" if row.threshold == chosen else None)
    return table


def _rate(rate: Rate) -> str:
    low, high = rate.bounds
    return "-" if rate.value is None else f"{_percent(rate.value)} {_percent(low)}-{_percent(high)}"


def _percent(share: float) -> str:
    return "100" if share >= 0.9995 else f"{share * 100:.1f}"


def _chart(made: Calibration, rows: Sequence[Row], *, as_blocks: bool) -> Table:
    right_mark, wrong_mark = ("█", "░") if as_blocks else ("#", "x")
    chart = Table.grid(padding=(0, 1))
    scale = _WIDTH / max(row.served for row in rows)
    chart.add_row(
        "", Text(f"pairs served: {right_mark} right, {wrong_mark} false; beside them, the most that may be")
    )
    for row in rows:
        wrong = round(row.wrong * scale) or (1 if row.wrong else 0)
        bar = Text(right_mark * round(row.right * scale), "green") + Text(wrong_mark * wrong, "red")
        chart.add_row(f"{row.threshold:.4f}", bar + Text(f" {upper_bound(row.wrong, row.served):.1%}"))
    return chart


def _conclusions(made: Calibration, target_error: float) -> Iterator[str]:
    threshold = made.threshold_for(target_error)
    if threshold is None:
        least = min((upper_bound(row.wrong, row.served), -row.threshold) for row in made.table)
        yield (
            f"No threshold is sure to keep false hits at or below {target_error:.2%}: the best,"
            f" {-least[1]:.4f}, proves at most {least[0]:.2%}. More pairs prove more: without one false hit,"
            f" {_needed(target_error):,} served pairs would do."
        )
        return
    row = made.at(threshold)
    recall = made.figures(row).recall.value or 0.0
    yield (
        f"similarity_threshold={threshold:g} keeps false hits at or below {target_error:.2%}:"
        f" {row.wrong:,} of {row.served:,} were false, which proves at most"
        f" {upper_bound(row.wrong, row.served):.2%} (95 % confidence). It wins {recall:.1%} of what there"
        " is to win."
    )
    yield "It holds for this embedder and these guards, and for traffic that is like these pairs."


def _needed(target_error: float) -> int:
    """Return how many pairs served without an error prove a share."""
    return math.ceil(math.log(0.05) / math.log1p(-target_error))
