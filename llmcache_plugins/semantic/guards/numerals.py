"""Number words and written figures to one plain form: digits, with "rd" and the like after an ordinal.

`25`, `25.0`, `twenty-five` and `twenty five` become `25`; `3rd` and `third` become `3rd`; `1,500`, `1.5k` and
`fifteen hundred` become `1500`; `half past seven` becomes `7:30`. Longer figures than fit a float stay as
they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_SMALL: Final = {
    word: value
    for value, word in enumerate(
        """
        zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen
        """.split()
    )
}
_TENS: Final = {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_SCALES: Final = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "hundreds": 100,
    "thousands": 1000,
    "millions": 10**6,
    "billions": 10**9,
}
_ORDINALS: Final = {
    word: value
    for value, word in enumerate(
        """
        zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
        fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth
        """.split()
    )
} | {"thirtieth": 30, "fortieth": 40, "fiftieth": 50, "hundredth": 100}
NUMBER_WORDS: Final = frozenset([*_SMALL, *_TENS, *_SCALES, *_ORDINALS, "half", "quarter"])

_FIGURE = re.compile(r"(\d[\d,]*(?:\.\d+)*)([a-z°%]*)\Z")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?\Z")
_SUFFIXES: Final = {"k": 1000, "mn": 10**6, "bn": 10**9}
_ORDINAL_ENDINGS: Final = frozenset(("st", "nd", "rd", "th"))
# "nine hundred and ninety-nine thousand nine hundred and ninety-nine" has nine words.
_LONGEST_NUMBER: Final = 12
# More digits than a float holds are compared as text.
DIGITS_OF_A_FLOAT: Final = 15


def plain_number(value: float) -> str:
    """Return the shortest form of `value`: no trailing zeros, no exponent."""
    return str(int(value)) if value == int(value) else f"{value:.10f}".rstrip("0")


@lru_cache(maxsize=4096)
def figures(written: str, /) -> tuple[str, ...]:
    """Return the tokens of lower-case text that starts with a digit: `40k` gives 40000, `64gb` 64 and gb."""
    match = _FIGURE.match(written)
    if match is None:
        return (written,)
    digits, ending = match.groups()
    digits = digits.rstrip(",")
    if "," in digits:
        if not _THOUSANDS.match(digits):
            parts = [part for part in digits.split(",") if part]
            return tuple(token for part in (*parts[:-1], parts[-1] + ending) for token in figures(part))
        digits = digits.replace(",", "")
    if digits.count(".") > 1:  # a version
        return (digits, ending) if ending else (digits,)
    number = _shortest(digits)
    if not ending:
        return (number,)
    if ending in _ORDINAL_ENDINGS:
        return (number + _ending(number),)
    if ending in _SUFFIXES and len(digits) <= DIGITS_OF_A_FLOAT:
        return (plain_number(float(digits) * _SUFFIXES[ending]),)
    if ending == "s":  # 1980s
        return (number + "s",)
    return number, ending


def _shortest(digits: str) -> str:
    # A leading zero stays: it tells an area code or a postcode from a count.
    if "." not in digits or len(digits) > DIGITS_OF_A_FLOAT:
        return digits
    whole, _, part = digits.partition(".")
    part = part.rstrip("0")
    return f"{whole}.{part}" if part else whole


def _ending(number: str) -> str:
    if number[-2:] in {"11", "12", "13"}:
        return "th"
    return {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")


def folded(words: Sequence[str], shown: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return both lists with each run of number words replaced by one number."""
    plain: list[str] = []
    forms: list[str] = []
    position, length = 0, len(words)
    while position < length:
        word = words[position]
        if word in _SCALES and plain and (times := _times(plain[-1], _SCALES[word])):
            plain[-1], forms[-1] = times, ""
            position += 1
            continue
        if word in NUMBER_WORDS and (found := _run(words, position)):
            number, position = found
            plain.append(number)
            forms.append("")
            continue
        plain.append(word)
        forms.append(shown[position])
        position += 1
    return plain, forms


def _times(number: str, scale: int) -> str | None:
    """Return "20 billion" as one number; None if what stands before is none."""
    if not number.replace(".", "", 1).isdecimal() or len(number) > DIGITS_OF_A_FLOAT or not number.isascii():
        return None
    return plain_number(float(number) * scale)


def _run(words: Sequence[str], start: int) -> tuple[str, int] | None:
    """Return the number whose words start at `start` and the position after it."""
    if words[start] in {"half", "quarter"}:
        return _past(words, start)
    if words[start] == "second" and start and _is_unit(words, start):
        return None
    total, current, position, seen = 0.0, 0.0, start, False
    length = min(len(words), start + _LONGEST_NUMBER)
    last = ""
    while position < length:
        word = words[position]
        if (small := _SMALL.get(word)) is not None:
            if last == "small":
                break
            current += small
            last = "small"
        elif (tens := _TENS.get(word)) is not None:
            if last in {"small", "tens"}:
                break
            current += tens
            last = "tens"
        elif (scale := _SCALES.get(word)) is not None:
            if not seen and word.endswith("s"):
                return None  # "millions of"
            current = (current if seen else 1) * scale
            if scale >= 1000:
                total, current = total + current, 0
            last = "scale"
        elif (
            word == "and" and last == "scale" and position + 1 < length and words[position + 1] in _AFTER_AND
        ):
            pass
        elif (ordinal := _ORDINALS.get(word)) is not None and (not seen or (last == "tens" and ordinal < 10)):
            number = plain_number(total + current + ordinal)
            return number + _ending(number), position + 1
        else:
            break
        seen = True
        position += 1
    if position == start + 1 and words[start] == "one" and _pronoun(words, start):
        return None
    return (plain_number(total + current), position) if seen else None


def _is_unit(words: Sequence[str], at: int) -> bool:
    """Whether "second" is a time: "per second", "5 second", "a second."."""
    before, after = words[at - 1], words[at + 1] if at + 1 < len(words) else "."
    return before[0].isdigit() or before in _PER or (before in {"a", "one"} and after in _AFTER_A_UNIT)


_PER: Final = frozenset(("per", "each", "every"))
_AFTER_A_UNIT: Final = frozenset(". , of to and or in for is".split())
_AFTER_AND: Final = frozenset([*_SMALL, *_TENS])
_AFTER_A_PRONOUN: Final = frozenset(
    """
    can could should would will may might must do does did is was has have go get find make use know tell say
    become learn think need want to in on of for with from at by that who which and or be not never only day
    time else another . 's
    """.split()
)
_MODALS: Final = frozenset("can could should would will may might must".split())
_BEFORE_A_PRONOUN: Final = frozenset("this that which the any no each every your".split())


def _pronoun(words: Sequence[str], at: int) -> bool:
    """Whether "one" stands for somebody or something, not for a number."""
    after = words[at + 1] if at + 1 < len(words) else "."
    before = words[at - 1] if at else ""
    return after in _AFTER_A_PRONOUN or before in _BEFORE_A_PRONOUN or before in _MODALS


def _past(words: Sequence[str], start: int) -> tuple[str, int] | None:
    """Return "half past seven" as a time, "half an hour" as a number; None of any other half."""
    after = words[start + 1 : start + 3]
    if "hour" in after and (after[0] == "hour" or after[0] in {"a", "an"}):
        return ("0.5" if words[start] == "half" else "0.25"), start + 1 + (after[0] != "hour")
    if start + 2 < len(words) and words[start + 1] in {"past", "to"}:
        hour = _SMALL.get(words[start + 2])
        if hour is None and words[start + 2].isdecimal() and len(words[start + 2]) <= 2:
            hour = int(words[start + 2])
        if hour is not None:
            minutes = 30 if words[start] == "half" else 15
            if words[start + 1] == "to":
                hour, minutes = hour - 1, 60 - minutes
            return f"{hour}:{minutes:02}", start + 3
    return None
