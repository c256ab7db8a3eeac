"""Labelled pairs and traps: what a threshold serves of them, rightly and wrongly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.tables import print_table
from llmcache_plugins.semantic.calibration.bounds import interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from benchmarks.semantic.data import Pair
    from benchmarks.semantic.texts import Texts

PRECISION = 0.99


def print_pairs(pairs: Sequence[Pair], texts: Texts) -> None:
    """Print the tables."""
    scores = {
        "plain": np.array([texts.plain(pair.one, pair.other) for pair in pairs]),
        "guards": np.array([_guarded(texts, pair) for pair in pairs]),
    }
    same = np.array([pair.same for pair in pairs])
    best = {name: threshold_for(PRECISION, found, same) for name, found in scores.items()}
    _print_all(pairs, scores, same, best)
    _print_traps(pairs, scores, best)


def threshold_for(precision: float, scores: NDArray[Any], same: NDArray[np.bool_]) -> float:
    """Return the lowest threshold with that precision above it; infinity if there is none."""
    order = np.argsort(-scores, kind="stable")
    ranked, true = scores[order], np.cumsum(same[order])
    last = np.append(ranked[1:] < ranked[:-1], True)  # of those with equal scores
    fit = np.flatnonzero(last & (true >= precision * np.arange(1, len(order) + 1)))
    return float(ranked[fit[-1]]) if len(fit) else math.inf


def _guarded(texts: Texts, pair: Pair) -> float:
    judged = texts.judged(pair.one, pair.other)
    return -math.inf if judged.is_vetoed else judged.similarity


def _print_all(
    pairs: Sequence[Pair], scores: dict[str, NDArray[Any]], same: NDArray[np.bool_], best: dict[str, float]
) -> None:
    trap = np.array([pair.kind is not None for pair in pairs])
    rows = []
    for name, found in scores.items():
        for title, threshold in [
            *((f"at {threshold:.2f}", threshold) for threshold in (0.95, 0.90)),
            (f"at {PRECISION:.0%} precision", best[name]),
        ]:
            served = found >= threshold
            true, false = int((served & same).sum()), int((served & ~same).sum())
            low, high = interval(false, true + false)
            rows.append(
                [
                    f"{name}, {title}",
                    f"{threshold:.3f}",
                    f"{true / max(1, true + false):.3f}",
                    f"{low:.1%} to {high:.1%}",
                    f"{true / same.sum():.3f}",
                    f"{(served & trap & ~same).sum() / (trap & ~same).sum():.3f}",
                    f"{(served & trap & same).sum() / (trap & same).sum():.3f}",
                ]
            )
    print_table(
        f"{len(pairs):,} pairs and traps, {same.sum():,} of them the same",
        [
            "",
            "threshold",
            "precision",
            "false, 95% interval",
            "recall",
            "near-misses served",
            "paraphrases served",
        ],
        rows,
    )


def _print_traps(pairs: Sequence[Pair], scores: dict[str, NDArray[Any]], best: dict[str, float]) -> None:
    kinds = sorted({(pair.same, pair.kind) for pair in pairs if pair.kind is not None})
    columns = {
        "plain at 0.95": scores["plain"] >= 0.95,
        "guards at 0.95": scores["guards"] >= 0.95,
        f"guards at {PRECISION:.0%} precision": scores["guards"] >= best["guards"],
    }
    rows = []
    for same, kind in kinds:
        which = np.array([pair.kind == kind and pair.same == same for pair in pairs])
        rows.append(
            [
                f"{'paraphrase' if same else 'near-miss'}: {kind}",
                str(which.sum()),
                *(str((which & served).sum()) for served in columns.values()),
            ]
        )
    print_table("Traps that are served, by kind", ["", "of", *columns], rows)
