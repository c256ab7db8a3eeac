"""Quantifiers: how many of something, and which side of a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.contrast import clash

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLASSES: Final = {
    "all": "all",
    "every": "all",
    "each": "all",
    "always": "all",
    "everyone": "all",
    "everybody": "all",
    "everything": "all",
    "whole": "whole",
    "entire": "whole",
    "complete": "whole",
    "full": "whole",
    "half": "half",
    "part": "part",
    "partial": "part",
    "any": "some",
    "some": "some",
    "somebody": "some",
    "someone": "some",
    "anyone": "some",
    "anybody": "some",
    "sometimes": "some",
    "most": "most",
    "mostly": "most",
    "many": "many",
    "often": "many",
    "much": "many",
    "few": "few",
    "little": "few",
    "only": "only",
    "solely": "only",
    "exclusively": "only",
    "also": "also",
    "both": "both",
    "either": "either",
}
_WORDS: Final = frozenset(
    [
        *_CLASSES,
        "least",
        "more",
        "less",
        "fewer",
        "up",
        "over",
        "under",
        "above",
        "below",
        "within",
        "maximum",
        "minimum",
        "one",
    ]
)
_CONFLICTS: Final = frozenset(
    frozenset(pair.split())
    for pair in (
        "all some",
        "all most",
        "all few",
        "all half",
        "whole half",
        "whole part",
        "most some",
        "most few",
        "many few",
        "only also",
        "above below",
        "both either",
        "most half",
        "all only",
    )
)


def quantifiers(words: Sequence[str], present: frozenset[str]) -> frozenset[str]:
    """Return the classes of quantifier: `all`, `some`, ..., `above` and `below` for bounds of a number."""
    if _WORDS.isdisjoint(present):
        return _NOTHING
    found = set()
    length = len(words)
    for position, word in enumerate(words):
        if word not in _WORDS:
            continue
        after = words[position + 1] if position + 1 < length else ""
        before = words[position - 1] if position else ""
        if before == "at" and word == "least":
            found.add("above")
        elif before == "at" and word == "most":
            found.add("below")
        elif after == "than" and word == "more":
            if _measure(words, position + 2):
                found.add("above")
        elif after == "than" and word in {"less", "fewer"}:
            if _measure(words, position + 2):
                found.add("below")
        elif word in {"over", "above"} and after[:1].isdigit():
            found.add("above")
        elif (word in {"under", "below", "within", "maximum"} and after[:1].isdigit()) or (
            word == "up" and after == "to"
        ):
            found.add("below")
        elif word == "one":
            if after == "of":
                found.add("some")
        elif before == "a" and word in {"few", "little"}:
            found.add("some")
        elif word in _COUNTED.get(before, _NOTHING):
            continue
        elif (name := _CLASSES.get(word)) is not None:
            found.add(name)
    return frozenset(found)


_NOTHING: Final[frozenset[str]] = frozenset()
# After these a word is no quantifier: "how many", "the most beautiful".
_COUNTED: Final = {"how": frozenset("many much often few little".split())} | dict.fromkeys(
    "the my your his her its our their what which".split(), frozenset(("most",))
)


def _measure(words: Sequence[str], at: int) -> bool:
    return at < len(words) and (words[at][0].isdigit() or words[at] in {"$", "half"})


def conflict(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether a quantifier of one text cannot stand where the other has one of its own."""
    return clash(one, other, _CONFLICTS)
