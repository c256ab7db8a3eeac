"""How well a similar question is told from the same one: a plain threshold, and the guards on top of it.

`--data` names a folder with `dev_pairs.jsonl.gz` (a, b, same), `traps_dev.jsonl` (a, b, same, kind) and
`dev_stream.jsonl.gz` (query, label: equal labels have one answer). Nothing of the texts is printed.

A stream is answered in order: what is asked for the first time is looked for among what missed before it, and
stored if it misses. Texts asked again word for word are left out: they need no semantics.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import importlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.tables import print_table
from llmcache_plugins.semantic.guards import Guards, nearness, profile_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from llmcache_plugins.semantic.guards import Profile

PRECISION = 0.99
THRESHOLDS = (0.98, 0.97, 0.96, 0.95, 0.94, 0.92, 0.90)
CANDIDATES = 8
"""How many of the nearest stored questions are judged."""
SAME_TEXT = 2.0
"""Above every similarity."""
VETOED = -2.0
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A text, what the guards read in it, and where its vectors are."""

    row: int
    profile: Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two texts, and whether one answer serves both; `kind` is that of a trap."""

    one: str
    other: str
    same: bool
    kind: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a stream got: hits, those of them with another label, and how many a perfect layer would win."""

    hits: int
    false: int
    winnable: int

    @property
    def won(self) -> float:
        """Share of the winnable hits that were true hits."""
        return (self.hits - self.false) / max(1, self.winnable)

    @property
    def wrong(self) -> float:
        """Share of the hits that were false."""
        return self.false / max(1, self.hits)


class Texts:
    """All texts with their profiles, and the cosines between them."""

    def __init__(self, texts: Iterable[str], embedder: Any) -> None:
        unique = list(dict.fromkeys(texts))
        self.questions = {
            text: Question(row=row, profile=profile_of(text)) for row, text in enumerate(unique)
        }
        gists = [question.profile.gist for question in self.questions.values()]
        vectors = asyncio.run(_embed(embedder, list(dict.fromkeys([*unique, *gists]))))
        self._plain = np.stack([vectors[text] for text in unique])
        self._gists = np.stack([vectors[gist] for gist in gists])

    def plain(self, one: str, other: str) -> float:
        """Return the cosine of two texts."""
        return float(self._plain[self.questions[one].row] @ self._plain[self.questions[other].row])

    def near(self, one: str, other: str) -> float:
        """Return the similarity of two texts with the help of their gists."""
        gist = float(self._gists[self.questions[one].row] @ self._gists[self.questions[other].row])
        return nearness(self.plain(one, other), gist)

    def all_plain(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the cosines of all pairs of texts: (n, n)."""
        rows = self._plain[[self.questions[text].row for text in texts]]
        return rows @ rows.T

    def all_near(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the greater of the cosines of texts and of their gists, for all pairs: (n, n)."""
        rows = self._gists[[self.questions[text].row for text in texts]]
        return np.maximum(self.all_plain(texts), rows @ rows.T)


def main(argv: Sequence[str]) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks semantic_quality", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the three files")
    parser.add_argument(
        "--embedder",
        default="llmcache_plugins.semantic.embedders:MiniLMEmbedder",
        help="module:callable that makes an embedder",
    )
    options = parser.parse_args(argv)
    module, _, name = options.embedder.partition(":")
    embedder = getattr(importlib.import_module(module), name)()
    pairs = _pairs(options.data)
    stream = [(row["query"], row["label"]) for row in _rows(options.data / "dev_stream.jsonl.gz")]
    texts = Texts(
        [*(text for pair in pairs for text in (pair.one, pair.other)), *(q for q, _ in stream)], embedder
    )
    guards = Guards()
    scores = {
        "plain": np.array([texts.plain(pair.one, pair.other) for pair in pairs]),
        "guards": np.array([guarded(texts, guards, pair.one, pair.other) for pair in pairs]),
    }
    same = np.array([pair.same for pair in pairs])
    best = {name: threshold_for(PRECISION, found, same) for name, found in scores.items()}
    _print_pairs(pairs, scores, same, best)
    _print_traps(pairs, scores, best)
    _print_stream(texts, guards, stream)
    _print_speed(texts, pairs)


def guarded(texts: Texts, guards: Guards, one: str, other: str) -> float:
    """Return the similarity less what the guards take off it."""
    verdict = guards.judge(texts.questions[one].profile, texts.questions[other].profile)
    if verdict.same_text:
        return SAME_TEXT
    if verdict.vetoes:
        return VETOED
    return texts.near(one, other) - verdict.penalty


def threshold_for(precision: float, scores: NDArray[Any], same: NDArray[np.bool_]) -> float:
    """Return the lowest threshold with that precision above it; infinity if there is none."""
    order = np.argsort(-scores, kind="stable")
    ranked, true = scores[order], np.cumsum(same[order])
    last = np.append(ranked[1:] < ranked[:-1], True)  # of those with equal scores
    fit = np.flatnonzero(last & (true >= precision * np.arange(1, len(order) + 1)))
    return float(ranked[fit[-1]]) if len(fit) else math.inf


def serve(
    stream: Sequence[tuple[str, str]],
    near: NDArray[np.float32],
    score: Callable[[str, str, float], float],
    *,
    threshold: float,
    candidates: int,
) -> Served:
    """Answer the stream in order; `near` has the similarities of its distinct texts, as they appear."""
    rows = {text: row for row, text in enumerate(dict.fromkeys(text for text, _ in stream))}
    labels = {rows[text]: label for text, label in stream}
    names = list(rows)
    seen: set[str] = set()
    known: set[str] = set()
    stored: list[int] = []
    hits = false = winnable = 0
    for text, label in stream:
        if text in seen:
            continue
        seen.add(text)
        winnable += label in known
        known.add(label)
        here = rows[text]
        nearest = _nearest(near[here], stored, candidates)
        found = max(
            ((score(text, names[row], float(near[here, row])), row) for row in nearest), default=(0.0, -1)
        )
        if nearest and found[0] >= threshold:
            hits += 1
            false += labels[found[1]] != label
        else:
            stored.append(here)
    return Served(hits=hits, false=false, winnable=winnable)


def _nearest(near: NDArray[np.float32], stored: list[int], count: int) -> list[int]:
    if len(stored) <= count:
        return stored
    rows = np.array(stored)
    return [int(row) for row in rows[np.argpartition(-near[rows], count)[:count]]]


async def _embed(embedder: Any, texts: list[str]) -> dict[str, NDArray[np.float32]]:
    load = getattr(embedder, "load", None)
    if load is not None:
        await load()
    # Texts of a length in one batch: none is padded much.
    texts.sort(key=len)
    found: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        found.update(zip(batch, await embedder.embed(batch), strict=True))
    close = getattr(embedder, "aclose", None)
    if close is not None:
        await close()
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    return [json.loads(line) for line in content.split(b"\n") if line]


def _pairs(data: Path) -> list[Pair]:
    rows = [*_rows(data / "dev_pairs.jsonl.gz"), *_rows(data / "traps_dev.jsonl")]
    return [Pair(one=row["a"], other=row["b"], same=row["same"], kind=row.get("kind")) for row in rows]


def _print_pairs(
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
            low, high = wilson(false, true + false)
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


def _print_stream(texts: Texts, guards: Guards, stream: Sequence[tuple[str, str]]) -> None:
    names = list(dict.fromkeys(text for text, _ in stream))
    plain, near = texts.all_plain(names), texts.all_near(names)
    known: dict[tuple[str, str], float] = {}

    def judged(one: str, other: str, _: float) -> float:
        if (one, other) not in known:
            known[one, other] = guarded(texts, guards, one, other)
        return known[one, other]

    def run(guarding: bool, threshold: float) -> Served:
        if guarding:
            return serve(stream, near, judged, threshold=threshold, candidates=CANDIDATES)
        return serve(stream, plain, lambda *found: found[2], threshold=threshold, candidates=1)

    rows = []
    for threshold in THRESHOLDS:
        row = [f"at {threshold:.2f}"]
        for guarding in (False, True):
            served = run(guarding, threshold)
            row += [str(served.hits), f"{served.wrong:.1%}", f"{served.won:.3f}"]
        rows.append(row)
    print_table(
        f"{len(stream):,} questions in order, {len(names):,} distinct, {served.winnable} winnable",
        ["", *("plain: hits", "false", "won"), *("guards: hits", "false", "won")],
        rows,
    )
    careful = [
        served
        for step in range(100, 0, -1)
        if (served := run(True, 0.9 + step / 1000)).hits and served.wrong <= 1 - PRECISION
    ]
    most = max((served.won for served in careful), default=0.0)
    print(f"\n  guards, at most {1 - PRECISION:.0%} of the hits false: {most:.3f} of the winnable hits won")


def _print_speed(texts: Texts, pairs: Sequence[Pair]) -> None:
    guards = Guards()
    sources = list(texts.questions)[:2000]
    both = [(texts.questions[pair.one].profile, texts.questions[pair.other].profile) for pair in pairs[:2000]]
    parse = _fastest(lambda: [profile_of(text) for text in sources]) / len(sources)
    judge = _fastest(lambda: [guards.judge(one, other) for one, other in both]) / len(both)
    print_table(
        "Guards, microseconds of the processor",
        ["", "us"],
        [["a text", f"{parse * 1e6:.1f}"], ["a pair", f"{judge * 1e6:.1f}"]],
    )


def _fastest(call: Callable[[], object], runs: int = 7) -> float:
    seconds = []
    for _ in range(runs):
        began = time.thread_time()
        call()
        seconds.append(time.thread_time() - began)
    return min(seconds)


def wilson(count: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson interval of a share (Wilson 1927); everything for no observations."""
    if not total:
        return 0.0, 1.0
    share = count / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    whole = 1 + z * z / total
    return max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)
