"""Text to tokens: words in plain spelling, numbers as digits, signs, ends of sentences.

Knows how English is spelled, not what any word means. One pass over the text, one over the tokens.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from llmcache_plugins.semantic.guards.numerals import NUMBER_WORDS, figures, folded
from llmcache_plugins.semantic.guards.words.spelling import (
    ABBREVIATIONS,
    CONTRACTIONS,
    ENDINGS,
    NEVER_IZE,
    SPELLINGS,
)

# The end of a sentence that is not the last one.
BREAK: Final = "."
COMMA: Final = ","

# "-free" as in sugar-free: the word before is what there is none of.
FREE_OF: Final = "-free"

# The repetitions are of one class each, or bounded: no text makes it look often at one character.
_TOKEN = re.compile(
    r"""
      ( [A-Za-z]+(?=[ ,?]|\Z) )
    | ( `[^`\n]{1,80}` | (?<!\S)--?[A-Za-z][\w-]*(?=\s|\Z) | [A-Za-z_]\w*\(\)
      | [A-Za-z_]\w*(?:(?:\.|::|->)[A-Za-z_]\w*)+(?:\(\))? )
    | ( \d{1,2}[:.]\d\d(?=\s?[apAP]\.?[mM]\b) | \d{1,2}:\d\d(?!\d) )
    | ( \d[\d,]*(?:\.\d+)*\w* )
    | ( \b[wW]/[oO]?(?=\s) | \b[bB]/[wW]\b | \bkm/h\b | \b[aApP]\.[mM]\b\.? | \b(?:[A-Z]\.){2,} )
    | ( \w+(?:'\w+)*(?:\+\+|\#)? )
    | ( [.?!;:\n]+ )
    | ( [^\w\s] )
    """,
    re.VERBOSE,
)
_PLAIN_WORD, _CODE, _CLOCK, _FIGURES, _SHORT, _WORD, _END, _SIGN = range(1, 9)
# Most words are plain, and those are found sooner than what else may be one.
_WORDS: Final = frozenset((_PLAIN_WORD, _WORD))

_POWERS: Final = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
_PLAIN: Final[dict[int, int | str | None]] = {
    **str.maketrans(
        "\u2018\u2019\u02bc\u00b4\u201c\u201d\u2010\u2011\u2012\u2013\u2014\u2212",
        "''''\"\"------",
        "\u200b\u200c\u200d\u2060\ufeff\u00ad",
    ),
    # Its compatibility form would make 52 of five squared.
    **{
        ord(sign): f"^{unicodedata.digit(sign)}"
        for sign in "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
    },
}
# Longer than a word, a figure or a name of code.
_LONGEST: Final = 64
_SPELLED: Final = {"&": "and", "%": "percent"}
# Signs that set words apart and say nothing.
_SILENT: Final = frozenset("\"'[]{}\u00ab\u00bb\u2026|_~\u00bf\u00a1\u2022`")
# Acronyms that are also little words.
_NAMED: Final = {"US": "usa", "IT": "i.t", "WHO": "w.h.o"}
_OPERATORS: Final = frozenset("+-*/^=()")
_JOINED: Final = frozenset(("self", "pre", "post", "un", "re", "anti", "co", "sub", "multi", "e"))


def tokens_of(text: str) -> tuple[list[str], list[str]]:
    """Return the words of `text` in plain lower case, and each as it was written ("" if spelled out)."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_PLAIN))
    words: list[str] = []
    shown: list[str] = []
    numbers = False
    shouting = text.isupper()
    hyphens = "-" in text
    for match in _TOKEN.finditer(text):
        kind, written = match.lastindex, match[0]
        if len(written) > _LONGEST:
            written = _abridged(written)
        if kind in _WORDS:
            lower, plain, as_written, is_number = _word(written, shouting)
            if hyphens and words and (start := match.start()) and text[start - 1] == "-":
                if words[-1] in _JOINED:
                    words[-1] += lower
                    continue
                if lower == "free":
                    plain = (FREE_OF,)
            words += plain
            shown += as_written
            numbers = numbers or is_number
        elif kind == _FIGURES:
            lower = written.lower()
            plain = ABBREVIATIONS.get(lower) or figures(lower)
            if words and words[-1] == "-" and (len(words) == 1 or not words[-2][-1].isalnum()):
                words.pop()
                shown.pop()
                plain = ("-" + plain[0], *plain[1:])
            words += plain
            shown += [written] if len(plain) == 1 else [""] * len(plain)
            numbers = numbers or plain[-1] in {"million", "billion"}
        elif kind == _END:
            if words and words[-1] != BREAK:
                words.append(BREAK)
                shown.append("")
        elif kind == _SIGN:
            _sign(text, match.start(), written, words, shown)
        else:
            lower = written.strip("`").lower() if kind == _CODE else written.lower().rstrip(".")
            plain = spelled(lower) if kind != _CODE else (lower,)
            words += plain
            shown += [written] if len(plain) == 1 else [""] * len(plain)
    while words and words[-1] in {BREAK, COMMA}:
        words.pop()
        shown.pop()
    return folded(words, shown) if numbers else (words, shown)


@lru_cache(maxsize=8192)
def _word(written: str, shouting: bool, /) -> tuple[str, tuple[str, ...], tuple[str, ...], bool]:
    """Return a word in lower case, its plain spelling and what it shows as, and whether it is a number."""
    lower = written.lower() if shouting else _NAMED.get(written) or written.lower()
    plain = spelled(lower)
    shown = (written,) if len(plain) == 1 else ("",) * len(plain)
    return lower, plain, shown, lower in NUMBER_WORDS


def _abridged(word: str) -> str:
    """Return what stands for a long word and no other: no table and no cache holds anything longer."""
    return word[:8] + blake2b(word.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _sign(text: str, at: int, sign: str, words: list[str], shown: list[str]) -> None:
    if sign in _SILENT:
        return
    if sign in "()" and not _calculated(text, at, sign):
        return
    if sign == ",":
        if words and words[-1] != COMMA:
            words.append(COMMA)
            shown.append("")
        return
    if sign == "-":
        before = text[at - 1] if at else " "
        after = text[at + 1] if at + 1 < len(text) else " "
        if before.isalnum() and after.isalnum():
            return
        if not after.isdigit() and not (before == after == " " and words and words[-1][-1].isdigit()):
            return
    sign = _SPELLED.get(sign, sign)
    words.append(sign)
    shown.append(sign)


def _calculated(text: str, at: int, sign: str) -> bool:
    """Whether a bracket is one of a formula or a call, not of a remark."""
    if sign == "(":
        before, after = text[at - 1 : at], text[at + 1 : at + 2]
        return before.isalnum() or after.isdigit() or after in _OPERATORS or before in _OPERATORS
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    return before.isdigit() or after.isdigit() or after in _OPERATORS or before in _OPERATORS


@lru_cache(maxsize=8192)
def spelled(word: str, /) -> tuple[str, ...]:
    """Return the plain spelling of a lower-case word: `isn't` gives is and not, `colour` gives color."""
    if (plain := CONTRACTIONS.get(word) or ABBREVIATIONS.get(word)) is not None:
        return plain
    if "'" in word:
        for ending, meaning in ENDINGS.items():
            if word.endswith(ending):
                return (*spelled(word[: -len(ending)]), *meaning)
        word = word.removesuffix("'s")
        word = word.replace("'", "")
        return spelled(word) if word else ()
    if (plain_spelling := SPELLINGS.get(word)) is not None:
        return (plain_spelling,)
    if len(word) > 5 and "is" in word[-6:] and word not in NEVER_IZE:
        for ending, american in _IZE:
            if word.endswith(ending):
                return (word[: -len(ending)] + american,)
    return (word,) if word else ()


_IZE: Final = (
    ("isation", "ization"),
    ("isations", "izations"),
    ("ise", "ize"),
    ("ised", "ized"),
    ("ises", "izes"),
    ("ising", "izing"),
)
