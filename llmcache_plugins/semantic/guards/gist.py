"""A bolder plain form of a question, made for embedding only.

Two questions with the same gist are near, not equal: synonyms stand for each other, "good" and "interesting"
are "best", a closing "why?" is gone. What that loses is what the guards look at.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.stems import head, infinitive, singular
from llmcache_plugins.semantic.guards.words.function_words import BE, QUESTION_WORDS
from llmcache_plugins.semantic.guards.words.gist import BEST, DROPPED, PHRASES, REASONS, STARTING
from llmcache_plugins.semantic.guards.words.irregular import BASES, PARTICIPLES
from llmcache_plugins.semantic.guards.words.measures import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

# Longer lists of things are left in their order.
_MOST_WORDS: Final = 4
_HALVES: Final = {"morning": "am", "afternoon": "pm", "evening": "pm"}
_BY_WHOM: Final = (["by", "whom"], ["by", "who"])
_ABLE: Final = frozenset("can could should would might must may do".split())
_Phrase = tuple[tuple[str, ...], tuple[str, ...]]
_PHRASES: Final[dict[str, list[_Phrase]]] = {}
for _phrase in PHRASES:
    _PHRASES.setdefault(_phrase[0][0], []).append(_phrase)


def gist_of(sentences: Sequence[Sequence[str]]) -> str:
    """Return the text to embed in place of the plain sentences of a question."""
    if len(sentences) > 1:
        sentences = [words for words in sentences if tuple(words) not in REASONS] or sentences
    return " . ".join([" ".join(_bold(words)) for words in sentences])


def _bold(words: Sequence[str]) -> list[str]:
    if len(words) > 4 and words[-1] == "why":
        words = words[:-2] if words[-2] == "and" else words[:-1]
    words = _active(words)
    found: list[str] = []
    position, length = 0, len(words)
    if tuple(words[:3]) == ("what", "would", "be"):
        found, position = ["what", "is"], 3
    elif tuple(words[:2]) == ("what", "is") and words[3:4] == ["that"] and length > 5:
        words = ["what", words[2], *words[4:]]
        length = len(words)
    elif tuple(words[:2]) == ("what", "is") and "like" in words[3:]:
        words = [word for word in words if word != "like"]
        found, position, length = ["how", "is"], 2, len(words)
    elif words[0] == "how" and (skip := _to_you(words)):
        found, position = ["how", "to"], skip
    while position < length:
        word = words[position]
        if (phrases := _PHRASES.get(word)) is not None and (phrase := _at(words, position, phrases)):
            found += phrase[1]
            position += len(phrase[0])
            continue
        position += 1
        if word == "in" and position < length and found and found[-1][0].isdigit():
            half = _HALVES.get(words[position])
            if half is not None:
                found.append(half)
                position += 1
                continue
        if word in DROPPED:
            continue
        if found and found[-1] in STARTING:
            if word == "to":
                continue
            word = infinitive(word)
        elif word == "have" and position < length and _participle(words[position]):
            continue
        if found and found[-1][0].isdigit() and (unit := UNITS.get(word)):
            word = unit[0]
        found.append(_plainest(word))
    _sort(found)
    return found or list(words)


@lru_cache(maxsize=8192)
def _plainest(word: str, /) -> str:
    return "best" if word in BEST else head(singular(word))


def _participle(word: str) -> bool:
    return word in PARTICIPLES or (word.endswith("ed") and len(word) > 4)


def _active(words: Sequence[str]) -> Sequence[str]:
    """Put "how is honey made by bees" as "how bees make honey", "it was made by whom" as "who made it"."""
    if words[-2:] in _BY_WHOM and len(words) > 4 and _participle(words[-3]) and words[-4] in BE:
        return ["who", words[-3], *words[:-4]]
    if "by" not in words or words[0] not in QUESTION_WORDS or len(words) < 6 or words[1] not in BE:
        return words
    by = words.index("by")
    if by < 4 or by == len(words) - 1 or not _participle(words[by - 1]) or len(words) - by > _MOST_WORDS:
        return words
    verb = words[by - 1]
    return [words[0], *words[by + 1 :], BASES.get(verb, verb), *words[2 : by - 1]]


def _to_you(words: Sequence[str]) -> int:
    """Return how many words "how you", "how can you" has at the start; 0 if it is not there."""
    if words[1:2] == ["you"]:
        return 2
    return 3 if words[2:3] == ["you"] and words[1] in _ABLE else 0


def _at(words: Sequence[str], position: int, phrases: Sequence[_Phrase]) -> _Phrase | None:
    for phrase in phrases:
        if tuple(words[position : position + len(phrase[0])]) == phrase[0]:
            return phrase
    return None


def _sort(words: list[str]) -> None:
    """Put what stands on the two sides of a closing "and" or "or" in one order, where either will do."""
    if words[-2:-1] == ["or"] and len(words) > 3:
        words[-3], words[-1] = sorted((words[-3], words[-1]))
        return
    if "between" in words:
        start, joiner = words.index("between") + 1, "and"
    elif words[:1] == ["compare"]:
        start, joiner = 1, "and"
    else:
        return
    if words.count(joiner) != 1:
        return
    middle = words.index(joiner)
    left, right = words[start:middle], words[middle + 1 :]
    if left and right and max(len(left), len(right)) <= _MOST_WORDS and right < left:
        words[start:] = [*right, joiner, *left]
