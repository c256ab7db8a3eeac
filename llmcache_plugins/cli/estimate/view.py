"""An estimate on a terminal: money first. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from llmcache_plugins.cli.estimate.words import (
    MECHANISMS,
    caution,
    caveats,
    findings,
    headline,
    length,
    line,
    reason,
    semantic_words,
    share_of,
)
from llmcache_plugins.cli.showing import money

if TYPE_CHECKING:
    from rich.console import RenderableType

    from llmcache_plugins.estimate import Amount, Estimate, LogReader

__all__ = ["view"]


def view(estimate: Estimate, reader: LogReader) -> RenderableType:
    """Return all of it, to be printed."""
    parts: list[RenderableType] = [Text(headline(estimate), style="bold green")]
    parts += map(Text, findings(estimate, reader))
    parts += ["", _mechanisms(estimate)]
    if estimate.rules:
        parts += ["", _rules(estimate)]
    parts += ["", _scenarios(estimate)]
    if words := list(semantic_words(estimate)):
        parts += ["", *map(Text, words)]
    if (code := line(estimate)) is not None:
        parts += ["", Text(reason(estimate)), Text(caution(estimate)), "", Text(f"    {code}", style="bold")]
    if words := list(caveats(estimate, reader)):
        parts += ["", *map(Text, words)]
    return Group(*parts)


def _table(first: str, *more: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for head in more:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _cells(amount: Amount, whole: Amount) -> list[str]:
    cost = "-" if not amount.calls else money(amount.cost)
    return [cost, f"{amount.calls:,}", f"{share_of(amount, whole):.1%}", f"{amount.total_tokens:,}"]


def _mechanisms(estimate: Estimate) -> Table:
    table = _table(f"TTL {length(estimate.ttl)}", "saves", "calls", "of all", "tokens")
    for one in estimate.mechanisms:
        table.add_row(MECHANISMS[one.name], *_cells(one.added, estimate.total))
    table.add_row(Text("in total", style="bold"), *_cells(estimate.avoided, estimate.total))
    return table


def _rules(estimate: Estimate) -> Table:
    table = _table("normalizer", "tokens found", "in calls", "calls it wins")
    for rule in estimate.rules:
        table.add_row(rule.rule, f"{rule.tokens:,}", f"{rule.calls:,}", f"{rule.wins:,}")
    return table


def _scenarios(estimate: Estimate) -> Table:
    table = _table("scenario", "TTL", "saves", "calls", "of all", "tokens", "mean age", "oldest")
    for one in estimate.scenarios:
        style = "bold" if one.name == estimate.recommended else ""
        ages = [length(age) if one.ages.hits else "-" for age in (one.ages.mean, one.ages.oldest)]
        table.add_row(
            Text(one.name, style=style), length(one.ttl), *_cells(one.avoided, estimate.total), *ages
        )
    return table
