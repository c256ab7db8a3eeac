"""Whether words exclude each other: opposites, different things of one kind, pairs that somebody lists."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from llmcache_plugins.semantic.guards.stems import concept, concept_of_stem
from llmcache_plugins.semantic.guards.words.kinds import KINDS
from llmcache_plugins.semantic.guards.words.opposites import ONLY_LOOK_PREFIXED, PAIRS, PREFIXES


def _opposites() -> dict[str, frozenset[str]]:
    table: dict[str, set[str]] = {}
    for row in PAIRS.strip().splitlines():
        left, right = ({concept(word) for word in side.split()} for side in row.split("/"))
        for one, others in ((left, right), (right, left)):
            for word in one:
                table.setdefault(word, set()).update(others - {word})
    return {word: frozenset(others) for word, others in table.items() if others}


def _kinds() -> dict[str, frozenset[int]]:
    table: dict[str, set[int]] = {}
    for number, row in enumerate(KINDS.strip().splitlines()):
        for member in row.partition(":")[2].split(","):
            for word in member.strip().split("="):
                table.setdefault(concept(word), set()).add(number)
    return {word: frozenset(numbers) for word, numbers in table.items()}


def _same_of_a_kind() -> frozenset[frozenset[str]]:
    same: set[frozenset[str]] = set()
    for row in KINDS.strip().splitlines():
        for member in row.partition(":")[2].split(","):
            words = [concept(word) for word in member.strip().split("=")]
            same.update(frozenset((one, other)) for one in words for other in words if one != other)
    return frozenset(same)


OPPOSITES: Final = _opposites()
_KINDS: Final = _kinds()
_SAME: Final = _same_of_a_kind()
_PREFIXES: Final = sorted(PREFIXES, key=len, reverse=True)


def lacking(one: str, other: str) -> bool:
    """Whether the ending -less makes one concept the opposite of the other."""
    if other.endswith("less"):
        one, other = other, one
    return one.endswith("less") and len(other) > 3 and other.removesuffix("ful") == one[:-4]


@lru_cache(maxsize=8192)
def unprefixed(word: str, /) -> str | None:
    """Return what a concept says no to by its prefix: "succeed" for "unsuccessful"; None without a prefix."""
    if word in ONLY_LOOK_PREFIXED:
        return None
    for prefix in _PREFIXES:
        if word.startswith(prefix) and len(word) >= len(prefix) + 4:
            return concept_of_stem(word[len(prefix) :])
    return None


def clash(one: frozenset[str], other: frozenset[str], pairs: frozenset[frozenset[str]]) -> bool:
    """Whether a word that only one text has and one that only the other has are one of the pairs."""
    if not (one and other):
        return False
    mine, yours = one - other, other - one
    if not (mine and yours):
        return False
    return any(frozenset((left, right)) in pairs for left in mine for right in yours)


def of_one_kind(one: str, other: str) -> bool:
    """Whether two concepts are different things of one kind, such as two colours."""
    kinds = _KINDS.get(one)
    if kinds is None:
        return False
    others = _KINDS.get(other)
    return others is not None and not kinds.isdisjoint(others) and frozenset((one, other)) not in _SAME
