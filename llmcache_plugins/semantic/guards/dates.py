"""Dates and times in words: months, days, seasons, parts of the day, last and next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.words.times import (
    DAYS,
    DOUBTFUL,
    ERAS,
    FEASTS,
    MONTHS,
    NOW,
    PARTS,
    PERIODS,
    POINTERS,
    RELATIVE,
    SEASONS,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES: Final = MONTHS | DAYS | SEASONS | PARTS | RELATIVE | {feast: feast for feast in FEASTS}
_WORDS: Final = frozenset(_NAMES) | frozenset(POINTERS) | ERAS
_OF_TIME: Final = frozenset(
    "in of by since until till during on before after from to every next last this".split()
)
NOTHING: Final[frozenset[str]] = frozenset()


def dates(words: Sequence[str], shown: Sequence[str], present: frozenset[str]) -> frozenset[str]:
    """Return the times that are named: `march`, `friday`, `last week`, `am`, ..."""
    if _WORDS.isdisjoint(present):
        return NOTHING
    found = set()
    length = len(words)
    for position, word in enumerate(words):
        if word not in _WORDS:
            continue
        after = words[position + 1] if position + 1 < length else ""
        before = words[position - 1] if position else ""
        beside_number = before[:1].isdigit() or after[:1].isdigit()
        if word in DOUBTFUL:
            if beside_number or (before in _OF_TIME and shown[position][:1].isupper()):
                found.add(MONTHS.get(word, word))
        elif word == "spring" and not (before in _OF_TIME or before == "the"):
            continue
        elif word in {"am", "a.m"}:
            if before[:1].isdigit():
                found.add("am")
        elif word in ERAS:
            if beside_number and shown[position].isupper():
                found.add(word)
        elif (pointer := POINTERS.get(word)) is not None:
            period = after.removesuffix("s")
            if (name := PERIODS.get(period)) or (name := _NAMES.get(after)):
                found.add(f"{pointer} {name}")
        else:
            found.add(_NAMES[word])
    return frozenset(found)


def differ(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether the texts speak of different times; one that only says "now" differs from no other."""
    if one == other:
        return False
    mine, yours = one - other, other - one
    if mine and yours:
        return True
    return not (mine or yours) <= NOW
