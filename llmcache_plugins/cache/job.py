"""What one call wants, and how it ended. Plain records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmcache_plugins.answers import AnswerCodec
    from llmcache_plugins.keys import CacheKey
    from llmcache_plugins.models import EncodedAnswer, Entry, Outcome

__all__ = ["Job", "Landing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request: its key, how to ask the provider, how to store what it says, for how many seconds."""

    key: CacheKey
    call: Callable[[], Awaitable[Any]]
    codec: AnswerCodec
    ttl: float


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
    is_void: bool = False
    """The key was invalidated during the flight: only its own caller may keep the answer."""
    judged_at: float = math.inf
    """When (the loop's clock) the server was last asked whether the answer is valid."""

    def serves(self, *, since: float) -> bool:
        """Say whether the answer may be given to a caller that began to wait at `since`.

        An invalidation may have been acknowledged after the server was asked and before that caller came.
        """
        return not self.is_void and since <= self.judged_at
