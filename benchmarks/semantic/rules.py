"""The rules of a lookup without a server: a plain threshold, the guards on top of it, a verifier on both.

A rule names the stored text whose answer is served, if any. What is around it in the layer (the index, the
budget, the entry) is not here; `caches` has the layer itself.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from llmcache_plugins.semantic.matching import CANDIDATES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from benchmarks.semantic.replay import Answer
    from benchmarks.semantic.texts import Neighbours, Texts

Rule = Callable[[str, Container[str]], "str | None"]

ERRORS = 0.02
"""Share of a verifier's replies that are wrong."""


@dataclass(slots=True, kw_only=True)
class StandIn:
    """A verifier that knows the labels, and is wrong about some pairs: always the same ones for a seed."""

    labels: Mapping[str, str]
    seed: int
    calls: int = field(default=0, init=False)

    def says(self, asked: str, stored: str) -> bool:
        """Say whether one answer serves both."""
        self.calls += 1
        is_wrong = random.Random(f"{self.seed} {asked} {stored}").random() < ERRORS
        return (self.labels[asked] == self.labels[stored]) is not is_wrong

    async def __call__(self, asked: str, stored: str) -> bool:
        """Do the same as a `Verifier` of the layer."""
        return self.says(asked, stored)


def plain(texts: Texts, neighbours: Neighbours, threshold: float) -> Rule:
    """Serve the nearest one."""

    def find(text: str, stored: Container[str]) -> str | None:
        nearest = next(neighbours.of(text, stored), None)
        return nearest if nearest is not None and texts.plain(text, nearest) >= threshold else None

    return find


def guarded(
    texts: Texts,
    neighbours: Neighbours,
    accept_above: float,
    reject_below: float | None = None,
    *,
    verifier: StandIn | None = None,
    past_vetoes: bool = False,
) -> Rule:
    """Serve what the guards leave near enough, or else what the verifier confirms, the best first.

    With `past_vetoes` the verifier is asked about what a guard has vetoed, too, which the layer never does.
    """
    least = accept_above if verifier is None or reject_below is None else reject_below

    def find(text: str, stored: Container[str]) -> str | None:
        judged = [
            (texts.judged(text, other), other) for other in islice(neighbours.of(text, stored), CANDIDATES)
        ]
        judged.sort(key=lambda found: -found[0].similarity)
        for found, other in judged:
            if found.similarity < least or (found.is_vetoed and not past_vetoes):
                continue
            if found.similarity >= accept_above and not found.is_vetoed:
                return other
            if verifier is not None and verifier.says(text, other):
                return other
        return None

    return find


@contextlib.asynccontextmanager
async def in_process(rule: Rule, ask: Answer) -> AsyncIterator[Answer]:
    """Open a cache that is a dict with a rule; a hit is not stored."""
    stored: dict[str, str] = {}

    async def answer(text: str) -> str:
        found = rule(text, stored)
        if found is not None:
            return stored[found]
        stored[text] = await ask(text)
        return stored[text]

    yield answer
