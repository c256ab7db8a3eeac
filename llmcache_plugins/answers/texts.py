"""The visible text of a stored answer, of whatever kind: for those who compare what answers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from llmcache_plugins.models import EncodedAnswer

__all__ = ["text_length", "text_of", "tree_of"]

_HOLDERS = ("choices", "output", "message", "content", "text", "output_text")


def tree_of(encoded: EncodedAnswer) -> Any:
    """Return an answer as plain data; None for bytes that are not."""
    try:
        return msgspec.msgpack.decode(encoded.payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def text_of(encoded: EncodedAnswer) -> str:
    """Return what an answer says; empty for one that has no text."""
    return "\n".join(_texts(tree_of(encoded))).strip()


def _texts(value: Any, depth: int = 0) -> list[str]:
    if isinstance(value, str):
        return [value]
    if depth > 8:
        return []
    if isinstance(value, list):
        return [text for item in value for text in _texts(item, depth + 1)]
    if isinstance(value, dict):
        # The first of them that says something: a message has its text in one place.
        for name in _HOLDERS:
            if texts := _texts(value.get(name), depth + 1):
                return texts
    return []


def text_length(answer: Any) -> int:
    """Return how many characters an answer says, given as plain data."""
    return sum(map(len, _texts(answer)))
