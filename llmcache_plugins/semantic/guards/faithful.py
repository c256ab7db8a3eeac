"""Whether texts that say the same in plain words differ in letters, marks or digits that may count.

The canonical form forgets case, articles, marks and spelling: that makes most questions equal that are, and
some that are not. So a pair that has only that in common is looked at once more, as it was written. When in
doubt, no: the answer is asked for, and that is all.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from llmcache_plugins.semantic.guards.words.names import NAMES_TOO
from llmcache_plugins.semantic.guards.words.telling import (
    ABOUT_SPELLING,
    ABOUT_WORDS,
    FILLERS,
    HARMLESS,
    TELLING,
    WITH_A,
)

__all__ = ["accents_differ", "faithful", "numbers_exchanged", "signs"]

_QUOTES: Final = str.maketrans("\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb", '\'\'"""""')
# Something is quoted, listed, or code: then each character may be what is asked about.
_LITERAL: Final = re.compile(r"""["`\n\t] | (?<![^\W_])' | (?<=\d)' | '(?![^\W_]|\s|[?.!,;]|$)""", re.VERBOSE)
_CONTRACTED: Final = re.compile(r"\b([Ww]hat|[Ww]ho|[Ww]here|[Hh]ow)'s\b")
_LISTED: Final = re.compile(r"(?<!\d):|:(?!\d)")
# What closes and parts sentences, and joins words.
_MARKS: Final = re.compile(
    r"""(?<=[^\s\d])[,;.:] | (?<=\d)[,;.:](?!\d) | (?<=\d):(?=\d) | (?<=\S):(?!\d) | (?<!\$)\?+(?=\s|$)
    | (?<=[^\W\d])!+(?=\s|$) | (?<=[^\W\d_])[-/](?=[^\W\d_]) | [()\u2026']""",
    re.VERBOSE,
)
_MONEY: Final = re.compile(r"[$€£¥]\s?(?=\d)|(?<=\d)\s?[%$€£¥°]")
_DIGITS: Final = re.compile(r"\d[\d.,]*")
_SYMBOLS: Final = re.compile(r"[^\w\s]|_")
_NUMBERS: Final = re.compile(r"(\d+(?:[.,]\d+)*)\s?([^\W\d_]{1,4}(?![^\W\d_]))?")
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:,\d{3})+")
_WORDS: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_SENTENCE: Final = re.compile(r"[.!?]\s+")
_ARTICLED: Final = re.compile(r"\b(?:[Aa]n?|[Tt]he) (?=[^\W\d_a-z])")
_FIGURES: Final = re.compile(r"\d+(?:\.\d+)?")
# Two numbers of one thing, in either order: 500 and 1000 notes, Rs. 5 or Rs. 10.
_JOINED: Final = re.compile(
    r"(?<![\d.,])(\d+(?:\.\d+)?)"
    r"(\s(?:and|or)\s(?:the\s)?(?:(?:rs\.?|inr|usd|eur|[$€£₹])\s?)?)"
    r"(\d+(?:\.\d+)?)(?![\d.,]*\d)",
    re.IGNORECASE,
)
# What is not said of both alike, or of more than them.
_SIDED: Final = re.compile(
    r"\b(?:ratio|quotient|divid|subtract|minus|power|log|respective|than|percent|from)|[-+*/^%]",
    re.IGNORECASE,
)
_ONE_LETTER: Final = frozenset("IiAa")
_UNIT: Final = 4
"""Letters up to which capitals tell words apart, as in Mb and MB; OpenAI and openAI are one."""
_ACRONYM: Final = 3
"""Letters from which a word in capitals is one that others write without."""
_SHORT: Final = 4
"""Words of a question that has nothing to tell what "the" means: the weather is not what weather is."""
_THE_NAME: Final = re.compile(r"\b[Tt]he [^\W\d_a-z]")
_FRAMES: Final = re.compile(
    r"\b(?:(?:can|could|would|will) you (?:please |kindly )?(?:tell|explain to|help|show|let) me(?: know)?"
    r"|do you (?:happen to )?know|(?:please )?(?:tell|let) me(?: know)?|thank you|show me(?= how\b))\b"
    r"|^just curious\b(?=[,:])|(?<=[.?!])\s*cheers\b[.!]*$"
)
_DIFF: Final = re.compile(r"\bdiff (?=between\b)")
_HARD: Final = re.compile(r"[=<>{}\[\]\\|^*+~#@$!_]")


def faithful(one: str, other: str) -> bool:
    """Say whether texts with an equal canonical form may be taken for the same. Linear, pure, symmetric."""
    one, other = _plain(one), _plain(other)
    if one == other:
        return True
    if not (_WORDS.search(one) and _WORDS.search(other)):
        return False
    if _LITERAL.search(one) or _LITERAL.search(other):
        return _bare(_CONTRACTED.sub(r"\1 is", one)) == _bare(_CONTRACTED.sub(r"\1 is", other))
    return (
        _same_is_listed(one, other)
        and _symbols(_bare(one)) == _symbols(_bare(other))
        and _numbers_agree(_numbers(one), _numbers(other))
        and _articles_agree(one, other)
        and _cases_agree(one, other)
        and _words_agree(one, other)
    )


def numbers_exchanged(one: str, other: str) -> bool:
    """Say whether the same numbers stand in another order, or one is another's but for its last zeros."""
    mine, yours = (_FIGURES.findall(text) for text in (one, other))
    if mine == yours:
        return False
    if len(mine) > 1 and sorted(mine) == sorted(yours):
        return _FIGURES.findall(_ordered(one)) != _FIGURES.findall(_ordered(other))
    zeros = {number.rstrip("0"): number for number in mine if "." in number}
    return any(zeros.get(number.rstrip("0"), number) != number for number in yours if "." in number)


def _ordered(text: str) -> str:
    """Return a text with the lesser first of two numbers that are joined by no more than an "and"."""
    if _SIDED.search(text):
        return text
    return _JOINED.sub(lambda found: "".join(found.group(*_by_size(found[1], found[3]))), text)


def _by_size(one: str, other: str) -> tuple[int, int, int]:
    return (1, 2, 3) if float(one) <= float(other) else (3, 2, 1)


def accents_differ(one: str, other: str) -> bool:
    """Say whether words differ in their accents and in nothing else."""
    mine, yours = (set(_WORDS.findall(_plain(text).lower())) for text in (one, other))
    return not {_unaccented(word) for word in mine - yours}.isdisjoint(map(_unaccented, yours - mine))


def _unaccented(word: str) -> str:
    return "".join(
        letter for letter in unicodedata.normalize("NFD", word) if not unicodedata.combining(letter)
    )


def signs(text: str) -> tuple[str, ...]:
    """Return the signs of a text that are neither punctuation nor units, in order, as those of C++."""
    if _HARD.search(text) is None:
        return ()
    return tuple([sign for sign in _symbols(_plain(text)) if _HARD.match(sign)])


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).translate(_QUOTES).strip()


def _bare(text: str) -> str:
    """Return a text without what closes it: stops, blanks, and one "!" after a letter."""
    end = len(text)
    while end and (text[end - 1] in "?." or text[end - 1].isspace() or _is_shout(text, end - 1)):
        end -= 1
    return text[:end]


def _is_shout(text: str, place: int) -> bool:
    before = text[place - 1 : place] if place else ""
    return text[place] == "!" and (before.isalpha() or before == "_")


def _same_is_listed(one: str, other: str) -> bool:
    """Say whether what follows a colon is the same, to the letter; of one without, its end."""
    mine, yours = (_LISTED.split(_bare(text), maxsplit=1)[1:] for text in (one, other))
    if mine and yours:
        return mine[0].strip() == yours[0].strip()
    if not (mine or yours):
        return True
    said = (mine or yours)[0].strip()
    whole = _bare(other if mine else one)
    return whole[-len(said) + 1 :] == said[1:] and whole[: -len(said) + 1][-1:].lower() == said[:1].lower()


def _symbols(text: str) -> list[str]:
    return _SYMBOLS.findall(_MARKS.sub(" ", _MONEY.sub(" ", _DIGITS.sub("0", text))))


def _numbers(text: str) -> list[tuple[str, str]]:
    return [
        (number.replace(",", "") if _THOUSANDS.fullmatch(number) else number, unit)
        for number, unit in _NUMBERS.findall(text)
    ]


def _numbers_agree(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> bool:
    if len(one) != len(other):
        # Some are words: then none of them may be more than a plain number.
        return all(number.isdigit() and not number.startswith("0") for number, _ in (*one, *other))
    return all(
        mine == yours and (unit == its or unit.lower() != its.lower())
        for (mine, unit), (yours, its) in zip(one, other, strict=True)
    )


def _articles_agree(one: str, other: str) -> bool:
    """Say whether names have the same articles: The Office is no office."""
    mine, yours = _ARTICLED.findall(one), _ARTICLED.findall(other)
    return [word.lower() for word in mine] == [word.lower() for word in yours] or not (mine and yours)


def _cases_agree(one: str, other: str) -> bool:
    if one.islower() or other.islower() or one.isupper() or other.isupper():
        return True  # typed without any: nothing is meant by it
    if _spelled_otherwise(one, other) or _spelled_otherwise(other, one):
        return False
    mine, yours = _spellings(one), _spellings(other)
    return all(mine[word] & yours[word] for word in mine.keys() & yours.keys() & NAMES_TOO)


def _spelled_otherwise(one: str, other: str) -> bool:
    """Say whether a short word whose case is a spelling, as mA and x have, is written in another."""
    words = set(_WORDS.findall(other))
    lower = {word.lower() for word in words}
    return any(
        word.lower() in lower and word not in words
        for word in _WORDS.findall(one)
        if len(word) <= _UNIT
        and not word[1:].islower()
        and word not in _ONE_LETTER
        and (len(word) < _ACRONYM or not word.isupper())
    )


def _words_agree(one: str, other: str) -> bool:
    """Say whether no word is in one of them alone that changes what is asked."""
    mine, yours = (
        _WORDS.findall(_DIFF.sub("difference ", _FRAMES.sub(" ", text.lower()))) for text in (one, other)
    )
    both, differing = set(mine) | set(yours), set(mine) ^ set(yours)
    if differing & TELLING or (differing & FILLERS and both & ABOUT_WORDS):
        return False
    if both & ABOUT_SPELLING and differing - HARMLESS:
        return False
    # "Where do you live" is not "where should I live"; "where can you buy it" is where I can.
    if "you" in differing and differing & {"should", "am"}:
        return False
    if mine.count("the") != yours.count("the") and max(len(mine), len(yours)) <= _SHORT:
        return bool(_THE_NAME.search(one) or _THE_NAME.search(other))
    return mine.count("a") == yours.count("a") or not both & WITH_A


def _spellings(text: str) -> dict[str, set[str]]:
    """Return how words are written, those apart that begin a sentence."""
    found: dict[str, set[str]] = {}
    for sentence in _SENTENCE.split(text):
        for word in _WORDS.findall(sentence)[1:]:
            found.setdefault(word.lower(), set()).add(word)
    return found
