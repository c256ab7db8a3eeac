"""Identifiers: names of code, products named by letters and digits, error codes, operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPERATORS: Final = frozenset("+ - * / = < > ^ @ \\ & √ \u00d7 ÷ ≤ ≥ ≠ ± ∞".split())
_NOTHING: Final[frozenset[str]] = frozenset()
_ORDINAL: Final = ("st", "nd", "rd", "th", "s")


def identifiers(words: Sequence[str], shown: Sequence[str]) -> frozenset[str]:
    """Return the tokens such as foo_bar, fooBar, foo.bar, foo(), --foo, PS4, 3x, c++ and the operators."""
    found = []
    for word, written in zip(words, shown, strict=True):
        if written.isalpha():
            if not (written.islower() or written.isupper() or written[1:].islower()):
                found.append(word)
        elif written and (word in _OPERATORS or (len(written) > 1 and _mixed(word))):
            found.append(word)
    return frozenset(found) if found else _NOTHING


def _mixed(word: str) -> bool:
    """Whether letters and something else than an apostrophe make up the word."""
    if word[0].isdigit() and word.endswith(_ORDINAL):
        return not word.rstrip("sthndr").isdecimal()
    return any(map(str.isalpha, word)) and not word.replace("'", "").isalpha()
