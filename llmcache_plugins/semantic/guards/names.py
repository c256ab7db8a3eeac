"""Names: capitalised words, acronyms, countries and cities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from llmcache_plugins.semantic.guards.stems import akin, concept, has_synonyms, mistyped, stem
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


class Names(NamedTuple):
    """Words that are written as names.

    `concepts` are what they stand for; `with_synonyms` the words of which a synonym would be another name:
    a university is a college, but Boston University is not Boston College; `initials` the letters of George
    H. W. Bush that make him another than George W. Bush.
    """

    concepts: frozenset[str]
    with_synonyms: frozenset[str]
    initials: frozenset[str]


def names(words: Sequence[str], shown: Sequence[str], present: frozenset[str]) -> Names:
    """Return the words that are written as names."""
    found = [PLACES[word] for word in present & _PLACES] if not _PLACES.isdisjoint(present) else []
    capitalised = [
        position
        for position, written in enumerate(shown)
        if written and written[0].isupper() and (len(written) > 1 or not written.isalpha())
    ]
    if len(capitalised) > 3:
        lower = sum(map(str.islower, shown))
        if len(capitalised) > _TITLE * (len(capitalised) + lower):
            return Names(frozenset(found), _NOTHING, _NOTHING)
    with_synonyms = []
    for position in capitalised:
        word, written = words[position], shown[position]
        if word in FUNCTION_WORDS or word in _TIMES or word[0].isdigit():
            continue
        if (position and words[position - 1] != BREAK) or (len(written) > 1 and not written[1:].islower()):
            found.append(concept(word))
            if has_synonyms(word):
                with_synonyms.append(word)
    if not found:
        return _NONE
    return Names(
        frozenset(found),
        frozenset(with_synonyms) if with_synonyms else _NOTHING,
        _initials_in(words, shown) if BREAK in present else _NOTHING,
    )


_NONE: Final = Names(_NOTHING, _NOTHING, _NOTHING)


def _initials_in(words: Sequence[str], shown: Sequence[str]) -> frozenset[str]:
    """Return the single letters with a full stop between the words of a name."""
    found = [
        words[place]
        for place in range(1, len(words) - 2)
        if len(shown[place]) == 1
        and shown[place].isupper()
        and words[place + 1] == BREAK
        and shown[place + 2][:1].isupper()
        and words[place + 2] not in FUNCTION_WORDS
        and (words[place - 1] == BREAK or shown[place - 1][:1].isupper())
    ]
    return frozenset(found) if found else _NOTHING


def missing(names_here: frozenset[str], there: frozenset[str], text: str) -> list[str]:
    """Return the names that the other text lacks: as such, mistyped, or as an acronym or its words.

    `there` are its concepts, `text` is its canonical form.
    """
    lacking = names_here - there
    if not lacking:
        return []
    if len(lacking) > _MOST_NAMES:
        return list(lacking)
    initials = _initials(text.split())
    return [
        name
        for name in lacking
        if not (1 < len(name) <= _LONGEST_ACRONYM and name.replace(".", "") in initials)
        and not any(mistyped(name, word) for word in there if word[0] == name[0] or word[-1] == name[-1])
    ]


def renamed(here: Names, there: Names) -> bool:
    """Whether a name has other initials, or a word of it has been exchanged for a synonym."""
    if here.initials != there.initials and here.initials and there.initials:
        return True
    if not (here.with_synonyms and there.with_synonyms):
        return False
    mine, yours = here.with_synonyms - there.with_synonyms, there.with_synonyms - here.with_synonyms
    return any(
        concept(one) == concept(other) and stem(one) != stem(other) and not akin(one, other)
        for one in mine
        for other in yours
    )


def _initials(words: Sequence[str]) -> str:
    """Return the first letters of all words, and of those that are no little words."""
    all_of_them = "".join([word[0] for word in words])
    return f"{all_of_them} {''.join([word[0] for word in words if word not in FUNCTION_WORDS])}"
