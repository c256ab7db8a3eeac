"""The records between a log and what is reckoned from it. Plain data, and what a line can be instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from llmcache_plugins.answers import Kind
from llmcache_plugins.models import AnswerFacts

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LeftOut", "LoggedCall", "Unreadable", "kind_of"]


class LoggedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a log that was answered."""

    request: dict[str, Any] | str
    """The body that was sent to the provider, or a bare prompt."""
    kind: str
    """Which codec would store the answer: a part of the key."""
    at: float | None = None
    """When it was asked, unix seconds; None where the log does not say."""
    seconds: float | None = None
    """How long the provider took; None where the log does not say."""
    facts: AnswerFacts = AnswerFacts()
    """What is known of the answer."""
    cost: float | None = None
    """US dollars, where the log says what was paid."""
    answer_characters: int | None = None
    """Length of the answer's text, where the log has it."""
    size: int = 0
    """Bytes of its line."""


class LeftOut(msgspec.Struct, frozen=True):
    """A line that counts for nothing; `reason` is the name of a closed set."""

    reason: str


class Unreadable(Exception):
    """A line that is no call. The message says why, and never quotes it."""


_BY_PLACE = (
    ("embedding", Kind.EMBEDDINGS),
    ("chat", Kind.CHAT),
    ("response", Kind.RESPONSES),
    ("text_completion", Kind.COMPLETIONS),
    ("/completions", Kind.COMPLETIONS),
    ("completion", Kind.CHAT),
    ("anthropic_messages", Kind.MESSAGES),
    ("/messages", Kind.MESSAGES),
)
"""Parts of an endpoint's path, or of what LiteLLM calls a type of call."""


def kind_of(request: Mapping[str, Any] | str, *, endpoint: str = "") -> Kind:
    """Return how the answer to a request is stored. `endpoint` is its path, or LiteLLM's type of call."""
    if isinstance(request, str):
        return Kind.PLAIN
    if (named := next((kind for part, kind in _BY_PLACE if part in endpoint), None)) is not None:
        return named
    if "messages" in request:
        return Kind.CHAT
    if "input" in request:
        return Kind.EMBEDDINGS if "embed" in str(request.get("model", "")) else Kind.RESPONSES
    return Kind.COMPLETIONS if "prompt" in request else Kind.PLAIN
