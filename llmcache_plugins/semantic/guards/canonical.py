"""One plain form for the ways to put a question.

Greetings, politeness, articles and the closing sign go; "how do I", "how can one" and "what is the best way
to" become "how to". Knows the frames of questions; never touches a number, a name, a negation, or the order
of what is asked.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from llmcache_plugins.semantic.guards.stems import infinitive
from llmcache_plugins.semantic.guards.tokens import BREAK, COMMA
from llmcache_plugins.semantic.guards.words.frames import (
    AFTERTHOUGHTS,
    AGREEMENT,
    CLOSERS,
    FILLERS,
    FRAMES,
    GOOD,
    GREETINGS,
    INDIRECT,
    OPENERS,
    REQUESTS,
    SAYING,
    WAY,
)
from llmcache_plugins.semantic.guards.words.function_words import AUXILIARIES, QUESTION_WORDS

if TYPE_CHECKING:
    from collections.abc import Sequence

# What may follow "hello", "well", "so" and the like if those say nothing.
_STARTS: Final = (
    QUESTION_WORDS | AUXILIARIES | REQUESTS | frozenset("i please just good excuse sorry thanks".split())
)
_GREETING: Final = GREETINGS | frozenset(
    "good there all everyone team guys folks dear thank you so ok okay well".split()
)
# Rounds of frames: "could you explain what is meant by" takes three.
_ROUNDS: Final = 4


class _Pattern(NamedTuple):
    steps: tuple[tuple[frozenset[str], bool], ...]  # words that fit, and whether one has to
    replacement: tuple[str, ...]
    keeps_last: bool  # the last word matched stays
    indirect: bool

    def end(self, words: Sequence[str], start: int) -> int:
        """Return the position after what fits at `start`, or -1."""
        position, length = start, len(words)
        for options, optional in self.steps:
            if position < length and words[position] in options:
                position += 1
            elif not optional:
                return -1
        return position

    def may_begin(self, first: str, second: str) -> bool:
        """Whether it may fit where these two words are; `second` is "" at the end."""
        words, position = (first, second), 0
        for options, optional in self.steps:
            if position == len(words):
                return True
            if words[position] in options:
                position += 1
            elif not optional:
                return False
        return True


class _Table:
    """Patterns in their order. Most are ruled out by two words, and that is remembered."""

    def __init__(self, *patterns: dict[str, tuple[_Pattern, ...]]) -> None:
        self._by_first = _merged(*patterns)
        self._fitting = lru_cache(maxsize=4096)(self._filtered)

    def at(self, words: Sequence[str], position: int) -> tuple[_Pattern, ...]:
        """Return those that may fit at a position."""
        first = words[position]
        if first not in self._by_first:
            return ()
        return self._fitting(first, words[position + 1] if position + 1 < len(words) else "")

    def _filtered(self, first: str, second: str, /) -> tuple[_Pattern, ...]:
        return tuple(one for one in self._by_first[first] if one.may_begin(first, second))


def _patterns(rows: str, *, indirect: bool = False) -> dict[str, tuple[_Pattern, ...]]:
    table: dict[str, list[_Pattern]] = {}
    for row in rows.strip().splitlines():
        left, _, right = row.partition(" =")
        steps = []
        for step in left.split():
            optional = step.endswith("?")
            names = step.removesuffix("?").replace("GOOD", GOOD).replace("WAY", WAY)
            if names == "DO":
                steps.append((REQUESTS, optional))
            else:
                steps.append((frozenset(name.removesuffix("?") for name in names.split("|")), optional))
        replacement = tuple(right.split())
        keeps = replacement == ("\\2",) or left.endswith(" DO")
        pattern = _Pattern(tuple(steps), () if keeps else replacement, keeps, indirect)
        firsts: set[str] = set()
        for options, optional in steps:
            firsts |= options
            if not optional:
                break
        for first in firsts:
            table.setdefault(first, []).append(pattern)
    return {first: tuple(found) for first, found in table.items()}


def _merged(*tables: dict[str, tuple[_Pattern, ...]]) -> dict[str, tuple[_Pattern, ...]]:
    merged: dict[str, tuple[_Pattern, ...]] = {}
    for table in tables:
        for first, patterns in table.items():
            merged[first] = merged.get(first, ()) + patterns
    return merged


_OPENERS: Final = _Table(_patterns(INDIRECT, indirect=True), _patterns(OPENERS))
_FRAMES: Final = _Table(_patterns(FRAMES))
_CLOSERS: Final = _Table(_patterns(CLOSERS))


def plain_sentences(words: Sequence[str], shown: Sequence[str]) -> list[list[str]]:
    """Return the words of each sentence in their plain form."""
    sentences = []
    current: list[str] = []
    length = len(words)
    for position, word in enumerate(words):
        if word not in _NOT_PLAIN:
            current.append(AGREEMENT.get(word, word))
        elif word == BREAK or (word == COMMA and _ends_politeness(words, position, current)):
            sentences.append(current)
            current = []
        elif word in _ARTICLES:
            # "vitamin A" and what ends in a letter are no articles.
            if word == "a" and (position + 1 == length or (position and shown[position] == "A")):
                current.append(word)
        elif word == "am":
            current.append(word if _after_number(words, position) else AGREEMENT.get(word, word))
    sentences.append(current)
    sentences = [sentence for sentence in sentences if sentence]
    only = len(sentences) == 1
    return [plain for sentence in sentences if (plain := _plain(sentence, only=only))]


_ARTICLES: Final = frozenset(("a", "an", "the"))
_NOT_PLAIN: Final = _ARTICLES | FILLERS | {BREAK, COMMA, "am"}


def _ends_politeness(words: Sequence[str], position: int, before: list[str]) -> bool:
    """Whether a comma stands after a greeting, or before a "thanks"."""
    return words[position + 1] in AFTERTHOUGHTS or _GREETING.issuperset(before)


def _after_number(words: Sequence[str], position: int) -> bool:
    return position > 0 and words[position - 1][0].isdigit()


def canonical_text(sentences: Sequence[Sequence[str]], text: str) -> str:
    """Return the plain form as text; of a text without any, the text."""
    if not sentences:
        return " ".join(text.split())
    if len(sentences) == 1:
        return " ".join(sentences[0])
    return " . ".join([" ".join(sentence) for sentence in sentences])


def _plain(sentence: list[str], *, only: bool) -> list[str]:
    if GREETINGS.issuperset(sentence):
        return []
    start, indirect = _opened(sentence)
    end = _closed(sentence, start)
    if start >= end:
        return sentence if only else []
    words = sentence[start:end]
    if indirect:
        _turn(words)
    for _ in range(_ROUNDS):
        if not _reframe(words):
            break
    if len(words) > 2 and words[0] in REQUESTS and words[1] in {"me", "us"}:
        del words[1]
    if words[0] in QUESTION_WORDS:
        _ask(words)
    return words


def _opened(words: list[str]) -> tuple[int, bool]:
    start, indirect = 0, False
    while start < len(words):
        for pattern in _OPENERS.at(words, start):
            end = pattern.end(words, start)
            if end == start + 1 and end < len(words) and words[end] not in _STARTS:
                continue
            if end > start:
                start = end - 1 if pattern.keeps_last else end
                indirect = indirect or pattern.indirect
                break
        else:
            break
        if pattern.keeps_last:
            break
    if indirect and start + 1 < len(words) and words[start] in {"if", "whether"}:
        start += 1
    return start, indirect


def _closed(words: list[str], start: int) -> int:
    end = len(words)
    for position in range(max(start + 1, end - 5), end):
        for pattern in _CLOSERS.at(words, position):
            if pattern.end(words, position) == end and words[position - 1] not in SAYING:
                return position
    return end


def _turn(words: list[str]) -> None:
    """Put the verb of an indirect question where a direct one has it: "how far the moon is"."""
    if len(words) > 3 and words[-1] in {"is", "was"} and words[0] in QUESTION_WORDS:
        verb = words.pop()
        words.insert(2 if words[0] == "how" or words[1] in {"time", "year", "day"} else 1, verb)


def _reframe(words: list[str]) -> bool:
    for pattern in _FRAMES.at(words, 0):
        end = pattern.end(words, 0)
        if end > 0:
            if end >= len(words) and len(pattern.replacement) != end:
                continue
            new = (
                [words[end - 1], *words[end:]] if pattern.keeps_last else [*pattern.replacement, *words[end:]]
            )
            if new == words:
                continue
            words[:] = new
            return True
    return False


def _ask(words: list[str]) -> None:
    """Drop the "do" of a question, and turn "what does it mean" into "what is it"."""
    if len(words) > 2 and words[1] == "do":
        if words[0] == "what" and words[-1] == "mean":
            words[:] = ["what", "is", *words[2:-1]]
        elif words[0] == "what" and words[-2:] == ["stand", "for"]:
            words[:] = ["what", "is", "full", "form", "of", *words[2:-2]]
        else:
            del words[1]
    for start in (1, 2):
        if words[start : start + 3] == ["is", "it", "that"] and len(words) > start + 3:
            del words[start : start + 3]
    if words[:2] == ["how", "to"] and len(words) > 2:
        words[2] = infinitive(words[2])
