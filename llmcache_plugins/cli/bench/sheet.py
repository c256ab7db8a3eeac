"""A load as a page of HTML. Decides nothing; counts only, no prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcache_plugins.cli.bench.figures import SHARES, findings_of
from llmcache_plugins.cli.bench.view import faster, load_words, money_words
from llmcache_plugins.cli.showing import duration
from llmcache_plugins.models import Outcome
from llmcache_plugins.reports import (
    Bar,
    Drawing,
    Figure,
    Part,
    Slice,
    Table,
    Tiles,
    Words,
    bars,
    page,
    share,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmcache_plugins.cli.bench.figures import Report, Side

__all__ = ["sheet"]

_SHOWN = ("p50", "p90", "p99")
_OUTCOMES = {
    Outcome.HIT: "hits",
    Outcome.COALESCED: "joined a call under way",
    Outcome.STALE: "stale answers",
    Outcome.SEMANTIC_HIT: "answers of equivalent questions",
}


def sheet(report: Report, *, made: str) -> str:
    """Return the whole file; `made` says when and by what."""
    return page(
        title="A load, with the cache and without",
        made=f"{made}. {load_words(report)}",
        parts=list(_parts(report)),
    )


def _parts(report: Report) -> Iterator[Part]:
    yield Part("", [_tiles(report), Words(money_words(report))])
    if findings := findings_of(report):
        yield Part("What is not as it should be", list(map(Words, findings)))
    sides = [side for side in (report.without, report.cached) if side is not None]
    calls = [
        Bar(
            label=side.name,
            value=side.provider_calls,
            text=f"{side.provider_calls:,}",
            is_marked=side is report.cached,
        )
        for side in sides
    ]
    yield Part(
        "Calls of the provider",
        [
            Words(f"{report.distinct:,} different questions were asked; each has to be paid for once."),
            Drawing(bars(calls, title="Calls of the provider")),
            Drawing(share(_slices(report.cached), title="Calls with the cache, by how they were answered")),
        ],
    )
    yield Part(
        "How long a call takes",
        [
            *(Drawing(bars(_latencies(sides, name), title=f"Seconds, {name}")) for name in _SHOWN),
            _table(sides),
        ],
    )


def _tiles(report: Report) -> Tiles:
    saved, cached, without = report.cached.saved, report.cached, report.without
    dollars = report.dollars
    first = (
        Figure(value=f"${dollars:,.4f}", name="saved", note=f"list price of {report.model}", is_first=True)
        if dollars is not None
        else Figure(value=f"{saved.total_tokens:,}", name="tokens saved", is_first=True)
    )
    hits = Figure(value=f"{cached.hit_rate or 0:.1%}", name="hit rate", note=f"of {cached.calls:,} calls")
    instead = "" if without is None else f"instead of {without.provider_calls:,}"
    calls = Figure(value=f"{cached.provider_calls:,}", name="provider calls", note=instead)
    return Tiles([first, hits, calls, *_speed(report)])


def _speed(report: Report) -> Iterator[Figure]:
    if (found := report.speedup) is not None and "p50" in found:
        yield Figure(value=faster(found["p50"]), name="as fast at the median")


def _slices(side: Side) -> list[Slice]:
    outcomes = side.outcomes
    parts = [
        Slice(label=label, value=outcomes[one], text=f"{outcomes[one]:,} calls")
        for one, label in _OUTCOMES.items()
        if outcomes[one]
    ]
    rest = sum(n for one, n in outcomes.items() if not one.is_spared)
    return [*parts, Slice(label="asked the provider", value=rest, text=f"{rest:,} calls", is_quiet=True)]


def _latencies(sides: list[Side], name: str) -> list[Bar]:
    found = [(side, side.percentiles()) for side in sides]
    return [
        Bar(
            label=f"{name} {side.name}",
            value=shares[name],
            text=duration(shares[name], decimals=2),
            is_marked=side is sides[-1],
        )
        for side, shares in found
        if name in shares
    ]


def _table(sides: list[Side]) -> Table:
    rows = []
    for side in sides:
        shares = side.percentiles()
        commands = "-" if side.commands is None else f"{sum(side.commands.values()) / max(side.calls, 1):.1f}"
        rows.append(
            [
                side.name,
                f"{side.calls:,}",
                *(duration(shares[name], decimals=2) if name in shares else "-" for name in SHARES),
                f"{side.per_second:,.0f}",
                commands,
            ]
        )
    return Table(head=["", "calls", *SHARES, "calls/s", "commands/call"], rows=rows)
