"""Equivalent questions in a log: a sample of its calls, looked for as the semantic layer looks.

Owns the sample and its replay. The layer is the product's own, with its embedder, guards, index and
calibration; what it asks a repository for, it finds in memory. Needs the extra `semantic`: imported by those
who ask for it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmcache_plugins.answers import Kind
from llmcache_plugins.errors import SignatureError
from llmcache_plugins.estimate.amounts import Amount, Estimate, SemanticFigures
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import VectorPage
from llmcache_plugins.semantic import SemanticCacheLayer
from llmcache_plugins.semantic.calibration import Rate
from llmcache_plugins.semantic.question import Question, Skip, question_of
from llmcache_plugins.signature import CacheSignatureEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llmcache_plugins.estimate.books import Booked
    from llmcache_plugins.estimate.calls import LoggedCall
    from llmcache_plugins.models import Usage
    from llmcache_plugins.normalize import Normalizers
    from llmcache_plugins.semantic.matching import Matcher

__all__ = ["MOST_TEXTS", "QuestionSample", "with_semantic"]

MOST_TEXTS: Final = 2_000
"""Different questions of a sample: embedding them takes a minute at most."""
_MOST_CALLS: Final = 50_000
_LONGEST: Final = 16_384
"""Characters of a text that is kept: far more than the default embedder reads."""
_NO_QUESTIONS = frozenset({Kind.EMBEDDINGS, Kind.EMBEDDING, Kind.RERANK, Kind.TRANSCRIPTION})
_ALIKE = "llmcache_alike"
_NAMESPACE = "estimate"
_AT_ONCE = 64
_FOR_EVER = 1e9
_TOOLS = frozenset({"tool_calls", "function_call", "tool_use"})


@dataclass(frozen=True, slots=True)
class _Asked:
    digest: bytes
    call: Booked
    question: int | None
    """Its place among the questions."""
    may_answer_others: bool


class QuestionSample:
    """The first calls of a log, up to `MOST_TEXTS` different ones, with what they ask."""

    def __init__(self, *, most: int = MOST_TEXTS) -> None:
        self._most = most
        self._engine = CacheSignatureEngine()
        self._places: dict[bytes, int | None] = {}
        self.asked: list[_Asked] = []
        self.texts: list[tuple[str, str]] = []
        """Scope and text of each question."""
        self.not_compared: Counter[str] = Counter()
        """Different requests without a question, by the reason."""
        self.is_full = False

    def take(
        self,
        call: LoggedCall,
        digest: bytes,
        booked: Booked,
        *,
        scope: dict[str, object],
        rules: Normalizers,
    ) -> None:
        """Take a call in, unless the sample is full."""
        if self.is_full:
            return
        if digest not in self._places:
            if len(self.texts) >= self._most or len(self.asked) >= _MOST_CALLS:
                # Not this one alone: what comes later would be a sample with holes.
                self.is_full = True
                return
            self._places[digest] = self._place(call, scope, rules)
        may_answer = booked.is_storable and _TOOLS.isdisjoint(call.facts.finish_reasons)
        self.asked.append(_Asked(digest, booked, self._places[digest], may_answer))

    def _place(self, call: LoggedCall, scope: dict[str, object], rules: Normalizers) -> int | None:
        if call.kind in _NO_QUESTIONS:
            found: Question | Skip = Skip.NO_QUESTION
        else:
            found = question_of(call.request, takes_input=call.kind != Kind.PLAIN)
        if isinstance(found, Question) and len(found.text) > _LONGEST:
            found = Skip.TOO_LONG
        if isinstance(found, Question):
            try:
                key = self._engine.compute_signature(
                    found.rest, kind=call.kind, scope={**scope, _ALIKE: 1}, normalizers=rules
                )
            except SignatureError:
                found = Skip.NO_QUESTION
            else:
                self.texts.append((key.digest, found.text))
                return len(self.texts) - 1
        self.not_compared[str(found)] += 1
        return None


async def with_semantic(
    estimate: Estimate,
    sample: QuestionSample,
    *,
    target_error: float,
    on_step: Callable[[int, int], None] = lambda done, of: None,
) -> Estimate:
    """Return the estimate with what equivalent questions would win beyond it.

    `on_step` is told how many texts of how many are embedded. Raises `ConfigError` where the extra is not
    installed, or nothing is proved to keep `target_error`, and `EmbeddingFailed`.
    """
    layer = SemanticCacheLayer(target_error=target_error)
    replay = _Replay(layer, sample, ttl=estimate.ttl)
    await layer.embedding.open()
    try:
        await replay.embed(on_step)
        await replay.run()
    finally:
        await replay.matcher.aclose()
    found = replay.figures(estimate, target_error=target_error)
    return msgspec.structs.replace(estimate, semantic=found)


class _Replay:
    """The calls of a sample in the order of time: who finds a stored answer, who an equivalent question's."""

    def __init__(self, layer: SemanticCacheLayer, sample: QuestionSample, *, ttl: float) -> None:
        self._layer = layer
        self._sample = sample
        self._ttl = ttl
        self.matcher: Matcher = layer.bind(_InMemory(), find=_nothing, on_bill=_no_bill)
        self._until: dict[bytes, tuple[float, float]] = {}
        """By digest, when its last provider call ended, and when its answer expires."""
        self._events: list[tuple[float, bool, int]] = []
        """Answers to come and to go: when, whether it goes, its question."""
        self._led: list[Booked] = []
        self._won: list[Booked] = []

    async def embed(self, on_step: Callable[[int, int], None]) -> None:
        """Have all texts embedded, in batches: one by one takes several times as long."""
        from llmcache_plugins.semantic.guards import profile_of

        embedding = self._layer.embedding
        texts = [text for _, text in self._sample.texts]
        for begin in range(0, len(texts), _AT_ONCE):
            some = texts[begin : begin + _AT_ONCE]
            wanted = [*some, *(profile_of(text).gist for text in some)]
            await asyncio.gather(*(embedding.vector(one) for one in wanted if embedding.fits(one)))
            on_step(min(begin + _AT_ONCE, len(texts)), len(texts))

    async def run(self) -> None:
        for one in sorted(self._sample.asked, key=lambda asked: asked.call):
            await self._pass(one.call.at)
            end, until = self._until.get(one.digest, (-1.0, -1.0))
            if one.call.at < max(end, until):
                continue
            self._led.append(one.call)
            if await self._is_won(one):
                self._won.append(one.call)
                continue
            end = one.call.end
            self._until[one.digest] = end, end + self._ttl if one.call.is_storable else end
            if one.question is not None and one.may_answer_others:
                heapq.heappush(self._events, (end, False, one.question))
                heapq.heappush(self._events, (end + self._ttl, True, one.question))

    async def _pass(self, now: float) -> None:
        """Let happen what lies before a time."""
        while self._events and self._events[0][0] <= now:
            _, goes, question = heapq.heappop(self._events)
            if goes:
                await self.matcher.forget(_key_of(question))
            elif self.matcher.can_keep(text := self._sample.texts[question][1]):
                scope = self._sample.texts[question][0]
                await self.matcher.add(_key_of(question), fence="", scope=scope, text=text)

    async def _is_won(self, one: _Asked) -> bool:
        if one.question is None:
            return False
        scope, text = self._sample.texts[one.question]
        if not self.matcher.can_keep(text):
            self._sample.not_compared[str(Skip.TOO_LONG)] += 1
            return False
        matches = await self.matcher.find(_NAMESPACE, scope, text)
        return any(not match.needs_verifier for match in matches.found)

    def figures(self, estimate: Estimate, *, target_error: float) -> SemanticFigures:
        alone = list(self._led_without())
        left = Counter(self._led)
        left.subtract(self._won)
        rate = Rate(max(len(alone) - left.total(), 0), len(alone))
        low, high = rate.bounds
        return SemanticFigures(
            target_error=target_error,
            threshold=self._layer.threshold,
            texts=len(self._sample.texts),
            calls=rate.of,
            fewer=rate.found,
            hits=len(self._won),
            not_compared=dict(self._sample.not_compared),
            share=rate.value,
            lowest=low,
            highest=high,
            added=_extrapolated(alone, list(left.elements()), estimate.total - estimate.avoided),
        )

    def _led_without(self) -> Iterator[Booked]:
        """Yield the calls that would reach the provider if no question were like another."""
        ends: dict[bytes, float] = {}
        for one in sorted(self._sample.asked, key=lambda asked: asked.call):
            if one.call.at >= ends.get(one.digest, -1.0):
                ends[one.digest] = one.call.end + (self._ttl if one.call.is_storable else 0.0)
                yield one.call


def _extrapolated(alone: Sequence[Booked], left: Sequence[Booked], of: Amount) -> Amount:
    """Return by how much the sample's calls have become fewer, as a share of all calls of the log.

    Of calls, tokens and money each its own share; below 0 it is none.
    """

    def fewer(measure: Callable[[Booked], int], whole: int) -> int:
        before, after = (sum(map(measure, calls)) for calls in (alone, left))
        return round(whole * max(before - after, 0) / before) if before else 0

    return Amount(
        calls=fewer(lambda call: 1, of.calls),
        input_tokens=fewer(lambda call: call.input_tokens, of.input_tokens),
        output_tokens=fewer(lambda call: call.output_tokens, of.output_tokens),
        nano_usd=fewer(lambda call: max(call.nano_usd, 0), of.nano_usd),
        unpriced=fewer(lambda call: 1, of.unpriced),
        unmetered=fewer(lambda call: 1, of.unmetered),
    )


class _InMemory:
    """What an index asks a repository for, of questions that live until they are forgotten."""

    async def attach(self, key: CacheKey, **_row: Any) -> float | None:
        return _FOR_EVER

    async def detach(self, key: CacheKey) -> bool:
        return True

    async def changes(self, namespace: str, **_where: Any) -> VectorPage:
        return VectorPage(rows=(), since=(), is_last=True, mentioned=MOST_TEXTS)

    async def alive(self, namespace: str, digests: Sequence[str]) -> list[float]:
        return [_FOR_EVER for _ in digests]

    async def unable_to_search(self) -> str:
        return "there is no server"

    def announce(self, text: str) -> None:
        pass

    # What only an index of a server's asks for.

    async def ensure_index(self, namespace: str, **_index: Any) -> bool:
        return False

    async def drop_index(self, namespace: str, **_index: Any) -> None:
        pass

    async def search(self, namespace: str, **_question: Any) -> None:
        return None

    async def search_canonical(self, namespace: str, **_question: Any) -> None:
        return None

    async def count_indexed(self, namespace: str, **_index: Any) -> None:
        return None


def _key_of(question: int) -> CacheKey:
    return CacheKey(digest=f"{question:064x}", namespace=_NAMESPACE)


async def _nothing(*_: Any, **__: Any) -> None:
    return None


def _no_bill(_model: str, _usage: Usage) -> None:
    pass
