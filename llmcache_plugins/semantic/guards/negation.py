"""Negation: how many words of a text turn its sense round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.tokens import BREAK, COMMA, FREE_OF

if TYPE_CHECKING:
    from collections.abc import Sequence

NEGATORS: Final = frozenset(
    f"""
    not no never none nobody nothing nowhere neither nor without cannot hardly barely scarcely rarely seldom
    unable avoid avoids avoiding avoided refuse refuses refused except excluding lack lacks lacking non
    {FREE_OF}
    """.split()
)
# "Isn't it true that" asks what "Is it true that" asks.
_VERBS: Final = frozenset(
    "is are was were do does did have has had can could will would shall should must might am".split()
)


def negators(words: Sequence[str], present: frozenset[str]) -> int:
    """Return how many negators count: not those of "isn't it ...?", "or not", "not only"."""
    if NEGATORS.isdisjoint(present):
        return 0
    count = 0
    length = len(words)
    for position, word in enumerate(words):
        if word not in NEGATORS:
            continue
        after = words[position + 1] if position + 1 < length else BREAK
        before = words[position - 1] if position else BREAK
        if word == "not":
            if after == BREAK and (before == "or" or (before == "why" and words[position - 2] == "or")):
                continue
            if after == "only":
                continue
            if before in _VERBS and (position < 2 or words[position - 2] in _OPENING):
                continue
            if after in {"never", "no", "mind"}:
                continue
        elif word == "no" and (before in {"/", "or"} or (before == BREAK and after in {COMMA, BREAK})):
            continue  # "yes or no", "No, ..."
        count += 1
    return count


_OPENING: Final = frozenset((BREAK, ",", "and", "but", "so"))
