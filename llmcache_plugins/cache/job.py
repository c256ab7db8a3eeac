"""What one call wants, and how it ended. Plain records."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import msgspec

from llmcache_plugins.answers import AnswerCodec, StreamCodec
from llmcache_plugins.budget import Budget
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.models import Mode, Provenance
from llmcache_plugins.policy import CachePolicy

if TYPE_CHECKING:
    from collections.abc import Hashable

    from llmcache_plugins.cache.alike import Alike  # noqa: TC004 - it imports numpy
    from llmcache_plugins.cache_status import Forward
    from llmcache_plugins.models import EncodedAnswer, Entry, Outcome, SemanticMatch
    from llmcache_plugins.repository import Ask

__all__ = ["Asked", "CallJob", "FlightKey", "Glance", "Job", "Landing", "StreamJob", "flight_key"]

FlightKey = tuple["CacheKey", "Hashable"]

_ASKS: dict[Mode, Ask] = {Mode.READ_ONLY: "follow", Mode.REFRESH: "fence"}


class Glance(msgspec.Struct, kw_only=True):
    """What a look before the flight has shown: the fence of what cannot be used, or why nothing was seen."""

    budget: Budget
    seen: str = ""
    error: Exception | None = None
    is_used: bool = False


class Asked(msgspec.Struct, frozen=True):
    """What was asked, for those few calls that need more of it than its key."""

    show: Callable[[], Any]
    scope: Mapping[str, object] | None
    policy: CachePolicy
    leaves_of: Callable[[Callable[[], Any], Mapping[str, object] | None, CachePolicy], bytes]
    alike: Alike | None = None
    """Its question, where equivalent ones may share its answer."""

    def leaves(self) -> bytes:
        """Return the fingerprints of the request's leaves."""
        return self.leaves_of(self.show, self.scope, self.policy)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One request: its key, how its answer is stored, for how many seconds, what it may do."""

    key: CacheKey
    codec: AnswerCodec
    policy: CachePolicy
    ttl: float
    asked: Asked
    mode: Mode = Mode.DEFAULT
    is_refresh: bool = False
    """Whether an answer is there, and only another is to be brought: by one, and nobody waits."""
    provenance: Provenance = Provenance()
    max_age: float | None = None
    """Seconds; an older entry is none for this request."""
    glance: Glance | None = None

    @property
    def share(self) -> Hashable:
        """What calls of one key must have in common to share a flight.

        Others' answers may be too old for one who says how old they may be.
        """
        window = self.policy.stale_while_revalidate
        return Mode.DEFAULT if self.max_age is None and not window else (Mode.DEFAULT, self.max_age, window)

    def take_glance(self) -> Glance | None:
        """Return what was seen, once: a second flight of the same call looks for itself."""
        if self.glance is None or self.glance.is_used:
            return None
        self.glance.is_used = True
        return self.glance

    def read(self, encoded: EncodedAnswer) -> Any:
        """Return what was stored as this request wants it. Raises `CorruptEntry`."""
        return self.codec.decode(encoded)

    def calling(self, call: Callable[[], Awaitable[Any]]) -> CallJob:
        """Return the same request, with a way to ask the provider."""
        return CallJob(**msgspec.structs.asdict(self), call=call)

    def following(self, codec: StreamCodec, *, budget: Budget) -> StreamJob:
        """Return the same request for one who reads the chunks that somebody else gives out."""
        known = msgspec.structs.asdict(self)
        known |= {"codec": codec, "mode": Mode.READ_ONLY, "glance": Glance(budget=budget)}
        return StreamJob(**known, query=self.asked.show(), open=_nothing)

    def refreshing(self, seen: str, *, budget: Budget) -> Self:
        """Return the same request for one who replaces the entry of the fence `seen`."""
        glance = Glance(budget=budget, seen=seen)
        return msgspec.structs.replace(self, is_refresh=True, glance=glance)

    @property
    def kept_for(self) -> float:
        """Seconds for which the server keeps its answer."""
        return self.ttl + self.policy.stale_for

    @property
    def is_not_stored(self) -> bool:
        """Whether it only reads, and neither leads nor joins a flight."""
        return self.ttl <= 0 and self.mode is not Mode.READ_ONLY

    @property
    def fwd(self) -> Forward:
        """Why the provider is asked, when it is.

        Who wants another answer does not look, and nobody keeps count of what was only too old for one call.
        """
        if self.mode is Mode.REFRESH:
            return "request"
        return "uri-miss" if self.max_age is None else "miss"

    @property
    def ask_for(self) -> Ask:
        """How it asks for a lease."""
        if self.is_refresh:
            return "refresh"
        ask = _ASKS.get(self.mode, "lead")
        return "fence" if ask == "lead" and not self.policy.coalesce else ask


class CallJob(Job, frozen=True, kw_only=True):
    """A request for an answer; `call` asks the provider."""

    call: Callable[[], Awaitable[Any]]
    again: Callable[[], Awaitable[Any]] | None = None
    """Asks for a refresh, where that is another call."""

    def refreshing(self, seen: str, *, budget: Budget) -> Self:
        """Return the same request for one who replaces the entry of the fence `seen`."""
        refreshing = super().refreshing(seen, budget=budget)
        return msgspec.structs.replace(refreshing, call=self.again or self.call)


class StreamJob(Job, frozen=True, kw_only=True):
    """A request for a stream; `open` asks the provider."""

    codec: StreamCodec
    query: Any
    open: Callable[[], AsyncGenerator[Any, None]]

    def read(self, encoded: EncodedAnswer) -> list[Any]:
        """Return the answer in chunks."""
        return list(self.codec.split(encoded, query=self.query))


def _nothing() -> AsyncGenerator[Any, None]:
    raise NotImplementedError("who only reads opens no stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """How a flight ended.

    `answer` is for the caller that started it; the others decode `encoded` afresh, so that what one does
    to its answer reaches no other. Without `encoded` no codec could store the answer, and all share it.
    """

    outcome: Outcome
    answer: Any
    encoded: EncodedAnswer | None
    entry: Entry | None = None
    """What lies in the repository now, if anything does."""
    refusal: str = ""
    match: SemanticMatch | None = None
    """Whose answer it is, of a semantic hit."""
    is_void: bool = False
    """The key was invalidated during the flight: only its own caller may keep the answer."""
    judged_at: float = math.inf
    """When (the loop's clock) the server was last asked whether the answer is valid."""

    def serves(self, *, since: float) -> bool:
        """Say whether the answer may be given to a caller that began to wait at `since`.

        An invalidation may have been acknowledged after the server was asked and before that caller came.
        """
        return not self.is_void and since <= self.judged_at


def flight_key(job: Job, is_under_way: Callable[[FlightKey], bool]) -> FlightKey:
    """Return which flight a request joins or starts.

    One that must not call joins those that do, but they must not join the one that it starts.
    """
    if job.mode is Mode.READ_ONLY and not is_under_way((job.key, job.share)):
        return job.key, Mode.READ_ONLY
    return job.key, job.share
