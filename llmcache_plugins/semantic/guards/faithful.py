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

__all__ = ["faithful", "has_signs", "symbols_differ"]

_QUOTES: Final = str.maketrans("\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb", '\'\'"""""')
# Something is quoted, listed, or code: then each character may be what is asked about.
_LITERAL: Final = re.compile(r"""["`\n\t] | (?<![^\W_])' | (?<=\d)' | '(?![^\W_]|\s|[?.!,;]|$)""", re.VERBOSE)
_LISTED: Final = re.compile(r"(?<!\d):|:(?!\d)")
# What closes and parts sentences, and joins words.
_MARKS: Final = re.compile(
    r"""(?<!\d)[,;.:] | :(?!\d) | [,;.](?!\d) | (?<=\d):(?=\d) | (?<!\$)\?+(?=\s|$) | (?<=[^\W\d])!+(?=\s|$)
    | (?<=[^\W\d_])[-/](?=[^\W\d_]) | [()\u2026']""",
    re.VERBOSE,
)
_MONEY: Final = re.compile(r"[$€£¥]\s?(?=\d)|(?<=\d)\s?[%$€£¥°]")
_DIGITS: Final = re.compile(r"\d[\d.,]*")
_SYMBOLS: Final = re.compile(r"[^\w\s]|_")
_NUMBERS: Final = re.compile(r"(\d+(?:[.,]\d+)*)\s?([^\W\d_]{1,3}(?![^\W\d_]))?")
_THOUSANDS: Final = re.compile(r"\d{1,3}(?:,\d{3})+")
_WORDS: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_SENTENCE: Final = re.compile(r"[.!?]\s+")
_ARTICLED: Final = re.compile(r"\b(?:[Aa]n?|[Tt]he) (?=[^\W\d_a-z])")
_HARD: Final = re.compile(r"[=<>{}\[\]\\|^*+~#@$!_]")


def faithful(one: str, other: str) -> bool:
    """Say whether texts with an equal canonical form may be taken for the same. Linear, pure, symmetric."""
    one, other = _plain(one), _plain(other)
    if one == other:
        return True
    if not (_WORDS.search(one) and _WORDS.search(other)):
        return False
    if _LITERAL.search(one) or _LITERAL.search(other):
        return _bare(one) == _bare(other)
    return (
        _same_is_listed(one, other)
        and _symbols(one) == _symbols(other)
        and _numbers_agree(_numbers(one), _numbers(other))
        and _articles_agree(one, other)
        and _cases_agree(one, other)
    )


def has_signs(text: str) -> bool:
    """Say whether there are signs in a text that are no punctuation."""
    return _HARD.search(text) is not None


def symbols_differ(one: str, other: str) -> bool:
    """Say whether signs that are neither punctuation nor units differ, as in C and C++."""
    mine, yours = ([sign for sign in _symbols(_plain(text)) if _HARD.match(sign)] for text in (one, other))
    return mine != yours


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).translate(_QUOTES).strip()


def _bare(text: str) -> str:
    """Return a text without what closes it."""
    return text.rstrip("?!. ")


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
    mine, yours = _spellings(one), _spellings(other)
    return all(mine[word] & yours[word] for word in mine.keys() & yours.keys() & NAMES_TOO)


def _spellings(text: str) -> dict[str, set[str]]:
    """Return how words are written, those apart that begin a sentence."""
    found: dict[str, set[str]] = {}
    for sentence in _SENTENCE.split(text):
        for word in _WORDS.findall(sentence)[1:]:
            found.setdefault(word.lower(), set()).add(word)
    return found
