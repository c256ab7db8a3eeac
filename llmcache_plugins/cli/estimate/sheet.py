"""An estimate as a page of HTML. Decides nothing; counts only, no prompt."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llmcache_plugins.cli.estimate.words import (
    MECHANISMS,
    SCENARIOS,
    best,
    caution,
    caveats,
    headline,
    length,
    line,
    reason,
    semantic_words,
    share_of,
    span_words,
)
from llmcache_plugins.cli.showing import money
from llmcache_plugins.reports import (
    Bar,
    Code,
    Drawing,
    Figure,
    Part,
    Slice,
    Table,
    Tiles,
    Words,
    bars,
    columns,
    page,
    share,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmcache_plugins.estimate import Amount, Estimate, LogReader, Timeline

__all__ = ["sheet"]

_HEAD = ("saves", "calls", "of all", "tokens in", "tokens out")


def sheet(estimate: Estimate, reader: LogReader, *, file: str, made: str) -> str:
    """Return the whole file; `made` says when and by what."""
    return page(
        title="What a cache would have saved",
        made=f"{made} from {file}. {span_words(estimate, reader)}",
        parts=list(_parts(estimate, reader)),
    )


def _parts(estimate: Estimate, reader: LogReader) -> Iterator[Part]:
    yield Part("", [_tiles(estimate), Words(headline(estimate)), *_advice(estimate)])
    yield Part(
        "What avoids how many calls",
        [
            Words(
                f"Each on top of the one before, with a TTL of {length(estimate.ttl)}. Exact match gives out"
                " the stored answer of an equal request; normalized keys ignore times, ids and the like;"
                " single-flight lets identical calls that overlap share one."
            ),
            Drawing(_mechanism_chart(estimate)),
            _mechanism_table(estimate),
        ],
    )
    if estimate.timeline is not None:
        yield Part("When", [Drawing(_timeline_chart(estimate.timeline))])
    if estimate.rules:
        yield Part("What normalizers find", [_rule_table(estimate)])
    yield Part("How long answers are kept", list(_scenarios(estimate)))
    if words := list(semantic_words(estimate)):
        yield Part("Equivalent questions (an estimate)", list(map(Words, words)))
    if words := list(caveats(estimate, reader)):
        yield Part("What these figures rest on", list(map(Words, words)))


def _tiles(estimate: Estimate) -> Tiles:
    avoided, total = best(estimate), estimate.total
    cost = Figure(
        value=money(avoided.cost), name="saved", note=f"of {money(total.cost)}, at list prices", is_first=True
    )
    calls = Figure(
        value=f"{avoided.calls:,}",
        name="calls avoided",
        note=f"of {total.calls:,}, {avoided.calls / max(total.calls, 1):.1%}",
    )
    tokens = Figure(
        value=_short(avoided.total_tokens), name="tokens not bought", note=f"of {_short(total.total_tokens)}"
    )
    return Tiles([cost, calls, tokens])


def _short(number: int) -> str:
    for size, unit in ((1_000_000_000, "bn"), (1_000_000, "M"), (10_000, "k")):
        if number >= size:
            return f"{number / min(size, 1_000_000 if unit != 'k' else 1000):,.1f} {unit}"
    return f"{number:,}"


def _advice(estimate: Estimate) -> Iterator[Words | Code]:
    yield Words(reason(estimate))
    if (code := line(estimate)) is not None:
        yield Words(caution(estimate))
        yield Code(code)


def _mechanism_chart(estimate: Estimate) -> str:
    left = estimate.total - estimate.avoided
    slices = [
        Slice(label=MECHANISMS[one.name], value=one.added.calls, text=_calls(one.added))
        for one in estimate.mechanisms
    ]
    rest = Slice(label="still sent to the provider", value=left.calls, text=_calls(left), is_quiet=True)
    return share([*slices, rest], title="Calls, by what avoids them")


def _calls(amount: Amount) -> str:
    cost = "" if amount.cost is None or not amount.calls else f", {money(amount.cost)}"
    return f"{amount.calls:,} calls{cost}"


def _cells(amount: Amount, whole: Amount) -> list[str]:
    return [
        "-" if not amount.calls else money(amount.cost),
        f"{amount.calls:,}",
        f"{share_of(amount, whole):.1%}",
        f"{amount.input_tokens:,}",
        f"{amount.output_tokens:,}",
    ]


def _mechanism_table(estimate: Estimate) -> Table:
    rows = [[MECHANISMS[one.name], *_cells(one.added, estimate.total)] for one in estimate.mechanisms]
    rows.append(["in total", *_cells(estimate.avoided, estimate.total)])
    return Table(head=["", *_HEAD], rows=rows, marked=len(rows) - 1)


def _timeline_chart(timeline: Timeline) -> str:
    begin, end = (
        datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
        for moment in (timeline.begin, timeline.begin + timeline.step * len(timeline.calls))
    )
    return columns(
        timeline.calls,
        timeline.avoided,
        title="Calls over time",
        whole_label=f"calls, in steps of {length(timeline.step)}",
        part_label="of them avoided",
        begin=begin,
        end=end,
        unit="calls avoided",
    )


def _rule_table(estimate: Estimate) -> Table:
    return Table(
        head=["normalizer", "tokens found", "in calls", "calls it wins"],
        rows=[
            [rule.rule, f"{rule.tokens:,}", f"{rule.calls:,}", f"{rule.wins:,}"] for rule in estimate.rules
        ],
    )


def _scenarios(estimate: Estimate) -> Iterator[Drawing | Table | Words]:
    by_money = estimate.scenarios[-1].avoided.nano_usd > 0
    rows = [
        Bar(
            label=f"{one.name}, {length(one.ttl)}",
            value=one.avoided.nano_usd if by_money else one.avoided.calls,
            text=money(one.avoided.cost) if by_money else f"{one.avoided.calls:,} calls",
            is_marked=one.name == estimate.recommended,
        )
        for one in estimate.scenarios
    ]
    yield Words(
        "The four scenarios differ in how old an answer may get. A longer TTL saves more and gives out older"
        " answers; recommended is the shortest that saves nine tenths of what the longest does."
    )
    yield Drawing(bars(rows, title="What each scenario saves"))
    names = [one.name for one in estimate.scenarios]
    yield Table(
        head=["scenario", "for", *_HEAD[:3], "mean age", "oldest"],
        rows=[
            [
                one.name,
                SCENARIOS[one.name],
                *_cells(one.avoided, estimate.total)[:3],
                length(one.ages.mean) if one.ages.hits else "-",
                length(one.ages.oldest) if one.ages.hits else "-",
            ]
            for one in estimate.scenarios
        ],
        marked=names.index(estimate.recommended) if estimate.recommended else None,
        words=(0, 1),
    )
