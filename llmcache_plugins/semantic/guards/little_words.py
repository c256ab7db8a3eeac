"""Little words that turn a sense round: before and after, for and against, my and this."""

from __future__ import annotations

from typing import Final

from llmcache_plugins.semantic.guards.contrast import clash

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
OPPOSED_WORDS: Final = frozenset[str]().union(*_OPPOSED)
OWNER_WORDS: Final = frozenset[str]().union(*_OWNERS)


def opposed(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether a little word of one text and one that only the other has are opposites."""
    return clash(one, other, _OPPOSED)


def owners_differ(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether one text says my where the other says your."""
    return clash(one, other, _OWNERS)
