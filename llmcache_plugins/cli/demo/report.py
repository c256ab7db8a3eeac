"""The demo on a terminal: what it is about to do, how far it is, what it found. Decides nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from llmcache_plugins.cli.demo.figures import findings_of
from llmcache_plugins.cli.showing import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llmcache_plugins.cli.demo.figures import Part, Report, Scene
    from llmcache_plugins.cli.demo.run import Begin

__all__ = ["announce", "print_report", "progress_bar"]


def announce(lines: list[str]) -> None:
    """Say on stderr what will happen."""
    console = Console(stderr=True)
    for line in lines:
        console.print(Text(line))


@contextmanager
def progress_bar() -> Iterator[Begin]:
    """Show how far the demo is, on stderr."""
    columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:

        def begin(title: str, calls: int) -> Callable[[int], None]:
            task = bar.add_task(title, total=calls)
            return lambda done: bar.advance(task, done)

        yield begin


def print_report(report: Report) -> None:
    """Print the tables and what they mean on stdout."""
    console = Console(highlight=False)
    console.print(_table(report))
    for line in _conclusions(report):
        console.print(Text(line))
    for scenes, title, theirs in (
        (report.langchain, "LangChain with ChatOpenAI", "LangChain's InMemoryCache"),
        (report.litellm, "LiteLLM", "LiteLLM's local cache"),
    ):
        if scenes is not None:
            console.print(_scenes_table(scenes, f"{title}: provider calls, {_counted(report)}", theirs))
    console.print(Text(f"Took {report.seconds:.1f} s, on {report.server}."))
    for finding in findings_of(report):
        console.print(Text(f"Finding: {finding}", style="bold red"))


def _table(report: Report) -> Table:
    table = Table(title=f"Provider: {report.provider}", title_justify="left")
    table.add_column("")
    for name in ("calls", "provider calls", _counted(report), "hit rate", "p50", "p99"):
        table.add_column(name, justify="right")
    for part in report.parts:
        table.add_row(*_row(part))
    return table


def _counted(report: Report) -> str:
    return "counted by provider" if report.is_stand_in else "counted on the wire"


def _scenes_table(scenes: Sequence[Scene], title: str, theirs: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("calls", "no cache", theirs, "this cache"):
        table.add_column(name, justify="right")
    for scene in scenes:
        counts = (
            scene.ours.calls,
            *(one.provider_calls for one in (scene.no_cache, scene.theirs, scene.ours)),
        )
        table.add_row(scene.description, *(f"{count:,}" for count in counts))
    return table


def _row(part: Part) -> tuple[str, ...]:
    return (
        part.name,
        f"{len(part.samples):,}",
        f"{part.provider_calls:,}",
        f"{part.counted_by_provider:,}",
        "-" if part.hit_rate is None else f"{part.hit_rate:.1%}",
        duration(part.latency(0.5)),
        duration(part.latency(0.99)),
    )


def _conclusions(report: Report) -> list[str]:
    price = report.price
    dollars, paid = price.of(report.saved), price.of(report.billed)
    share = f" ({dollars / (dollars + paid):.0%})" if dollars + paid > 0 else ""
    bill = f"${dollars:.4f} of ${dollars + paid:.4f}{share}"
    rates = f"${price.input:g} and ${price.output:g} per million"
    questions = f"{len(report.baseline.samples)} questions, {report.distinct} of them different"
    return [
        f"Burst: {_burst(report)}.",
        f"Both passes saved {_saved(report)}:",
        f"  {bill} at example prices of {rates}.",
        f"Asked: {questions}, by {report.concurrency} users at once.",
    ]


def _burst(report: Report) -> str:
    burst = report.burst
    calls = "1 provider call" if burst.provider_calls == 1 else f"{burst.provider_calls} provider calls"
    return (
        f"{len(burst.samples)} identical calls from {report.burst_processes} processes,"
        f" {calls}, all answered in {duration(burst.seconds)}"
    )


def _saved(report: Report) -> str:
    saved = report.saved
    return (
        f"{report.spared_calls} calls, {saved.input_tokens:,} input and {saved.output_tokens:,} output tokens"
    )
