"""Little words that turn a sense round: before and after, for and against, my and this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.contrast import clash

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPPOSED: Final = frozenset(
    frozenset(pair.split())
    for pair in (
        "for against",
        "before after",
        "before since",
        "before within",
        "after within",
        "after during",
        "after until",
        "before during",
        "since until",
        "up down",
        "on off",
        "in out",
        "above below",
        "over under",
        "inside outside",
        "most least",
        "most fewest",
        "more less",
        "more fewer",
        "many few",
        "first last",
        "1st last",
        "last next",
        "previous next",
    )
)
_OWNERS: Final = frozenset(
    frozenset(pair.split())
    for pair in (
        "my your",
        "my this",
        "your this",
        "my his",
        "my her",
        "my their",
        "my our",
        "his her",
        "your their",
    )
)
_OPPOSED_WORDS: Final = frozenset[str]().union(*_OPPOSED)
OWNER_WORDS: Final = frozenset[str]().union(*_OWNERS)
_AGAIN: Final = " again"
_NOTHING: Final[frozenset[str]] = frozenset()


def opposable(words: Sequence[str], present: frozenset[str]) -> frozenset[str]:
    """Return the words that may be opposed; one that is there twice is in it twice, marked.

    "Zoom in in Maps" has an "in" more than "zoom out in Maps".
    """
    found = present & _OPPOSED_WORDS
    if not found:
        return _NOTHING
    return found.union([word + _AGAIN for word in found if words.count(word) > 1])


def opposed(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether an `opposable` word of one text and one that only the other has are opposites."""
    mine, yours = one - other, other - one
    if not (mine and yours):
        return False
    return clash(_unmarked(mine), _unmarked(yours), _OPPOSED)


def _unmarked(words: frozenset[str]) -> frozenset[str]:
    return frozenset([word.removesuffix(_AGAIN) for word in words])


def owners_differ(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether one text says my where the other says your."""
    return clash(one, other, _OWNERS)
