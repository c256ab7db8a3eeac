"""The score of two questions: how near they are, once the guards have been heard.

Owns the rule that the thresholds of a calibration are for. Knows no index and no file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmcache_plugins.semantic.calibration import ALWAYS, NEVER
from llmcache_plugins.semantic.guards import nearness, profile_of

if TYPE_CHECKING:
    from llmcache_plugins.semantic.embedding import Embedding
    from llmcache_plugins.semantic.guards import Guards, Verdict

__all__ = ["score", "similarity"]


async def score(asked: str, stored: str, *, embedding: Embedding, guards: Guards) -> float:
    """Return the nearness of the texts and of their gists, as the guards leave it.

    `ALWAYS` for texts of one canonical form; `NEVER` for what a guard forbids or the embedder cannot read.
    Raises `EmbeddingFailed`.
    """
    if not (embedding.fits(asked) and embedding.fits(stored)):
        return NEVER
    one, other = profile_of(asked), profile_of(stored)
    verdict = guards.judge(one, other)
    if verdict.vetoes:
        return NEVER
    if verdict.same_text:
        return ALWAYS
    text = await _cosine(asked, stored, embedding)
    has_gists = embedding.fits(one.gist) and embedding.fits(other.gist)
    gist = await _cosine(one.gist, other.gist, embedding) if has_gists else None
    return similarity(verdict, text=text, gist=gist)


def similarity(verdict: Verdict, *, text: float, gist: float | None) -> float:
    """Return what thresholds are for, from the cosines of two texts and of their gists, if that is known.

    At most 1, which is for texts that are the same.
    """
    return min(nearness(text, text if gist is None else gist) - verdict.penalty, 1.0)


async def _cosine(one: str, other: str, embedding: Embedding) -> float:
    return float(np.dot(await embedding.vector(one), await embedding.vector(other)))
