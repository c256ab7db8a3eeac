"""What of one call is compared by its meaning: its text, and the digest of what must be equal.

Taken when it is first asked for, once: the application may go on to change its request. Pure.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from llmcache_plugins.answers import Kind
from llmcache_plugins.errors import SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.semantic.question import Question, Skip, question_of
from llmcache_plugins.signature import Unsigned

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmcache_plugins.models import EncodedAnswer, SemanticMatch

__all__ = ["Alike", "Scoped"]

_NO_QUESTIONS = frozenset(
    {Kind.EMBEDDINGS, Kind.EMBEDDING, Kind.RERANK, Kind.TRANSCRIPTION, Kind.MESSAGE_EVENTS}
)


class Scoped(msgspec.Struct, frozen=True):
    """A text, and what must be equal for its answer to serve another."""

    text: str
    scope: str
    is_first_turn: bool


class _Read(msgspec.Struct, frozen=True):
    question: Question
    whole: CacheKey | Unsigned
    rest: CacheKey | Unsigned


class Sign(Protocol):
    """Gives a request a key, or what is still to be signed in a thread."""

    def __call__(self, request: Any, *, apart: bool = False) -> CacheKey | Unsigned:
        """With `apart` the key is that of no request."""


class Alike:
    """The question of one call. `whole` is its request with nothing left out.

    `sign` gives the key of a request; with `apart`, of one whose text was taken out.
    """

    def __init__(self, whole: Callable[[], Any], sign: Sign, *, kind: str) -> None:
        self._whole = whole
        self._sign = sign
        self._kind = kind
        self._read: _Read | Skip | None = None
        self._scoped: Scoped | Skip | None = None
        self.shadow: tuple[SemanticMatch, EncodedAnswer] | None = None
        """What would have been served."""

    def read(self) -> None:
        """Take what is needed of the request. Never raises."""
        if self._read is None:
            self._read = self._taken()

    async def scoped(self, own: CacheKey) -> Scoped | Skip:
        """Return the question of the call with this key, or why there is none."""
        if self._scoped is None:
            self.read()
            taken = self._read
            self._scoped = await _signed(taken, own) if isinstance(taken, _Read) else taken
        return self._scoped or Skip.NO_QUESTION

    def _taken(self) -> _Read | Skip:
        if self._kind in _NO_QUESTIONS:
            return Skip.NO_QUESTION
        try:
            whole = self._whole()
            question = question_of(whole, takes_input=self._kind != Kind.PLAIN)
            if isinstance(question, Skip):
                return question
            return _Read(question, self._sign(whole), self._sign(question.rest, apart=True))
        except Exception:  # noqa: BLE001 - a request that somebody has changed meanwhile: it is not compared
            return Skip.NO_QUESTION


async def _signed(read: _Read, own: CacheKey) -> Scoped | Skip:
    try:
        whole, rest = [
            key if isinstance(key, CacheKey) else await asyncio.to_thread(key.sign)
            for key in (read.whole, read.rest)
        ]
    except SignatureError:
        return Skip.NO_QUESTION
    if whole.digest != own.digest:
        # The application has gone on with its list of messages: this is another request by now.
        return Skip.NO_QUESTION
    return Scoped(read.question.text, rest.digest, read.question.is_first_turn)
