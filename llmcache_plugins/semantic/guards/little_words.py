"""Little words that turn a sense round: before and after, for and against, my and this."""

from __future__ import annotations

from typing import Final

_OPPOSED: Final = tuple(
    tuple(pair.split())
    for pair in (
        "for against",
        "before after",
        "up down",
        "on off",
        "in out",
        "above below",
        "over under",
        "inside outside",
        "most least",
        "more less",
        "more fewer",
        "many few",
        "first last",
        "1st last",
        "last next",
        "previous next",
    )
)
_OWNERS: Final = tuple(
    tuple(pair.split())
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
OPPOSED_WORDS: Final = frozenset(word for pair in _OPPOSED for word in pair)
OWNER_WORDS: Final = frozenset(word for pair in _OWNERS for word in pair)


def _parted(pairs: tuple[tuple[str, ...], ...], mine: frozenset[str], yours: frozenset[str]) -> bool:
    return any((one in mine and other in yours) or (other in mine and one in yours) for one, other in pairs)


def opposed(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether a little word of one text and one that only the other has are opposites."""
    mine, yours = one - other, other - one
    return bool(mine and yours) and _parted(_OPPOSED, mine, yours)


def owners_differ(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether one text says my where the other says your."""
    mine, yours = one - other, other - one
    return bool(mine and yours) and _parted(_OWNERS, mine, yours)
