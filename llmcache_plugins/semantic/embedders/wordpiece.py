"""BERT's uncased WordPiece: from a text to the ids that a model of this vocabulary reads.

Owns the rules and the vocabulary, and gives the ids that Hugging Face's `tokenizers` gives (`BertNormalizer`,
`BertPreTokenizer`, `WordPiece`), with one exception on purpose: "[SEP]" in a text is these five characters,
never the special token. Knows nothing of models and needs only the standard library. Linear in the text.

Source of the rules: Devlin et al. 2018, https://github.com/google-research/bert (tokenization.py).
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PAD", "UNKNOWN", "encode"]

PAD: Final = 0
UNKNOWN: Final = 100
"""What a word becomes that the vocabulary cannot spell: the model cannot tell two such words apart."""
_BEGIN: Final = 101
_END: Final = 102
_LONGEST_WORD: Final = 100
"""Characters; a longer word is unknown."""
_LONGEST_PIECE: Final = 18
"""Characters of the longest token in the vocabulary: no longer piece needs to be looked up."""

_CHINESE: Final = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f"
    "\U0002b920-\U0002ceaf\uf900-\ufaff\U0002f800-\U0002fa1f"
)
_WORDS_OF_ASCII: Final = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")


def encode(text: str, *, limit: int | None = None) -> list[int]:
    """Return the ids of a text, the two special ones around it included.

    With `limit` it stops when there are more than so many: the result is then `limit + 1` ids long or longer.
    """
    ids = [_BEGIN]
    for word in _words_of(text):
        ids += _pieces_of(word)
        if limit is not None and len(ids) >= limit:
            break
    ids.append(_END)
    return ids


def _words_of(text: str) -> Iterator[str]:
    if text.isascii():
        # A control character is no character at all: it does not part words.
        for match in _WORDS_OF_ASCII.finditer(_without_controls(text).lower()):
            yield match.group()
        return
    for run in _normalized(text).split():
        start = 0
        for place, character in enumerate(run):
            if _stands_alone(character):
                if place > start:
                    yield run[start:place]
                yield character
                start = place + 1
        if start < len(run):
            yield run[start:]


def _without_controls(text: str) -> str:
    return text if text.isprintable() else "".join(filter(None, map(_cleaned, text)))


def _normalized(text: str) -> str:
    """Return the text cleaned, Chinese characters set apart, without accents, in lower case."""
    parted = "".join(filter(None, map(_cleaned, text)))
    plain = "".join(filter(_is_no_accent, unicodedata.normalize("NFD", parted)))
    # Letter by letter: `str.lower` on a word knows a final sigma, the vocabulary's makers did not.
    return "".join(map(str.lower, plain))


@lru_cache(maxsize=4096)
def _cleaned(character: str) -> str:
    kind = unicodedata.category(character)
    if character in "\t\n\r" or kind in ("Zs", "Zl", "Zp"):
        return " "
    # What Python's tables do not know yet is kept: an emoji of next year is no control character.
    if character == "\ufffd" or kind in ("Cc", "Cf", "Cs", "Co"):
        return ""
    return f" {character} " if _is_chinese(character) else character


def _is_no_accent(character: str) -> bool:
    return character < "\u0300" or unicodedata.category(character) != "Mn"


@lru_cache(maxsize=4096)
def _stands_alone(character: str) -> bool:
    """Say whether it is punctuation; in ASCII, all that is neither letter nor digit."""
    if character.isascii():
        return not character.isalnum()
    return unicodedata.category(character).startswith("P")


_is_chinese = re.compile(f"[{_CHINESE}]").match


@cache
def _vocabulary() -> dict[str, int]:
    file = resources.files(__package__).joinpath("data/vocab.txt")
    return {token: number for number, token in enumerate(file.read_text("utf-8").split("\n")[:-1])}


@lru_cache(maxsize=16_384)
def _pieces_of(word: str) -> tuple[int, ...]:
    """Return the ids of the longest pieces that make up a word, from its start; else that of no word."""
    if len(word) > _LONGEST_WORD:
        return (UNKNOWN,)
    known = _vocabulary()
    ids: list[int] = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        for end in range(min(len(word), start + _LONGEST_PIECE), start, -1):
            if (number := known.get(prefix + word[start:end])) is not None:
                break
        else:
            return (UNKNOWN,)
        ids.append(number)
        start = end
    return tuple(ids)
