"""Texts with their vectors and with what the guards read in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmcache_plugins.semantic.guards import Guards, nearness, profile_of

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from llmcache_plugins.semantic.guards import Profile

_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Two texts in the eyes of the guards."""

    similarity: float
    """What a threshold is for: the nearness, less the penalty; 1 for texts that are the same but for form."""
    is_vetoed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    profile: Profile
    vector: NDArray[np.float32]
    gist: NDArray[np.float32]


class Texts:
    """All texts there are."""

    def __init__(self, texts: dict[str, _Text]) -> None:
        self._texts = texts
        self._guards = Guards()
        self._judged: dict[tuple[str, str], Judged] = {}

    @staticmethod
    async def embed(texts: Iterable[str], embedder: Any) -> Texts:
        """Have the texts and their gists embedded."""
        profiles = {text: profile_of(text) for text in texts}
        wanted = {*profiles, *(profile.gist for profile in profiles.values())}
        vectors = await _embedded(sorted(wanted, key=len), embedder)
        return Texts(
            {
                text: _Text(profile=profile, vector=vectors[text], gist=vectors[profile.gist])
                for text, profile in profiles.items()
            }
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __contains__(self, text: str) -> bool:
        return text in self._texts

    def vector(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a text."""
        return self._texts[text].vector

    def profile(self, text: str) -> Profile:
        """Return what the guards read in a text."""
        return self._texts[text].profile

    def plain(self, one: str, other: str) -> float:
        """Return the cosine of two texts."""
        return float(self._texts[one].vector @ self._texts[other].vector)

    def judged(self, asked: str, stored: str) -> Judged:
        """Return what the layer makes of two texts; remembered."""
        place = (asked, stored)
        if place not in self._judged:
            self._judged[place] = self._judge(asked, stored)
        return self._judged[place]

    def _judge(self, asked: str, stored: str) -> Judged:
        one, other = self._texts[asked], self._texts[stored]
        verdict = self._guards.judge(one.profile, other.profile)
        near = nearness(self.plain(asked, stored), float(one.gist @ other.gist)) - verdict.penalty
        return Judged(similarity=1.0 if verdict.same_text else near, is_vetoed=bool(verdict.vetoes))


class Neighbours:
    """The texts before each one in a row of them, the nearest first by the plain cosine."""

    def __init__(self, texts: Texts, row: Sequence[str]) -> None:
        vectors = np.stack([texts.vector(text) for text in row])
        near = vectors @ vectors.T
        self._row = row
        self._order = {text: np.argsort(-near[at, :at], kind="stable") for at, text in enumerate(row)}

    def of(self, text: str, stored: Container[str]) -> Iterator[str]:
        """Yield those of them that are stored."""
        return (other for at in self._order[text] if (other := self._row[at]) in stored)


async def _embedded(texts: list[str], embedder: Any) -> dict[str, NDArray[np.float32]]:
    # By length: texts of a length in one batch, so that none is padded much.
    load, close = (getattr(embedder, name, None) for name in ("load", "aclose"))
    if load is not None:
        await load()
    found: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        found.update(zip(batch, await embedder.embed(batch), strict=True))
    if close is not None:
        await close()
    return found
