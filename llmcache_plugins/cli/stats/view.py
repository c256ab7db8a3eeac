"""Savings on a terminal: money first. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from llmcache_plugins.cli.showing import count, money, safe
from llmcache_plugins.models import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import RenderableType

    from llmcache_plugins.savings import Savings, SavingsRow

__all__ = ["view"]

_MOST_ROWS = 10
_MOST_DAYS = 14
_BAR = 24
_WORDS = {
    Outcome.SEMANTIC_HIT: "of an equivalent question",
    Outcome.STALE: "stale",
}
_BESIDE = {Outcome.BYPASS: "bypassed", Outcome.UNAVAILABLE: "while the server did not answer"}


def view(savings: Savings, *, title: str) -> RenderableType:
    """Return all of it, to be printed."""
    total = savings.total
    if not total.requests:
        return Text(f"Nothing has been counted yet: {title}.")
    money, *rest = _sentences(total, title)
    parts: list[RenderableType] = [Text(money, style="bold green"), *map(Text, rest)]
    parts += ["", _table("model", savings.by_model(), lambda row: row.model)]
    if len(namespaces := savings.by_namespace()) > 1:
        parts += ["", _table("namespace", namespaces, lambda row: row.namespace)]
    if len(days := savings.by_day()) > 1:
        parts += ["", _days(days[:_MOST_DAYS])]
    return Group(*parts)


def _sentences(total: SavingsRow, title: str) -> Iterator[str]:
    saved = "an unknown sum" if total.cost_saved is None else money(total.cost_saved)
    yield f"Saved {saved}, net, at list prices: {title}."
    hours, tokens = _hours(total.seconds_saved), count(total.tokens_saved, "token", "tokens")
    yield f"{tokens} were not bought a second time, and nobody waited {hours} for them."
    among = ", ".join(f"{n:,} {word}" for one, word in _WORDS.items() if (n := total.outcomes.get(one, 0)))
    beside = "".join(f", {n:,} {word}" for one, word in _BESIDE.items() if (n := total.outcomes.get(one, 0)))
    hits = f"{total.hits:,} hits{f' ({among})' if among else ''}"
    yield (
        f"Hit rate {total.hit_rate:.1%} of {count(total.requests, 'request', 'requests')}: {hits},"
        f" {total.coalesced:,} coalesced, {total.misses:,} misses{beside}."
    )
    if total.tokens_spent:
        yield (
            f"The cache itself has spent {money(total.cost_spent)}, {total.tokens_spent:,} tokens, on"
            " verifiers, embedders and refreshes: that is taken off."
        )
    if total.unpriced:
        calls = "call, whose price is" if total.unpriced == 1 else "calls, whose prices are"
        yield f"Not in it: {total.unpriced:,} {calls} not known; the application can say them: prices=."


def _table(name: str, rows: Sequence[SavingsRow], label: Callable[[SavingsRow], str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(name, overflow="fold")
    for head in ("saved", "tokens saved", "hit rate", "requests", "hits", "coalesced", "misses"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows[:_MOST_ROWS]:
        table.add_row(Text(safe(label(row))), *_cells(row))
    if len(rows) > _MOST_ROWS:
        table.add_row(Text(f"and {len(rows) - _MOST_ROWS} more, which --json lists"))
    return table


def _cells(row: SavingsRow) -> list[str]:
    counts = (row.requests, row.hits, row.coalesced, row.misses)
    share = f"{row.hit_rate:.1%}"
    return [
        "unknown" if row.cost_saved is None else money(row.cost_saved),
        f"{row.tokens_saved:,}",
        share,
        *(f"{n:,}" for n in counts),
    ]


def _days(days: Sequence[SavingsRow]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("day (UTC)", no_wrap=True)
    for head in ("saved", "tokens saved", "hit rate", "requests"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    most = max(row.tokens_saved for row in days) or 1
    for row in days:
        bar = "█" * round(_BAR * row.tokens_saved / most)
        table.add_row(row.day, *_cells(row)[:4], bar)
    return table


def _hours(seconds: float) -> str:
    for length, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds"
