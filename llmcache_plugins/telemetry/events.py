"""What happened, as frozen events.

No event carries a prompt, an answer, a key, a tenant or a namespace: every field is a number, a word from a
closed set, or the name of a model. Times are seconds, money is US dollars.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from llmcache_plugins.models import Outcome, Usage

__all__ = [
    "BreakerChanged",
    "Event",
    "Evicted",
    "Face",
    "FoundNear",
    "LeaseEvent",
    "LeaseStep",
    "MarksForgotten",
    "Measured",
    "Missed",
    "ProviderCalled",
    "Purpose",
    "Refused",
    "Resolved",
    "SemanticLooked",
    "ShadowCompared",
    "Spent",
    "Unreadable",
    "VerifierAsked",
]


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
    TAKEN_OVER = "taken_over"
    """A follower leads now: the leader failed, was killed, or brought what cannot be shared."""
    LOST = "lost"
    TIMED_OUT = "timed_out"
    TOLD = "told"
    """Another process said what error the provider had given it."""


class Purpose(enum.StrEnum):
    """For what the cache itself has spent tokens: to be taken off what it saved."""

    REFRESH = "refresh"
    """A call that no caller waited for: its caller had the stored answer."""
    VERIFIER = "verifier"
    EMBEDDING = "embedding"


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A call was answered."""

    outcome: Outcome
    face: Face
    seconds: float
    """Until the answer was there: of a stream, its first chunk."""
    model: str | None = None
    """That was asked, or that answered where the request names none."""
    saved: Usage | None = None
    saved_cost: float | None = None
    """None when nothing was saved, or what it would have cost is not known."""
    saved_seconds: float = 0.0


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """The server had no answer, and took so long to say it."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderCalled:
    """The provider was called; `seconds` until it answered, failed or was cancelled."""

    seconds: float
    failed: bool
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """The cache has spent tokens of its own; `cost` is None when their price is not known."""

    purpose: Purpose
    usage: Usage
    model: str | None = None
    cost: float | None = None


class FoundNear(msgspec.Struct, frozen=True):
    """An entry was at hand in the near cache: the server was not asked."""


class SemanticLooked(msgspec.Struct, frozen=True, kw_only=True):
    """An equivalent question was looked for, or why not; `seconds` it took.

    `result` is "hit", "shadow" (would have been one), "none", "not_kept" (a question that could not be laid
    beside its answer), or a word of `semantic.question.Skip`. `vetoes` are the guards that kept back a
    question which was near enough.
    """

    result: str
    similarity: float | None
    seconds: float
    vetoes: tuple[str, ...] = ()


class VerifierAsked(msgspec.Struct, frozen=True, kw_only=True):
    """The verifier of the semantic layer was asked; `ok` is None when it failed."""

    seconds: float
    ok: bool | None

    @property
    def verdict(self) -> str:
        """In a word: yes, no, failed."""
        return "failed" if self.ok is None else "yes" if self.ok else "no"


class ShadowCompared(msgspec.Struct, frozen=True, kw_only=True):
    """What the shadow would have served beside what the provider said; None: could not be compared."""

    agrees: bool | None
    similarity: float

    @property
    def agreement(self) -> str:
        """In a word: agreed, differed, unknown."""
        return "unknown" if self.agrees is None else "agreed" if self.agrees else "differed"


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
class Measured:
    """How much a namespace holds, as its books say: upper bounds.

    `place` tells one namespace from another in this process, and says nothing else of it.
    """

    place: int
    entries: int
    stored_bytes: int


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
    | Missed
    | FoundNear
    | ProviderCalled
    | Spent
    | Refused
    | SemanticLooked
    | VerifierAsked
    | ShadowCompared
    | Unreadable
    | Evicted
    | MarksForgotten
    | Measured
    | LeaseEvent
    | BreakerChanged
)
