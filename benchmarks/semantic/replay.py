"""A stream of questions put to a cache in order, and what it made of them.

The provider answers with the label of a question: an answer with another label is a false hit. Knows no
cache.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

Answer = Callable[[str], Awaitable[str]]
Opener = Callable[[Answer], AbstractAsyncContextManager[Answer]]
"""Opens a cache; it is told whom to ask on a miss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a stream got: hits, those of them with another label, and how many a perfect layer would win."""

    questions: int
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


async def replay(stream: Mapping[str, str], opener: Opener) -> Served:
    """Ask the texts of a stream, each once, one after the other."""
    missed: set[str] = set()

    async def provider(text: str) -> str:
        missed.add(text)
        return stream[text]

    false = 0
    async with opener(provider) as answer:
        for text, label in stream.items():
            false += await answer(text) != label
    hits = len(stream) - len(missed)
    # Each label is to be asked for once, whoever answers.
    winnable = len(stream) - len(set(stream.values()))
    return Served(questions=len(stream), hits=hits, false=false, winnable=winnable)
