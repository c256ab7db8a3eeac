"""Texts of several sentences: what they share, and which words stand together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.stems import concept
from llmcache_plugins.semantic.guards.tokens import tokens_of
from llmcache_plugins.semantic.guards.words.function_words import FUNCTION_WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

# Not after "Rs." or "H."
_BETWEEN: Final = re.compile(r"(?:(?<=[a-z]{3}\.)|(?<=[A-Z]{2}\.)|(?<=[?!]))\s+")
_CLOSING: Final = " .?!"


def without_shared(one: str, other: str) -> tuple[bool, list[str], list[str]]:
    """Return whether two texts share sentences, and what else they have."""
    mine, yours = _BETWEEN.split(one.strip()), _BETWEEN.split(other.strip())
    shared = {_bare(sentence) for sentence in mine} & {_bare(sentence) for sentence in yours}
    if not shared:
        return False, mine, yours
    left, right = (
        [sentence for sentence in sentences if _bare(sentence) not in shared] for sentences in (mine, yours)
    )
    return True, left, right


def parted_otherwise(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether sentences have the same words, but not each the same: it passes here and fails there."""
    if len(one) < 2 or len(one) != len(other):
        return False
    mine, yours = ([_concepts(sentence) for sentence in sentences] for sentences in (one, other))
    if frozenset().union(*mine) != frozenset().union(*yours):
        return False
    return {*mine} != {*yours}


def _bare(sentence: str) -> str:
    return sentence.rstrip(_CLOSING).casefold()


def _concepts(sentence: str) -> frozenset[str]:
    words, _ = tokens_of(sentence)
    return frozenset(concept(word) for word in words if word[0].isalnum() and word not in FUNCTION_WORDS)
