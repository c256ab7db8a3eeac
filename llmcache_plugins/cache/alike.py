"""What of one call is compared by its meaning: its text, and the digest of what must be equal.

Taken when it is first asked for, once: the application may go on to change its request. Pure.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from llmcache_plugins.answers import Kind
from llmcache_plugins.errors import SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.semantic.question import Question, Skip, question_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.models import EncodedAnswer, SemanticMatch
    from llmcache_plugins.signature import Unsigned

__all__ = ["Alike", "Scoped"]

_NO_QUESTIONS = frozenset(
    {Kind.EMBEDDINGS, Kind.EMBEDDING, Kind.RERANK, Kind.TRANSCRIPTION, Kind.MESSAGE_EVENTS}
)


class Scoped(msgspec.Struct, frozen=True):
    """A text, and what must be equal for its answer to serve another."""

    text: str
    scope: str
    is_first_turn: bool


class Alike:
    """The question of one call. `whole` is its request with nothing left out, `sign` gives the key of one."""

    def __init__(
        self, whole: Callable[[], Any], sign: Callable[[Any], CacheKey | Unsigned], *, kind: str
    ) -> None:
        self._whole = whole
        self._sign = sign
        self._kind = kind
        self._read: tuple[Question, CacheKey | Unsigned] | Skip | None = None
        self._scoped: Scoped | None = None
        self.shadow: tuple[SemanticMatch, EncodedAnswer] | None = None
        """What would have been served."""

    def read(self) -> None:
        """Take what is needed of the request. Never raises."""
        if self._read is None:
            self._read = self._taken()

    async def scoped(self) -> Scoped | Skip:
        """Return the question, or why there is none."""
        if self._scoped is not None:
            return self._scoped
        self.read()
        if not isinstance(self._read, tuple):
            return self._read or Skip.NO_QUESTION
        question, key = self._read
        try:
            signed = key if isinstance(key, CacheKey) else await asyncio.to_thread(key.sign)
        except SignatureError:
            return Skip.NO_QUESTION
        self._scoped = Scoped(question.text, signed.digest, question.is_first_turn)
        return self._scoped

    def _taken(self) -> tuple[Question, CacheKey | Unsigned] | Skip:
        if self._kind in _NO_QUESTIONS:
            return Skip.NO_QUESTION
        try:
            question = question_of(self._whole())
            return question if isinstance(question, Skip) else (question, self._sign(question.rest))
        except Exception:  # noqa: BLE001 - a request that somebody has changed meanwhile: it is not compared
            return Skip.NO_QUESTION
