"""What the demo found: its figures, and what is wrong with them. Pure.

Owns the arithmetic and the form of `--json`. Knows nothing of terminals.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmcache_plugins.cli.load.calls import percentile
from llmcache_plugins.models import Outcome, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmcache_plugins.cli.load.calls import Sample
    from llmcache_plugins.prices import Price

__all__ = ["Part", "Report", "Scene", "Tally", "findings_of", "percentile", "to_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the demo: calls, and the provider calls they took as both sides counted them."""

    name: str
    samples: Sequence[Sample]
    seconds: float
    provider_calls: int
    """As counted here: by the gateway, or without one by the caller."""
    counted_by_provider: int

    @property
    def outcomes(self) -> Counter[Outcome]:
        """How the calls were answered; empty without the cache."""
        return Counter(sample.outcome for sample in self.samples if sample.outcome is not None)

    @property
    def hit_rate(self) -> float | None:
        """The share of calls that needed no provider call of their own; None without the cache."""
        if not self.outcomes:
            return None
        return sum(sample.was_spared for sample in self.samples) / len(self.samples)

    @property
    def billed(self) -> Usage:
        """Tokens that were paid for."""
        return _sum([sample.billed for sample in self.samples])

    @property
    def saved(self) -> Usage:
        """Tokens that were not."""
        return _sum([sample.saved for sample in self.samples])

    def latency(self, share: float) -> float:
        """Return the latency in seconds that this share of the calls did not exceed."""
        return percentile([sample.seconds for sample in self.samples], share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a scene took with one cache, or without; it consists of plays that make the same calls."""

    calls: int
    """Of the application, in all plays."""
    different_calls: int
    """Of them those of one play: what a cache has to let through."""
    different_answers: int
    """1 when every play got the same."""
    provider_calls: int
    """As counted at the provider's side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A scene of a framework's part, as three applications played it."""

    name: str
    description: str
    no_cache: Tally
    theirs: Tally
    """With the framework's own cache, in memory."""
    ours: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole demo."""

    provider: str
    is_stand_in: bool
    server: str
    questions: str
    distinct: int
    """Requests of the file that differ in what can change an answer."""
    concurrency: int
    baseline: Part
    first: Part
    second: Part
    burst: Part
    burst_processes: int
    langchain: Sequence[Scene] | None = None
    """None when LangChain is not installed."""
    litellm: Sequence[Scene] | None = None
    """None when LiteLLM is not installed."""
    price: Price
    refusals: Mapping[str, int] = field(default_factory=dict)
    seconds: float

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, in their order."""
        return (self.baseline, self.first, self.second, self.burst)

    @property
    def passes(self) -> tuple[Part, Part]:
        """What savings are reckoned from. Not the burst: it is made to save nearly everything."""
        return (self.first, self.second)

    @property
    def saved(self) -> Usage:
        """Tokens that the cache saved in the passes."""
        return _sum([part.saved for part in self.passes])

    @property
    def billed(self) -> Usage:
        """Tokens that the passes paid for in spite of the cache."""
        return _sum([part.billed for part in self.passes])

    @property
    def spared_calls(self) -> int:
        """Calls of the passes that cost no provider call."""
        return sum(len(part.samples) - part.provider_calls for part in self.passes)


def findings_of(report: Report) -> list[str]:
    """Return what is not as it should be, a sentence each."""
    return [
        *(_disagreement(part) for part in report.parts if part.provider_calls != part.counted_by_provider),
        *_unexpected_calls(report),
        *_unequal_answers(report.burst),
        *(finding for scene in report.langchain or () for finding in _findings_of_scene("LangChain", scene)),
        *(finding for scene in report.litellm or () for finding in _findings_of_scene("LiteLLM", scene)),
        *(f"{n} answers were not stored: {reason}." for reason, n in sorted(report.refusals.items())),
    ]


def _disagreement(part: Part) -> str:
    return (
        f"{part.name}: {part.provider_calls} provider calls counted here,"
        f" {part.counted_by_provider} at the provider's side."
    )


def _unexpected_calls(report: Report) -> list[str]:
    expected = ((report.first, report.distinct), (report.second, 0), (report.burst, 1))
    return [
        f"{part.name}: {part.provider_calls} provider calls where {number} were expected ({_said(part)})."
        for part, number in expected
        if part.provider_calls != number
    ]


def _said(part: Part) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(part.outcomes.items()))


def _unequal_answers(burst: Part) -> list[str]:
    different = len({sample.digest for sample in burst.samples})
    return [f"{burst.name}: {different} different answers to one request."] if different > 1 else []


def _findings_of_scene(framework: str, scene: Scene) -> list[str]:
    where, plain, ours = f"{framework}, {scene.name}", scene.no_cache, scene.ours
    found = []
    if plain.provider_calls != plain.calls:
        found.append(
            f"{where}: {plain.calls} calls without a cache were {plain.provider_calls} provider calls."
        )
    if ours.provider_calls != ours.different_calls:
        found.append(
            f"{where}: {ours.provider_calls} provider calls where {ours.different_calls} were expected."
        )
    if ours.different_answers != 1:
        found.append(f"{where}: {ours.different_answers} different answers to the same calls.")
    return found


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in usages),
        output_tokens=sum(usage.output_tokens for usage in usages),
    )


def to_json(report: Report) -> dict[str, Any]:
    """Return everything as JSON-like data; times are seconds, money dollars at the example prices."""
    return {
        "provider": {"description": report.provider, "stand_in": report.is_stand_in},
        "server": report.server,
        "questions": {
            "file": report.questions,
            "requests": len(report.baseline.samples),
            "distinct": report.distinct,
            "concurrency": report.concurrency,
        },
        "parts": [_part_to_json(part) for part in report.parts],
        "burst": {
            "processes": report.burst_processes,
            "callers": len(report.burst.samples),
            "provider_calls": report.burst.provider_calls,
            "different_answers": len({sample.digest for sample in report.burst.samples}),
        },
        "langchain": _scenes_to_json(report.langchain, theirs="in_memory_cache"),
        "litellm": _scenes_to_json(report.litellm, theirs="local_cache"),
        "saved_in_passes": _saved_to_json(report),
        "findings": findings_of(report),
        "seconds": round(report.seconds, 3),
    }


def _part_to_json(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "calls": len(part.samples),
        "provider_calls": part.provider_calls,
        "counted_by_provider": part.counted_by_provider,
        "outcomes": {str(outcome): count for outcome, count in sorted(part.outcomes.items())},
        "hit_rate": part.hit_rate,
        "p50": round(part.latency(0.5), 6),
        "p99": round(part.latency(0.99), 6),
        "seconds": round(part.seconds, 3),
        "billed": _usage_to_json(part.billed),
        "saved": _usage_to_json(part.saved),
    }


def _scenes_to_json(scenes: Sequence[Scene] | None, *, theirs: str) -> list[dict[str, Any]] | None:
    return None if scenes is None else [_scene_to_json(scene, theirs=theirs) for scene in scenes]


def _scene_to_json(scene: Scene, *, theirs: str) -> dict[str, Any]:
    return {
        "name": scene.name,
        "calls": scene.ours.calls,
        "different_calls": scene.ours.different_calls,
        "different_answers": scene.ours.different_answers,
        "provider_calls": {
            "no_cache": scene.no_cache.provider_calls,
            theirs: scene.theirs.provider_calls,
            "llmcache": scene.ours.provider_calls,
        },
    }


def _saved_to_json(report: Report) -> dict[str, Any]:
    return {
        "provider_calls": report.spared_calls,
        **_usage_to_json(report.saved),
        "dollars": round(report.price.of(report.saved), 6),
        "dollars_still_paid": round(report.price.of(report.billed), 6),
        "example_prices_per_million": {
            "input": report.price.input,
            "output": report.price.output,
        },
    }


def _usage_to_json(usage: Usage) -> dict[str, int]:
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
