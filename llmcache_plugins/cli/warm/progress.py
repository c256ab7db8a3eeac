"""How far it is, on stderr: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmcache_plugins.warming import SeedReport

__all__ = ["shown_progress"]

_BETWEEN_LINES = 10.0
"""Seconds."""


@contextmanager
def shown_progress(lines: Callable[[], int | None]) -> Iterator[Callable[[SeedReport], None]]:
    """Give what is to be told of progress; `lines` says how many there are, if that is known."""
    if sys.stderr.isatty():
        with _bar(lines) as tell:
            yield tell
    else:
        yield _Plain(lines)


@contextmanager
def _bar(lines: Callable[[], int | None]) -> Iterator[Callable[[SeedReport], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(_said(None), total=None)

        def tell(report: SeedReport) -> None:
            progress.update(task, completed=report.done, total=lines(), description=_said(report))

        yield tell


class _Plain:
    def __init__(self, lines: Callable[[], int | None]) -> None:
        self._lines = lines
        self._told = monotonic()

    def __call__(self, report: SeedReport) -> None:
        if monotonic() - self._told < _BETWEEN_LINES:
            return
        self._told = monotonic()
        lines = self._lines()
        of = f" of about {lines:,}" if lines else ""
        seconds = (
            report.seconds * (lines - report.done) / report.done
            if lines and 0 < report.done < lines
            else None
        )
        left = f", about {seconds:,.0f} s left" if seconds is not None else ""
        typer.echo(f"{report.done:,}{of} lines done: {_said(report)}{left}", err=True)


def _said(report: SeedReport | None) -> str:
    if report is None:
        return "looking"
    cost = "cost unknown" if report.cost is None else f"${report.cost:,.2f}"
    return f"{report.seeded:,} seeded, {report.skipped:,} skipped, {report.failed:,} failed, {cost}"
