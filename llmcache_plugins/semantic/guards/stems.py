"""A word to what it means, roughly: inflection off, synonyms folded.

Good for asking whether two texts speak of the same things; never for saying that two texts are equal.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from llmcache_plugins.semantic.guards.words.irregular import BASES, PLURALS
from llmcache_plugins.semantic.guards.words.places import NAMES_OF_PLACES, PLACES
from llmcache_plugins.semantic.guards.words.synonyms import FORMS, SYNONYMS

_VOWELS: Final = frozenset("aeiouy")
# Longer than any English word: not taken apart.
_LONGEST: Final = 30


@lru_cache(maxsize=8192)
def stem(word: str, /) -> str:
    """Return the lower-case `word` without plural, -ed and -ing: forms of one word share it."""
    if (base := BASES.get(word)) is not None:
        return base
    length = len(word)
    if length < 4 or length > _LONGEST or not word.isalpha():
        return word
    if word.endswith("s"):
        return _even(singular(word))
    if word.endswith("ied"):
        return word[:-3] + "y"
    if word.endswith("ed") and word[-3] != "e":
        return _base(word, word[:-2])
    if word.endswith("ing"):
        return _base(word, word[:-3])
    return _even(word)


def _even(word: str) -> str:
    """Return a word in -e as its forms in -ed and -ing give it back."""
    if len(word) < 4 or word[-1] != "e" or _lacks_e(word[:-1]):
        return word
    return word[:-1]


@lru_cache(maxsize=8192)
def singular(word: str, /) -> str:
    """Return a noun in the plural as one in the singular; verbs lose their -s as well."""
    if (base := PLURALS.get(word)) is not None:
        return base
    if len(word) < 4 or not word.endswith("s") or word[-2] in "sui" or not word.isalpha():
        return word
    if word in BASES or word in PLACES:
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("sses", "shes", "ches", "xes", "zzes", "oes")) else word[:-1]


def infinitive(word: str) -> str:
    """Return "poach" for "poaching", and any other word as it is."""
    return stem(word) if word.endswith("ing") else word


def _base(word: str, rest: str) -> str:
    """Return the verb whose -ed or -ing form is `word`, which has `rest` before the ending."""
    if len(rest) < 2 or _VOWELS.isdisjoint(rest):
        return word
    if len(rest) > 2 and rest[-1] == rest[-2] and rest[-1] not in "lsz":
        return rest[:-1]
    return rest + "e" if _lacks_e(rest) else rest


def _lacks_e(rest: str) -> bool:
    """Whether a verb in -e ends so without it: "smok", "enforc", "handl", "requir"."""
    last, before = rest[-1], rest[-2]
    if last in _VOWELS:
        return last == "u"
    if last in "cvz" or (last in "gs" and before not in "nsg"):
        return not (last == "s" and before == "u" and len(rest) > 3)
    if last == "l" and before in "bcdgkptz":
        return True
    if last == "g":
        return rest.endswith(("ang", "eng")) and len(rest) > 4
    if before not in _VOWELS or rest[-3:-2] in _VOWELS or last in "wxy":
        return False
    # A verb of one syllable in a consonant doubles it: one that has not ends in -e.
    if sum(letter in _VOWELS for letter in rest) == 1:
        return True
    return rest.endswith(_BEFORE_E)


_BEFORE_E: Final = tuple("at ir ar ur in id ud ad ul il ak ok um ot let plet".split())


def _concepts() -> dict[str, str]:
    table: dict[str, str] = {}
    for group in [*SYNONYMS.strip().splitlines(), *FORMS.strip().splitlines()]:
        stems = [stem(word) for word in group.split()]
        head = next((table[word] for word in stems if word in table), stems[0])
        for word in stems:
            table.setdefault(word, head)
    return table


_CONCEPTS: Final = _concepts()


def _heads() -> dict[str, str]:
    table: dict[str, str] = {}
    for group in SYNONYMS.strip().splitlines():
        words = group.split()
        first = table.get(stem(words[0]), words[0])
        for word in words:
            table.setdefault(stem(word), first)
    return table


_HEADS: Final = _heads()


@lru_cache(maxsize=8192)
def head(word: str, /) -> str:
    """Return the word that stands for `word` and its synonyms, as a word to be read."""
    if word in PLACES:
        return NAMES_OF_PLACES.get(word, word)
    if word.endswith("ing"):
        return word  # a building is not to build
    return _HEADS.get(stem(word), word)


@lru_cache(maxsize=8192)
def concept(word: str, /) -> str:
    """Return what stands for `word` and its synonyms."""
    if (place := PLACES.get(word)) is not None:
        return place
    return concept_of_stem(stem(word))


def concept_of_stem(base: str) -> str:
    """Return what stands for a word and its synonyms, of which the stem is known."""
    return _CONCEPTS.get(base, base)


def has_synonyms(word: str) -> bool:
    """Whether other words stand for the same as this one."""
    return stem(word) in _HEADS


def akin(one: str, other: str) -> bool:
    """Whether two different concepts are one word in another form, or one of them mistyped."""
    if one[:4] == other[:4] and len(one) > 3 and _derived(one, other):
        return True
    return mistyped(one, other)


def _derived(one: str, other: str) -> bool:
    same = 4
    while one[same : same + 1] == other[same : same + 1] != "":
        same += 1
    endings = {one[same:], other[same:]}
    return endings <= _DERIVED and endings != {"r", "e"}  # trainer and trainee


_DERIVED: Final = frozenset(
    """
    e er or r s y ing ed d ion ation ment ly al ally ive able ible ic ical ics ist ness ful ity ty ance ence
    ant ent ous ary ery ies
    """.split()
) | {""}


def mistyped(one: str, other: str) -> bool:
    """Whether one letter more, less, other or exchanged makes `one` into `other`; both of some length."""
    if one[0] != other[0] and one[-1] != other[-1]:
        return False
    if (
        abs(len(one) - len(other)) > 1
        or min(len(one), len(other)) < 5
        or max(len(one), len(other)) > _LONGEST
    ):
        return False
    if not (one.isalpha() and other.isalpha()):
        return False
    start = 0
    shorter = min(len(one), len(other))
    while start < shorter and one[start] == other[start]:
        start += 1
    left, right = one[start:], other[start:]
    if left[1:] == right[1:] or left == right[1:] or left[1:] == right:
        return True
    return left[:2] == right[1::-1] and left[2:] == right[2:]
