"""The records that travel between the floors. Plain data: no I/O, no decisions.

Those that are stored, and those that every hit makes, are msgspec's: they are made in a fifth of the time.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from llmcache_plugins.keys import CacheKey

__all__ = [
    "UNKNOWN",
    "Absent",
    "AnswerFacts",
    "Batch",
    "Commit",
    "EncodedAnswer",
    "Entry",
    "FailureReport",
    "Found",
    "Invalidation",
    "Lease",
    "Mode",
    "Outcome",
    "Provenance",
    "Record",
    "RecordKind",
    "Resolution",
    "SemanticMatch",
    "SharedFailure",
    "Size",
    "Tail",
    "Usage",
    "VectorMatch",
    "VectorPage",
    "VectorRow",
    "Wait",
    "WriteStatus",
]


class Outcome(enum.StrEnum):
    """How a call was answered. An outage and a miss are different things."""

    HIT = "hit"
    """The stored answer."""
    SEMANTIC_HIT = "semantic_hit"
    """The stored answer of an equivalent request."""
    STALE = "stale"
    """A stored answer past its freshness, while a refresh is under way."""
    COALESCED = "coalesced"
    """The answer of an identical call that was already running."""
    MISS = "miss"
    """The provider was called."""
    BYPASS = "bypass"
    """The provider was called; the cache was not asked."""
    UNAVAILABLE = "unavailable"
    """The repository did not answer; the provider did."""

    @property
    def is_stored(self) -> bool:
        """Whether what was returned came out of the cache."""
        return self in _STORED

    @property
    def is_spared(self) -> bool:
        """Whether the caller got its answer without a provider call of its own."""
        return self in _SPARED


# Looked up here, for every hit asks: members of an enum are found by way of Python.
_STORED = frozenset((Outcome.HIT, Outcome.SEMANTIC_HIT, Outcome.STALE))
_SPARED = _STORED | {Outcome.COALESCED}


class Mode(enum.StrEnum):
    """What one call may do with the cache."""

    DEFAULT = "default"
    """Read, call the provider for what is not there, store."""
    REFRESH = "refresh"
    """Call the provider and replace what is stored."""
    READ_ONLY = "read_only"
    """Read, or wait for a call that is under way; never call the provider."""
    OFF = "off"
    """Call the provider; the cache is not asked."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens a provider billed for one answer."""

    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


class AnswerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What admission and accounting want to know of an answer.

    All empty for an answer whose shape is not understood: such an answer is admitted and its tokens are
    unknown, never zero.
    """

    model: str | None = None
    """The model that answered."""
    usage: Usage | None = None
    finish_reasons: tuple[str, ...] = ()
    """The finish reasons that are present, as the provider spelled them."""
    empty_of_choices: bool = False
    """The answer has the shape of one and holds none."""
    unfinished: bool = False
    """A stream that ended without saying so."""


class EncodedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as bytes, and what is known of it."""

    kind: str
    """Which codec reads the payload; part of the cache key."""
    payload: bytes
    facts: AnswerFacts = AnswerFacts()


class Provenance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an answer was made from: an invalidation may name each of it."""

    model: str | None = None
    """The model that was asked, as the request spells it."""
    tags: tuple[str, ...] = ()
    """What the caller says of it: documents, versions of data."""


UNKNOWN = Provenance()
"""Of an answer nobody has said anything about."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the repository keeps for one key. Times are unix seconds on the writer's clock."""

    answer: EncodedAnswer
    created: float
    """When the provider had answered."""
    fresh_until: float
    provider_seconds: float = 0.0
    """How long the provider took: what a hit saves."""
    stale_for: float = 0.0
    """Seconds for which it is kept after it was fresh."""
    provenance: Provenance = UNKNOWN
    leaves: bytes = b""
    """Fingerprints of the request's leaves, to say later in what another differs: see `signature.leaves`."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A valid entry, as one read found it."""

    entry: Entry
    fence: str
    stored_bytes: int


class Absent(msgspec.Struct, frozen=True, kw_only=True):
    """No valid entry. `seen` is the fence of one that was read and could not be used."""

    seen: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to store the answer of one key, and usually to be the only one who fetches it.

    `token` names the owner, `fence` orders it among all writers of the key, `birth` ties it to the marks
    it was taken under. Fence and birth are 16 digits: microseconds on the server's clock.
    """

    token: str
    fence: str
    birth: str
    is_held: bool = True
    """False for a fence without the lease: others may fetch the answer at the same time."""
    provenance: Provenance = UNKNOWN
    """What the answer will be made from: whoever invalidates that voids the flight as well."""

    def backdated(self, seconds: float) -> Lease:
        """Return this lease as if taken `seconds` earlier.

        For a lease that arrived after the provider was called: an invalidation in between must void it.
        """
        fence = max(int(self.fence) - round(seconds * 1_000_000), 0)
        return replace(self, fence=f"{fence:016d}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Somebody else has the lease; it ends in `seconds` unless it is renewed.

    `time` is the server's (16 digits), `fence` the other's, `batches` the chunks of its stream so far.
    """

    seconds: float
    time: str
    fence: str
    batches: tuple[Batch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some chunks of a stream under way; `last` is the number of the last one, counted from 1."""

    last: int
    data: bytes
    is_end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What was added to a stream under way. Not `is_there`: its chunks are gone, or have never been."""

    is_there: bool
    batches: tuple[Batch, ...] = ()


class FailureReport(msgspec.Struct, frozen=True, kw_only=True):
    """What may be told of a provider's error: nothing of what it said."""

    status: int | None = None
    retry_after: float | None = None
    """Seconds, as the provider asked."""
    error_class: str = ""


_NOTHING_TOLD = FailureReport()


class RecordKind(enum.StrEnum):
    """What a flight without an answer to share means for those who wait. See `repository/lua/common.lua`."""

    RATE_LIMITED = "R"
    REFUSED = "S"
    PASSING = "E"
    OWN = "D"
    UNSHARED = "U"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a flight leaves to those who wait; `seconds` is for how long."""

    kind: RecordKind
    seconds: float
    report: FailureReport = _NOTHING_TOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFailure:
    """The provider's error to another process, `age` seconds ago."""

    report: FailureReport
    age: float


class WriteStatus(enum.StrEnum):
    """What became of a write."""

    OK = "OK"
    SUPERSEDED = "SUPERSEDED"
    """A newer answer was there."""
    INVALIDATED = "INVALIDATED"
    """The key was invalidated after the flight began."""
    FORGOTTEN = "FORGOTTEN"
    """The server has lost what would tell whether the key was invalidated."""
    TOO_BIG = "TOO_BIG"
    """It alone would exceed a bound."""
    ERR = "ERR"
    """The server refused, for lack of memory for instance."""
    NOT_WANTED = "NOT_WANTED"
    """The TTL was 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The outcome of a write; `detail` is the server's word for ERR."""

    status: WriteStatus
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalidation:
    """What an invalidation did. No process serves what it named any more."""

    entries: int
    """Entries that were removed at once: those of named requests. Others are when they are next met."""
    forgotten: int = 0
    """Marks of earlier invalidations that made room: everything older than they is a miss now."""
    replicas: int | None = None
    """The fewest replicas of any node that have acknowledged; None if that was not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Entries and bytes of a namespace, upper bounds."""

    entries: int
    stored_bytes: int


class SemanticMatch(msgspec.Struct, frozen=True, kw_only=True):
    """The stored question whose answer was given to another. Its `repr` shows neither."""

    key: CacheKey
    """Of the request whose answer it is."""
    similarity: float
    """Cosine, less what the guards take off; 1 where the texts are the same but for their form."""
    passed: tuple[str, ...] = ()
    """The checks that had nothing against it: names of guards, "same_text", "verifier"."""
    asked: str = ""
    stored: str = ""

    def __repr__(self) -> str:
        return f"SemanticMatch(key={self.key!s}, similarity={self.similarity:.3f}, passed={self.passed})"


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """An answer and how it came about."""

    answer: Any
    """What the provider returned, or an equal of it."""
    outcome: Outcome
    key: CacheKey | None
    """None when the request has no canonical form."""
    model: str | None = None
    """The model that answered, if the answer says so."""
    usage: Usage | None = None
    """Tokens of the answer, whoever has paid for them; None when that is not known."""
    age: float = 0.0
    """Seconds since the provider produced the answer; 0 for a fresh one."""
    tokens_saved: Usage | None = None
    """Tokens this call did not pay for; None when nothing was saved or the usage is unknown."""
    seconds_saved: float = 0.0
    """How long the provider had taken for an answer that is now a hit."""
    cache_status: str = ""
    """The value of an RFC 9211 `Cache-Status` header, without the key."""
    match: SemanticMatch | None = None
    """Of a semantic hit: whose answer it is, and what was checked."""

    @property
    def similarity(self) -> float | None:
        """How near a semantic hit's question is to the one asked; None for any other answer."""
        return None if self.match is None else self.match.similarity

    @property
    def headers(self) -> dict[str, str]:
        """What a web service says of this answer: `Cache-Status`, and `Age` (RFC 9111) of a stored one."""
        said = {"Cache-Status": self.cache_status}
        if self.outcome.is_stored:
            said["Age"] = str(int(self.age))
        return said

    def cache_status_with(self, *, key: bool) -> str:
        """Return `cache_status`, with `key` naming the cache's key, if there is one.

        For who may see it: a key without a `secret` tells who can guess a prompt that he has guessed right.
        """
        return f'{self.cache_status}; key="{self.key}"' if key and self.key is not None else self.cache_status


class VectorRow(msgspec.Struct, frozen=True, kw_only=True):
    """The vector of one question, as it lies beside its answer."""

    digest: str
    """Of the request whose answer it leads to."""
    scope: str
    """Only questions of one scope may be compared: 64 hexadecimal digits."""
    text: str
    canonical: str
    """Digest of the canonical text."""
    vector: bytes
    """float32, little-endian."""
    seconds: float
    """How much longer it lives."""


class VectorPage(msgspec.Struct, frozen=True, kw_only=True):
    """Vectors that were attached since somebody looked."""

    rows: tuple[VectorRow, ...]
    since: tuple[int, ...]
    """Where to go on, opaque to who reads."""
    is_last: bool
    mentioned: int
    """How many questions have vectors, of whichever embedder; some may have expired."""


class VectorMatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a search of the server's found; `distance` is 1 minus the cosine."""

    digest: str
    distance: float
    text: str
