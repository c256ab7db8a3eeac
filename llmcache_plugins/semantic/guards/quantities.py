"""Numbers with their units, brought to one base: 90 minutes and an hour and a half are the same quantity."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from llmcache_plugins.semantic.guards.numerals import DIGITS_OF_A_FLOAT, plain_number
from llmcache_plugins.semantic.guards.words.measures import CURRENCIES, ONLY_AFTER_A_NUMBER, SYMBOLS, UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBER = re.compile(r"(-?\d+(?:\.\d+)*(?::\d\d)?)(st|nd|rd|th|s)?\Z")
_ROMAN: Final = {
    numeral: str(value)
    for value, numeral in enumerate(
        "ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx".split(), start=2
    )
}
_UNIT_WORDS: Final = frozenset(UNITS) | frozenset(SYMBOLS)


class Quantities(NamedTuple):
    """What is counted and measured in a text."""

    numbers: tuple[str, ...]  # values as plain text, sorted
    bare: tuple[str, ...]  # those without a unit
    sizes: tuple[str, ...]  # all of them in their base units, sorted
    measured: frozenset[tuple[str, str]]  # (value in the base unit, what is measured)
    units: frozenset[str]  # units named without a number: "in hours", "per day"


EMPTY: Final = Quantities((), (), (), frozenset(), frozenset())


@lru_cache(maxsize=4096)
def number_in(word: str, /) -> str | None:
    """Return the value of a token that is a number, as text; None of any other."""
    match = _NUMBER.match(word)
    return match[1] if match else None


def quantities(words: Sequence[str], shown: Sequence[str], present: frozenset[str]) -> Quantities:
    """Return the numbers and units among the tokens."""
    # Most words begin with a letter of ASCII: neither a digit nor a sign.
    roman = not _ROMAN_WORDS.isdisjoint(present)
    if (
        not roman
        and _UNIT_WORDS.isdisjoint(present)
        and not any(_starts_with_digit(word) for word in present if not "9" < word[0] <= "\x7f")
    ):
        return EMPTY
    numbers: list[str] = []
    bare: list[str] = []
    measured: set[tuple[str, str]] = set()
    units: set[str] = set()
    before = ""  # the number just before, if it has no unit yet
    currency: _Unit | None = None  # and the currency before the number
    for position, word in enumerate(words):
        if (value := number_in(word)) is not None:
            numbers.append(value)
            before = value
            if currency is not None and _countable(value):
                measured.add(_size(value, currency))
                before = ""
            else:
                bare.append(value)
            currency = None
            continue
        currency = None
        if word in _UNIT_WORDS:
            unit = UNITS[SYMBOLS.get(word, word)]
            if before:
                if _countable(before):
                    measured.add(_size(before, unit))
                    bare.pop()
            elif word in CURRENCIES:
                currency = unit
            elif _stands_alone(words, position):
                units.add(unit[0])
        elif roman and (value := _roman(words, shown, position)) is not None:
            numbers.append(value)
            bare.append(value)
        before = ""
    if not (numbers or units):
        return EMPTY
    sizes = sorted([*bare, *(size for size, _ in measured)])
    return Quantities(
        tuple(sorted(numbers)), tuple(sorted(bare)), tuple(sizes), frozenset(measured), frozenset(units)
    )


def _countable(number: str) -> bool:
    """Whether arithmetic may be done with it: no version, no time, not too long for a float."""
    return len(number) <= DIGITS_OF_A_FLOAT and number.count(".") < 2 and ":" not in number


def _size(number: str, unit: _Unit) -> tuple[str, str]:
    return plain_number(float(number) * unit[2]), unit[1]


def _stands_alone(words: Sequence[str], position: int) -> bool:
    """Whether a unit counts without a number: its full name, "per day", "in hours"."""
    word = words[position]
    if word not in ONLY_AFTER_A_NUMBER:
        return True
    before = words[position - 1] if position else ""
    return before in _EACH or (before in _BEFORE_A_UNIT and (word.endswith("s") or word == "feet"))


_Unit = tuple[str, str, float]
_EACH: Final = frozenset("per a an each every".split())
_BEFORE_A_UNIT: Final = frozenset("in to into many".split())
_NUMBERED: Final = frozenset(("type", "part", "phase", "chapter", "volume"))
_ROMAN_WORDS: Final = frozenset(_ROMAN)


def _roman(words: Sequence[str], shown: Sequence[str], position: int) -> str | None:
    """Return the value of a Roman numeral: in capitals, after a name or the like of "part"."""
    value = _ROMAN.get(words[position])
    if value is None or not position or not shown[position].isupper():
        return None
    return value if shown[position - 1][:1].isupper() or words[position - 1] in _NUMBERED else None


def _starts_with_digit(word: str) -> bool:
    return word[0].isdigit() or (word[0] == "-" and len(word) > 1)


def numbers_differ(one: Quantities, other: Quantities) -> bool:
    """Whether the texts name different numbers, however they are written and whatever their units."""
    if one.numbers == other.numbers or one.sizes == other.sizes:
        return False
    # "one" is often no number, and what is not counted is one.
    mine, yours = ([number for number in text.numbers if number != "1"] for text in (one, other))
    return mine != yours


def units_differ(one: Quantities, other: Quantities) -> bool:
    """Whether the same numbers are of different things, or other units are asked for."""
    if one.measured - other.measured and other.measured - one.measured and one.numbers == other.numbers:
        return True
    return bool(one.units - other.units and other.units - one.units)
