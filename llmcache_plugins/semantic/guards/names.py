"""Names: capitalised words, acronyms, countries and cities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.stems import concept, mistyped
from llmcache_plugins.semantic.guards.tokens import BREAK
from llmcache_plugins.semantic.guards.words.function_words import FUNCTION_WORDS
from llmcache_plugins.semantic.guards.words.places import PLACES
from llmcache_plugins.semantic.guards.words.times import DAYS, MONTHS

if TYPE_CHECKING:
    from collections.abc import Sequence

_PLACES: Final = frozenset(PLACES)
_TIMES: Final = frozenset(DAYS) | frozenset(MONTHS)
_NOTHING: Final[frozenset[str]] = frozenset()
# Above this share of capitalised words a text is a title, and a capital says nothing.
_TITLE: Final = 0.6
_LONGEST_ACRONYM: Final = 7
# More names than a question has are not looked up one by one among misspellings.
_MOST_NAMES: Final = 8


def names(words: Sequence[str], shown: Sequence[str], present: frozenset[str]) -> frozenset[str]:
    """Return the concepts that are written as names."""
    found = [PLACES[word] for word in present & _PLACES] if not _PLACES.isdisjoint(present) else []
    capitalised = [
        position
        for position, written in enumerate(shown)
        if written and written[0].isupper() and (len(written) > 1 or not written.isalpha())
    ]
    lower = sum(1 for written in shown if written.islower())
    if len(capitalised) > 3 and len(capitalised) > _TITLE * (len(capitalised) + lower):
        return frozenset(found)
    for position in capitalised:
        word, written = words[position], shown[position]
        if word in FUNCTION_WORDS or word in _TIMES or word[0].isdigit():
            continue
        if (position and words[position - 1] != BREAK) or (len(written) > 1 and not written[1:].islower()):
            found.append(concept(word))
    return frozenset(found) if found else _NOTHING


def missing(names_here: frozenset[str], there: frozenset[str], initials: str) -> list[str]:
    """Return the names that the other text lacks: as such, mistyped, or as an acronym or its words."""
    lacking = names_here - there
    if len(lacking) > _MOST_NAMES:
        return list(lacking)
    return [
        name
        for name in lacking
        if not (1 < len(name) <= _LONGEST_ACRONYM and name.replace(".", "") in initials)
        and not any(mistyped(name, word) for word in there)
    ]


def initials(words: Sequence[str]) -> str:
    """Return the first letters of all words, and of those that are no little words."""
    all_of_them = "".join([word[0] for word in words])
    return f"{all_of_them} {''.join([word[0] for word in words if word not in FUNCTION_WORDS])}"
