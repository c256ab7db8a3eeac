"""What happened, as frozen events, and who wants to know.

Owns the events, the one-method `Observer` and the counting observer behind `stats()`. An observer that
raises never reaches the caller. No event carries a prompt, an answer, a key, a tenant or a namespace:
every field is a number or a word from a closed set.
"""

from __future__ import annotations

import copy
import enum
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

from llmcache_plugins.models import Outcome, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BreakerChanged",
    "Event",
    "Evicted",
    "Face",
    "FoundNear",
    "LeaseEvent",
    "LeaseStep",
    "MarksForgotten",
    "Observer",
    "ProviderCalled",
    "Refused",
    "Resolved",
    "SemanticLooked",
    "ShadowCompared",
    "Stats",
    "Telemetry",
    "Unreadable",
    "VerifierAsked",
]

_log = logging.getLogger("llmcache_plugins")


class Face(enum.StrEnum):
    """Through which door a call came in."""

    GATEWAY = "gateway"
    CACHE = "cache"
    LANGCHAIN = "langchain"
    LITELLM = "litellm"


class LeaseStep(enum.StrEnum):
    """What became of a lease."""

    LED = "led"
    FOLLOWED = "followed"
    LOST = "lost"
    TIMED_OUT = "timed_out"
    TOLD = "told"
    """Another process said what error the provider had given it."""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A call was answered. Times are seconds."""

    outcome: Outcome
    face: Face
    seconds: float
    saved: Usage | None = None
    saved_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCalled:
    """The provider was called; `seconds` until it answered, failed or was cancelled."""

    seconds: float
    failed: bool
    usage: Usage | None = None


class FoundNear(msgspec.Struct, frozen=True):
    """An entry was at hand in the near cache: the server was not asked."""


class SemanticLooked(msgspec.Struct, frozen=True, kw_only=True):
    """An equivalent question was looked for, or why not; `seconds` it took.

    `result` is "hit", "shadow" (would have been one), "none", "not_kept" (a question that could not be laid
    beside its answer), or a word of `semantic.question.Skip`.
    """

    result: str
    similarity: float | None
    seconds: float


class VerifierAsked(msgspec.Struct, frozen=True, kw_only=True):
    """The verifier of the semantic layer was asked; `ok` is None when it failed, `usage` what it has cost."""

    seconds: float
    ok: bool | None
    usage: Usage | None = None


class ShadowCompared(msgspec.Struct, frozen=True, kw_only=True):
    """What the shadow would have served beside what the provider said; None: could not be compared."""

    agrees: bool | None
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An answer was returned but not stored; `reason` is a `Refusal`."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Stored bytes were not an entry of ours: a miss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """Entries were removed to keep a bound."""

    entries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MarksForgotten:
    """Marks of old invalidations made room for new ones: what is older than they is a miss now."""

    marks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseEvent:
    """A step in the life of a lease."""

    step: LeaseStep


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChanged:
    """The repository was given up (`open`) or is back."""

    open: bool


Event = (
    Resolved
    | FoundNear
    | ProviderCalled
    | Refused
    | SemanticLooked
    | VerifierAsked
    | ShadowCompared
    | Unreadable
    | Evicted
    | MarksForgotten
    | LeaseEvent
    | BreakerChanged
)


class Observer(Protocol):
    """Anything that wants to see events. Called synchronously on the event loop: must be quick."""

    def on_event(self, event: Event, /) -> None:
        """Take note of one event."""


@dataclass(slots=True, kw_only=True)
class Stats:
    """Counts since the cache was made, in this process. `entries` and `stored_bytes` are the namespace's."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    leases: Counter[LeaseStep] = field(default_factory=Counter)
    semantic: Counter[str] = field(default_factory=Counter)
    """What came of looking for equivalent questions, by the words of `SemanticLooked`."""
    verifier: Counter[str] = field(default_factory=Counter)
    """"yes", "no" and "failed"."""
    shadow: Counter[str] = field(default_factory=Counter)
    """What semantic hits in the shadow would have been: "agreed", "differed", "unknown"."""
    spent_input_tokens: int = 0
    """Of the verifier, as far as it says: to be taken off what was saved."""
    spent_output_tokens: int = 0
    found_near: int = 0
    """Lookups that the near cache answered."""
    provider_calls: int = 0
    provider_failures: int = 0
    provider_seconds: float = 0.0
    saved_input_tokens: int = 0
    saved_output_tokens: int = 0
    saved_seconds: float = 0.0
    unreadable: int = 0
    evicted: int = 0
    breaker_openings: int = 0
    marks_forgotten: int = 0
    entries: int | None = None
    """None when the repository did not say."""
    stored_bytes: int | None = None

    @property
    def requests(self) -> int:
        """All calls that were answered."""
        return self.outcomes.total()

    @property
    def hit_rate(self) -> float:
        """The share of calls answered without a provider call of their own, from 0 to 1."""
        spared = sum(self.outcomes[o] for o in _SPARED)
        return spared / self.requests if self.requests else 0.0

    def __str__(self) -> str:
        by_outcome = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        lines = [
            f"{self.requests} requests ({by_outcome or 'none'}), hit rate {self.hit_rate:.1%}",
            f"{self.provider_calls} provider calls, {self.provider_failures} failed",
            f"saved {self.saved_input_tokens} input and {self.saved_output_tokens} output tokens",
            f"saved {self.saved_seconds:.1f} s of waiting",
        ]
        if self.spent_input_tokens or self.spent_output_tokens:
            spent = f"{self.spent_input_tokens} input and {self.spent_output_tokens} output tokens"
            lines.append(f"spent {spent} on the verifier, which those saved do not know of")
        counted = {"semantic": self.semantic, "verifier": self.verifier, "shadow": self.shadow}
        for name, counts in {**counted, "not stored": self.refusals}.items():
            if counts:
                lines += [f"{name}: " + ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))]
        if self.entries is not None:
            lines.append(f"{self.entries} entries, {self.stored_bytes} bytes")
        return "\n".join(lines)


_SPARED = (Outcome.HIT, Outcome.SEMANTIC_HIT, Outcome.STALE, Outcome.COALESCED)


_ANSWERS = {True: "yes", False: "no", None: "failed"}
_AGREEMENT = {True: "agreed", False: "differed", None: "unknown"}


class Telemetry:
    """Hands each event to the counters and to every observer."""

    def __init__(self, observers: Iterable[Observer] = ()) -> None:
        self.stats = Stats()
        self._observers = tuple(observers)
        self._complained = False

    def snapshot(self) -> Stats:
        """Return a copy of the counts."""
        return copy.deepcopy(self.stats)

    def emit(self, event: Event) -> None:
        """Count one event and pass it on. Never raises."""
        self._count(event)
        for observer in self._observers:
            try:
                observer.on_event(event)
            except Exception:  # noqa: BLE001 - a guest in the caller's request: whatever it raises
                self._complain_once(observer)

    def _complain_once(self, observer: Observer) -> None:
        if not self._complained:
            self._complained = True
            _log.warning(
                "an observer (%s) raised; its errors are ignored", type(observer).__name__, exc_info=True
            )

    def _count(self, event: Event) -> None:
        stats = self.stats
        match event:
            case Resolved():
                self._count_resolved(event)
            case FoundNear():
                stats.found_near += 1
            case ProviderCalled():
                stats.provider_calls += 1
                stats.provider_failures += event.failed
                stats.provider_seconds += event.seconds
            case Refused():
                stats.refusals[str(event.reason)] += 1
            case SemanticLooked():
                stats.semantic[event.result] += 1
            case VerifierAsked():
                stats.verifier[_ANSWERS[event.ok]] += 1
                if event.usage is not None:
                    stats.spent_input_tokens += event.usage.input_tokens
                    stats.spent_output_tokens += event.usage.output_tokens
            case ShadowCompared():
                stats.shadow[_AGREEMENT[event.agrees]] += 1
            case LeaseEvent():
                stats.leases[event.step] += 1
            case Evicted():
                stats.evicted += event.entries
            case MarksForgotten():
                stats.marks_forgotten += event.marks
            case Unreadable():
                stats.unreadable += 1
            case BreakerChanged():
                stats.breaker_openings += event.open

    def _count_resolved(self, event: Resolved) -> None:
        stats = self.stats
        stats.outcomes[event.outcome] += 1
        stats.saved_seconds += event.saved_seconds
        if event.saved is not None:
            stats.saved_input_tokens += event.saved.input_tokens
            stats.saved_output_tokens += event.saved.output_tokens
