"""A load on a terminal: what is done, and what came of it. Decides nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmcache_plugins.cli.bench.figures import SHARES, findings_of
from llmcache_plugins.cli.showing import console, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmcache_plugins.cli.bench.figures import Report, Side

__all__ = ["faster", "load_words", "money_words", "print_report", "progress"]


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done."""
    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(f"{text} ...")


def print_report(report: Report) -> None:
    """Print the table, and what it means."""
    out = console()
    for line in _sentences(report):
        out.print(line, soft_wrap=True)
    out.print()
    out.print(_table(report))
    for finding in findings_of(report):
        out.print(Text(f"Finding: {finding}", style="bold red"), soft_wrap=True)


def money_words(report: Report) -> str:
    """Say what was saved, in money if the price is known."""
    saved = report.cached.saved.total_tokens
    if report.dollars is None:
        return f"Saved {saved:,} tokens; the price of {report.model} is not known."
    return f"Saved ${report.dollars:,.4f} at the list price of {report.model}, {saved:,} tokens."


def load_words(report: Report) -> str:
    """Say what the load was."""
    load = f"{report.rate:g} calls a second" if report.rate else "as fast as they are answered"
    processes = f"{report.processes} {'process' if report.processes == 1 else 'processes'}"
    return (
        f"Face {report.face}, {processes}, {report.concurrency} at a time, {load};"
        f" provider: {report.provider}; cache: {report.server}."
    )


def _sentences(report: Report) -> Iterator[Text]:
    cached, without = report.cached, report.without
    yield Text(money_words(report), style="" if report.dollars is None else "bold green")
    calls = f"{cached.provider_calls:,} provider calls"
    if without is not None:
        calls += f" instead of {without.provider_calls:,}"
    yield Text(f"{calls}, for {report.distinct:,} different questions; hit rate {cached.hit_rate or 0:.1%}.")
    if (found := report.speedup) is not None:
        among = ", ".join(f"{faster(found[name])} at {name}" for name in ("p50", "p95") if name in found)
        yield Text(f"As fast as without it: {among}.")
    yield Text(load_words(report))


def _table(report: Report) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("calls", "provider calls", "hit rate", *SHARES, "calls/s", "Redis commands/call"):
        table.add_column(name, justify="right", no_wrap=True)
    for side in (report.without, report.cached):
        if side is not None:
            table.add_row(*_row(side))
    return table


def _row(side: Side) -> tuple[str, ...]:
    latency = side.percentiles()
    commands = "-" if side.commands is None else f"{sum(side.commands.values()) / max(side.calls, 1):.1f}"
    return (
        side.name,
        f"{side.calls:,}",
        f"{side.provider_calls:,}",
        "-" if side.hit_rate is None else f"{side.hit_rate:.1%}",
        *(duration(latency[name], decimals=2) if name in latency else "-" for name in SHARES),
        f"{side.per_second:,.0f}",
        commands,
    )


def faster(factor: float) -> str:
    """Return how many times as fast."""
    return f"{factor:,.0f}x" if factor >= 10 else f"{factor:.1f}x"
