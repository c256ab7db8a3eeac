"""What the benchmarks of the frameworks' caches share: hits in turns, and identical calls at one moment.

The hits are of one run on one server, in turns: what else the machine does is shared by all, and a ratio is
that of two stretches of one turn. The identical calls are each in a process and on a server of their own.
"""

from __future__ import annotations

import argparse
import itertools
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.herd import Orders, herd
from benchmarks.processes import ChildFailedError
from benchmarks.provider import provider
from benchmarks.servers import own_server
from benchmarks.tables import percentile, print_table
from benchmarks.timing import Stretch, take_turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from benchmarks.peers import Peer

LEASE = 10.0
TTL = 3600
"""Seconds that answers live while hits are measured: none may end."""
QUESTIONS = 64
TOOL_EVERY = 8
"""One question in so many is put to a model with a tool, and answered with a call of it."""
SYSTEM = (
    "You are the assistant of a shop for mountain bikes. Answer in the language of the question, in at most"
    " ten sentences, and name the article number of each product that you mention. When you are asked for a"
    " price, a delivery time or the state of an order, look it up and do not guess. Never speak of other"
    " shops. If somebody is angry, say that you are sorry once, and offer to connect them with a colleague."
)
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Search the catalogue and the orders of the customer.",
        "parameters": {
            "type": "object",
            "properties": {"topic": {"type": "string"}, "limit": {"type": "integer"}},
            "required": ["topic"],
        },
    },
}


def question(number: int) -> str:
    """Return one of the questions."""
    return f"Which tyres fit article {number:05d}, and when can I have them?"


# --- Hits ---------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Hits:
    """What was measured. `stretches` by how many calls there were at a time, and by contender."""

    stretches: dict[int, dict[str, list[Stretch]]] = field(default_factory=dict)
    answer_bytes: float = 0.0
    misses: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    async def measure(
        self,
        callers: Mapping[str, Callable[[int], Awaitable[Any]]],
        *,
        at_a_time: Iterable[int],
        calls: int,
        turns: int,
        settle: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Let the contenders answer in turns; `settle` waits for what they leave to the background."""
        background = {} if settle is None else {"settle": settle}
        for concurrency in at_a_time:
            # A lone call takes as long as one of many has of the processor: a quarter of them is enough.
            number = calls if concurrency > 1 else max(1, calls // 4)
            self.stretches[concurrency] = await take_turns(
                callers, concurrency=concurrency, calls=number, turns=turns, lead=QUESTIONS, **background
            )


def best_of(stretches: Mapping[str, Sequence[Stretch]], peers: Iterable[Peer]) -> str | None:
    """Return the name of the fastest of these."""
    rates = {
        peer.label: percentile([one.per_second for one in stretches[peer.label]], 50)
        for peer in peers
        if peer.label in stretches
    }
    return max(rates, key=lambda name: rates[name], default=None)


def ratio_of(ours: Sequence[Stretch], others: Sequence[Stretch]) -> float:
    """Return the median of the ratios of each turn."""
    return percentile(_ratios(ours, others), 50)


def _ratios(ours: Sequence[Stretch], others: Sequence[Stretch]) -> list[float]:
    return [one.per_second / other.per_second for one, other in zip(ours, others, strict=True)]


def print_hits(title: str, measured: Hits, concurrency: int, *, rows: Iterable[Peer], baseline: str) -> None:
    """Print a table; ratios are to `baseline`."""
    stretches = measured.stretches[concurrency]
    print_table(
        f"{title}, {measured.answer_bytes:,.0f} bytes of text, {concurrency} at a time; ratios to {baseline}",
        ["", "hits/s", "ratio", "quartiles", "p50 us", "p99 us", "CPU us"],
        [
            _row(peer.label, stretches[peer.label], stretches[baseline])
            if peer.label in stretches
            else [peer.label, measured.failed.get(peer.label, f"not installed: {', '.join(peer.missing)}")]
            for peer in rows
        ],
    )


def print_promise(measured: Hits, concurrency: int, *, ours: Peer, other: str, least: float) -> None:
    """Say whether ours is at least so many times as fast as another."""
    stretches = measured.stretches[concurrency]
    if ours.label in stretches and other in stretches:
        ratio = ratio_of(stretches[ours.label], stretches[other])
        verdict = "holds" if ratio >= least else "DOES NOT HOLD"
        print(f"  promised: at least {least:g} times {other}; {ours.label}: {ratio:.2f}: {verdict}")


def _row(name: str, stretches: Sequence[Stretch], baseline: Sequence[Stretch]) -> list[str]:
    ratios = _ratios(stretches, baseline)
    seconds = list(itertools.chain.from_iterable(one.calls for one in stretches))
    return [
        name,
        f"{percentile([one.per_second for one in stretches], 50):,.0f}",
        f"{percentile(ratios, 50):.2f}",
        f"{percentile(ratios, 25):.2f}-{percentile(ratios, 75):.2f}",
        f"{percentile(seconds, 50) * 1e6:,.0f}",
        f"{percentile(seconds, 99) * 1e6:,.0f}",
        f"{percentile([one.cpu / len(one.calls) for one in stretches], 50) * 1e6:,.0f}",
    ]


# --- Identical calls ----------------------------------------------------------------------------------------


def print_identical(what: str, contenders: Collection[Peer], options: argparse.Namespace) -> None:
    """Let many ask one thing at once, of each contender, and print what came of it."""
    rows = []
    for peer in contenders:
        if peer.missing:
            rows.append([peer.label, f"not installed: {', '.join(peer.missing)}"])
            continue
        try:
            rows.append(_identical(peer, options))
        except ChildFailedError as error:
            rows.append([peer.label, f"failed: {error}"])
    print_table(
        f"{options.callers:,} identical {what} at once, cold, in one process; the provider takes"
        f" {options.seconds:g} s",
        ["", "provider calls", "served", "p50 s", "all after s", "errors"],
        rows,
    )


def _identical(peer: Peer, options: argparse.Namespace) -> list[str]:
    with own_server(with_json=peer.needs_json) as server, provider(seconds=options.seconds) as source:
        orders = Orders(
            peer=peer,
            place=peers.Place(url=server.url, provider_url=source.url, lease=LEASE),
            question=f"Which tyres fit? {uuid.uuid4()}",
            callers=options.callers,
            patience=options.seconds + 60.0,
        )
        with herd(orders, processes=1) as processes:
            processes.go()
            (report,) = processes.reports()
            processes.leave()
        return [
            peer.label,
            f"{len(source.calls()):,}",
            f"{len(report.seconds):,}",
            f"{percentile(report.seconds, 50):.2f}",
            f"{percentile(report.seconds, 100):.2f}",
            ", ".join(f"{count} x {name}" for name, count in report.errors.items()) or "-",
        ]


def options_of(name: str, description: str | None, arguments: Sequence[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=description)
    parser.add_argument("--turns", type=int, default=40, help="stretches of hits of each; 0: no hits")
    parser.add_argument("--hits", type=int, default=256, help="in a stretch")
    parser.add_argument("--callers", type=int, default=200, help="who ask at once; 0: nobody")
    parser.add_argument("--seconds", type=float, default=0.5, help="what the provider takes")
    parser.add_argument("--only", default="", help="the beginning of a contender's name; default: all")
    return parser.parse_args(arguments)
