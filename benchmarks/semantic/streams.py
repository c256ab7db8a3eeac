"""The stream: which threshold wins what, which band a verifier needs, and all caches side by side."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.semantic import caches
from benchmarks.semantic.replay import Opener, Served, replay
from benchmarks.semantic.rules import ERRORS, Rule, StandIn, guarded, in_process, plain
from benchmarks.semantic.texts import Neighbours
from benchmarks.tables import print_table
from llmcache_plugins import SemanticCacheLayer
from llmcache_plugins.semantic.calibration.bounds import interval
from llmcache_plugins.semantic.layer import THRESHOLD

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.semantic.texts import Texts

THRESHOLDS = (0.98, 0.97, 0.96, 0.95, 0.94, 0.92, 0.90)
FALSE = 0.01
"""Share of false hits that a careful threshold may have."""
ACCEPT_ABOVE = (THRESHOLD, 0.97, 1.0)
REJECT_BELOW = (0.85, 0.8, 0.75, 0.7, 0.65)
SEEDS = range(10)
VERIFIED_WON, VERIFIED_FALSE = 0.7, 0.025
"""What is to be reached with a verifier."""
GPTCACHE = 0.6
"""Its default asks that 4 - d^2 be at least 0.8 * 4, d the distance of unit vectors; d^2 is 2 - 2 cos."""
_PATIENCE = 10.0
"""Seconds a lookup may take: what a threshold is worth is measured, not how quick this machine is."""
_HEAD = ["", "from", "hits", "false", "misses", "false of hits", "95% interval", "won", "asked per 100"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """The stream, for rules without a server."""

    stream: Mapping[str, str]
    texts: Texts
    neighbours: Neighbours

    @staticmethod
    def of(stream: Mapping[str, str], texts: Texts) -> Offline:
        """Return the stream of these texts."""
        return Offline(stream=stream, texts=texts, neighbours=Neighbours(texts, list(stream)))

    def plain(self, threshold: float) -> Served:
        """Return what a plain threshold serves."""
        return self._run(plain(self.texts, self.neighbours, threshold))

    def guarded(self, threshold: float) -> Served:
        """Return what a threshold serves with the guards on."""
        return self._run(guarded(self.texts, self.neighbours, threshold))

    def verified(
        self, accept: float, reject: float, *, past_vetoes: bool = False, seeds: Sequence[int] = SEEDS
    ) -> Verified:
        """Return what is served with a verifier, once for each seed."""
        runs, calls = [], 0
        for seed in seeds:
            verifier = StandIn(labels=self.stream, seed=seed)
            rule = guarded(
                self.texts, self.neighbours, accept, reject, verifier=verifier, past_vetoes=past_vetoes
            )
            runs.append(self._run(rule))
            calls += verifier.calls
        return Verified(runs=runs, calls=100 * calls / (len(runs) * len(self.stream)))

    def _run(self, rule: Rule) -> Served:
        return asyncio.run(replay(self.stream, partial(in_process, rule)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What several seeds got; `calls` of the verifier for 100 questions."""

    runs: list[Served]
    calls: float

    @property
    def won(self) -> float:
        """The mean of them."""
        return statistics.fmean(run.won for run in self.runs)

    @property
    def wrong(self) -> float:
        """The mean of them."""
        return statistics.fmean(run.wrong for run in self.runs)

    @property
    def cells(self) -> list[str]:
        """Say whether it is good enough, and what it is."""
        is_good = self.won >= VERIFIED_WON and self.wrong <= VERIFIED_FALSE
        worst = max(run.wrong for run in self.runs)
        return [
            f"{'* ' if is_good else ''}{self.won:.3f}",
            f"{self.wrong:.1%}",
            f"{worst:.1%}",
            f"{self.calls:.1f}",
        ]


def print_thresholds(offline: Offline) -> None:
    """Print what plain thresholds serve, and what is left by the guards."""
    rows = []
    for threshold in THRESHOLDS:
        row = [f"at {threshold:.2f}"]
        for served in (offline.plain(threshold), offline.guarded(threshold)):
            row += [str(served.hits), f"{served.wrong:.1%}", f"{served.won:.3f}"]
        rows.append(row)
    print_table(
        f"{served.questions:,} different questions in order, {served.winnable} winnable",
        ["", *("plain: hits", "false", "won"), *("guards: hits", "false", "won")],
        rows,
    )
    every = (offline.guarded(0.9 + step / 1000) for step in range(100, 0, -1))
    most = max((served.won for served in every if served.hits and served.wrong <= FALSE), default=0.0)
    print(f"\n  guards, at most {FALSE:.0%} of the hits false: {most:.3f} of the winnable hits won")


def print_bands(offline: Offline) -> None:
    """Print what a verifier wins, by the band in which it is asked."""
    rows = []
    for accept in ACCEPT_ABOVE:
        for reject in REJECT_BELOW:
            row = [f"{accept:.2f}, {reject:.2f}"]
            for past_vetoes in (False, True):
                row += offline.verified(accept, reject, past_vetoes=past_vetoes).cells
            rows.append(row)
    each = ("false", "worst", "asked")
    print_table(
        f"A verifier with {ERRORS:.0%} errors, mean of {len(SEEDS)} seeds; * at least {VERIFIED_WON:.0%} won"
        f" and at most {VERIFIED_FALSE:.1%} false; asked for 100 questions",
        ["accept_above, reject_below", "vetoes stay: won", *each, "vetoed asked too: won", *each],
        rows,
    )


def print_caches(offline: Offline, make_embedder: Callable[[], Any]) -> None:
    """Print the rules, the layer on a server, and the other caches side by side."""
    verifier = StandIn(labels=offline.stream, seed=SEEDS[0])
    alone = SemanticCacheLayer(make_embedder(), budget=_PATIENCE)
    asking = SemanticCacheLayer(make_embedder(), budget=_PATIENCE, verifier=verifier)
    accept, reject = asking.accept_above, asking.reject_below
    verified = offline.verified(accept, reject, seeds=[verifier.seed])
    rows = [
        _row("plain threshold", accept, offline.plain(accept)),
        _row("+ guards", accept, offline.guarded(accept)),
        _row(f"+ verifier, asked down to {reject:.2f}", accept, verified.runs[0], verified.calls),
        _row("the layer on Valkey", accept, _of_layer(alone, offline)),
    ]
    served = _of_layer(asking, offline)
    calls = 100 * verifier.calls / served.questions
    rows.append(_row("the layer on Valkey, with the verifier", accept, served, calls))
    rows += [_of_peer(peer, offline) for peer in caches.PEERS]
    rows.append(_row("GPTCache, its default 0.8 (formula)", GPTCACHE, offline.plain(GPTCACHE)))
    print_table("The same questions in order, on vectors of the same embedder", _HEAD, rows)


def _of_layer(layer: SemanticCacheLayer, offline: Offline) -> Served:
    counts: dict[str, int] = {}
    served = asyncio.run(replay(offline.stream, partial(caches.ours, layer, counts)))
    if skipped := {name: count for name, count in counts.items() if name not in ("hit", "none")}:
        print(f"  NOT ALL WERE COMPARED: {skipped}")
    return served


def _of_peer(peer: caches.Peer, offline: Offline) -> list[str]:
    if peer.missing:
        return [peer.label, f"not installed: {', '.join(peer.missing)}"]
    opener: Opener = partial(peer.open, offline.texts, peer.threshold)
    try:
        served = asyncio.run(replay(offline.stream, opener))
    except Exception as error:  # noqa: BLE001 - that a contender breaks is a result
        return [peer.label, f"failed: {type(error).__name__}: {error}"[:200]]
    return _row(peer.label, peer.threshold, served)


def _row(label: str, threshold: float, served: Served, calls: float = 0.0) -> list[str]:
    low, high = interval(served.false, served.hits)
    return [
        label,
        f"{threshold:.2f}",
        str(served.hits),
        str(served.false),
        str(served.questions - served.hits),
        f"{served.wrong:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{served.won:.3f}",
        f"{calls:.1f}" if calls else "-",
    ]
