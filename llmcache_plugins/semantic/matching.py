"""From a text to the stored questions that may share its answer, the best first.

Owns the order of the steps: the same canonical text, then the vectors, then the guards. What it returns are
candidates: whoever serves one reads its entry first. Knows no repository, only its `VectorStore`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from llmcache_plugins.models import Usage
from llmcache_plugins.semantic.guards import Guard, profile_of
from llmcache_plugins.semantic.guards import Verdict as GuardVerdict
from llmcache_plugins.semantic.indexes import Neighbour, choose
from llmcache_plugins.semantic.question import Skip
from llmcache_plugins.semantic.scoring import similarity

if TYPE_CHECKING:
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.semantic.embedders.rows import Rows
    from llmcache_plugins.semantic.embedding import Embedding
    from llmcache_plugins.semantic.guards import Guards, Profile
    from llmcache_plugins.semantic.indexes import IndexName, VectorIndex, VectorStore

__all__ = ["Match", "Matcher", "Matches", "Verdict", "Verifier"]

CANDIDATES: Final = 8
"""Neighbours that are looked at: the nearest one may be the one with the wrong number."""
SAME_TEXT: Final = "same_text"
_SLACK: Final = 0.2
"""How much lower the cosine of two texts may be than that of their gists."""
_MOST_GISTS: Final = 3
"""Gists of candidates that are embedded for one question, the nearest ones'."""
_AGREEING: Final = 0.8
"""Cosine from which two answers are taken to say the same, if no guard objects."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a verifier returns that knows what it has cost; a plain bool will do otherwise."""

    ok: bool
    """Whether one answer serves both questions."""
    usage: Usage | None = None
    model: str | None = None
    """The one that was asked, for its price."""


Verifier = Callable[[str, str], Awaitable[bool | Verdict]]
"""`await verifier(asked, stored)`: whether the answer to the stored question is one to the asked."""


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """A stored question that is near to the one asked, and the checks that had nothing against it."""

    digest: str
    """Of the request whose answer it is."""
    similarity: float
    """Cosine, less what the guards take off; 1 where the texts are the same but for their form."""
    passed: tuple[str, ...] = ()
    needs_verifier: bool = False
    stored: str = ""
    """The text of the stored question."""


class Matches(msgspec.Struct, frozen=True):
    """What there is for a question: the best first, and then what a verifier must be asked about."""

    found: tuple[Match, ...] = ()
    vetoes: tuple[Guard, ...] = ()
    """The guards that have kept back what was near enough, each once for each question kept back."""


class Matcher:
    """Finds and keeps questions. Usable from any event loop.

    `accept_above` and `reject_below` are similarities; between them it is for a verifier to say.
    """

    def __init__(
        self,
        store: VectorStore,
        *,
        embedding: Embedding,
        guards: Guards,
        accept_above: float,
        reject_below: float,
        index: IndexName,
        max_rows: int,
    ) -> None:
        self._store = store
        self._embedding = embedding
        self._guards = guards
        self._accept = accept_above
        self._reject = min(reject_below, accept_above)
        self._index_name = index
        self._max_rows = max_rows
        self._index: VectorIndex | None = None

    def hurdle(self, text: str, *, within: float) -> Skip | None:
        """Say why there is no use in looking for a text now; `within` are the seconds there are."""
        if not self._embedding.fits(text):
            return Skip.TOO_LONG
        if self._embedding.cached(text) is not None:
            return None
        if self._embedding.is_loading:
            return Skip.LOADING
        return Skip.QUEUE if self._embedding.expected_wait() > within else None

    def can_keep(self, text: str) -> bool:
        """Say whether a text can be embedded at all."""
        return self._embedding.fits(text)

    async def find(self, namespace: str, scope: str, text: str) -> Matches:
        """Return what may be served for a text.

        Raises `EmbeddingFailed`, and what the repository raises.
        """
        index, profile = await self._chosen(), profile_of(text)
        same = await index.same_text(namespace, scope, profile.canonical)
        if same is not None and self._judge(profile, same).same_text:
            return Matches(
                (Match(digest=same.digest, similarity=1.0, passed=(SAME_TEXT,), stored=same.text),)
            )
        vector, gist = await self._vectors(text, profile)
        near = await index.nearest(
            namespace, scope, vector, k=CANDIDATES, at_least=max(self._reject - _SLACK, -1.0)
        )
        verdicts = [_Judged(one, self._judge(profile, one)) for one in near]
        judged = [one for one in verdicts if not one.verdict.vetoes]
        cosines = await self._gists(gist, judged)
        matches = [one.match(cosines.get(one.near.digest), accept=self._accept) for one in judged]
        kept = [match for match in matches if match.similarity >= self._reject]
        return Matches(
            tuple(sorted(kept, key=lambda match: -match.similarity)),
            tuple(
                veto.guard
                for one in verdicts
                if one.near.similarity >= self._accept
                for veto in one.verdict.vetoes
            ),
        )

    async def add(self, key: CacheKey, *, fence: str, scope: str, text: str) -> bool:
        """Keep a question beside its answer; False when the answer is gone. Raises what `find` raises."""
        index, profile = await self._chosen(), profile_of(text)
        vector, _ = await self._vectors(text, profile)
        return await index.add(
            key, fence=fence, scope=scope, vector=vector, text=text, canonical=profile.canonical
        )

    def knows(self, text: str) -> bool:
        """Say whether a text can be kept without waiting for the embedder."""
        return self._embedding.cached(text) is not None

    async def forget(self, key: CacheKey) -> None:
        """Take a question away whose answer is gone."""
        await (await self._chosen()).forget(key)

    async def agree(self, one: str, other: str) -> bool | None:
        """Say whether two answers say the same; None if the embedder cannot read them. An estimate.

        Raises `EmbeddingFailed`.
        """
        verdict = self._guards.judge(profile_of(one), profile_of(other))
        if verdict.same_text:
            return True
        if not (self._embedding.fits(one) and self._embedding.fits(other)):
            return None
        first, second = await asyncio.gather(self._embedding.vector(one), self._embedding.vector(other))
        return not verdict.vetoes and float(np.dot(first, second)) >= _AGREEING

    async def open(self) -> None:
        """Load the model and choose the index. Raises `ConfigError` where one of both cannot be.

        `EmbeddingFailed` and `RepositoryError` are for anything else that goes wrong.
        """
        await self._embedding.open()
        await self._chosen()

    async def aclose(self) -> None:
        """End what is under way on the running loop."""
        await self._embedding.aclose()
        if self._index is not None:
            await self._index.aclose()

    async def _chosen(self) -> VectorIndex:
        if self._index is None:
            index = await choose(
                self._store,
                embedder=self._embedding.name,
                dim=self._embedding.dim,
                index=self._index_name,
                max_rows=self._max_rows,
            )
            # Another call may have been quicker: its mirror is the one to keep.
            self._index = self._index or index
        return self._index

    async def _vectors(self, text: str, profile: Profile) -> tuple[Rows, Rows | None]:
        """Return the vectors of a text and of its gist, which travel together."""
        if not self._embedding.fits(profile.gist):
            return await self._embedding.vector(text), None
        vector, gist = await asyncio.gather(
            self._embedding.vector(text), self._embedding.vector(profile.gist)
        )
        return vector, gist

    def _judge(self, profile: Profile, near: Neighbour) -> GuardVerdict:
        return self._guards.judge(profile, profile_of(near.text))

    async def _gists(self, gist: Rows | None, judged: list[_Judged]) -> dict[str, float]:
        """Return the cosines of the gists of those that are not near enough by their texts."""
        if gist is None:
            return {}
        undecided = [one for one in judged if one.similarity(None) < self._accept][:_MOST_GISTS]
        gists = {one.near.digest: profile_of(one.near.text).gist for one in undecided}
        wanted = [digest for digest, text in gists.items() if self._embedding.fits(text)]
        vectors = await asyncio.gather(*(self._embedding.vector(gists[digest]) for digest in wanted))
        return {digest: float(np.dot(gist, one)) for digest, one in zip(wanted, vectors, strict=True)}


class _Judged(msgspec.Struct, frozen=True):
    """A neighbour to which no guard has objected."""

    near: Neighbour
    verdict: GuardVerdict

    def similarity(self, gist: float | None) -> float:
        """Return what a threshold is for; `gist` is the cosine of the gists, where it is known."""
        if self.verdict.same_text:
            return 1.0
        return similarity(self.verdict, text=self.near.similarity, gist=gist)

    def match(self, gist: float | None, *, accept: float) -> Match:
        found = self.similarity(gist)
        return Match(
            digest=self.near.digest,
            similarity=found,
            passed=(SAME_TEXT,) if self.verdict.same_text else tuple(map(str, self.verdict.passed)),
            needs_verifier=found < accept,
            stored=self.near.text,
        )
