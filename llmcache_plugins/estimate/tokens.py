"""Tokens from the length of texts, where a log has no usage: a guess, and only where it was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmcache_plugins.errors import SignatureError
from llmcache_plugins.models import Usage
from llmcache_plugins.signature import CacheSignatureEngine

if TYPE_CHECKING:
    from llmcache_plugins.estimate.calls import LoggedCall

__all__ = ["CHARACTERS_PER_TOKEN", "guessed_usage"]

CHARACTERS_PER_TOKEN = 4
"""Of English text: what OpenAI's documentation says of its tokenizers."""

_ENGINE = CacheSignatureEngine()


def guessed_usage(call: LoggedCall) -> Usage:
    """Return the tokens of a call by the length of what it says; no output where the answer is not known."""
    try:
        _, texts = _ENGINE.taken_apart(call.request)
    except SignatureError:
        texts = {}
    said = sum(map(len, texts.values()))
    return Usage(input_tokens=_tokens(said), output_tokens=_tokens(call.answer_characters or 0))


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
