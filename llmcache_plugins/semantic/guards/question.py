"""What kind of answer a question asks for: a reason, a time, a place, a manner, yes or no."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.words.function_words import (
    AUXILIARIES,
    BE,
    DO,
    PREPOSITIONS,
    QUESTION_WORDS,
)
from llmcache_plugins.semantic.guards.words.measures import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEGREES: Final = {
    "much": "amount",
    "many": "count",
    "long": "duration",
    "often": "frequency",
    "far": "distance",
    "old": "age",
    "soon": "when",
    "big": "size",
    "large": "size",
    "tall": "size",
    "high": "size",
    "deep": "size",
    "wide": "size",
    "heavy": "size",
    "hot": "degree",
    "cold": "degree",
    "fast": "degree",
    "quickly": "degree",
    "hard": "degree",
    "difficult": "degree",
    "good": "degree",
    "bad": "degree",
    "safe": "degree",
    "likely": "degree",
    "accurate": "degree",
    "important": "degree",
    "effective": "degree",
    "strong": "degree",
    "reliable": "degree",
}
_MEASURES: Final = {"time": "duration", "month": "duration", "length": "distance"}
_TIME: Final = frozenset("time year date day month".split())
_PLACE: Final = frozenset("place city country state location".split())
_YES_NO: Final = AUXILIARIES


_MAY: Final = "may"
_MUST: Final = "must"
_SHOULD: Final = "should"
_OPENING: Final = {
    **dict.fromkeys("can could may might".split(), _MAY),
    "must": _MUST,
    **dict.fromkeys(("should", "ought"), _SHOULD),
}
_PREDICATES: Final = {
    **dict.fromkeys("possible allowed permitted legal ok okay".split(), _MAY),
    **dict.fromkeys("necessary required mandatory compulsory obligatory".split(), _MUST),
    **dict.fromkeys("advisable recommended wise".split(), _SHOULD),
}
# "is it really necessary"
_REACH: Final = 4


def modality(sentences: Sequence[Sequence[str]]) -> str:
    """Return whether the first sentence asks if one may, must or should; "" if none of these."""
    words = sentences[0] if sentences else ()
    first = words[0] if words else ""
    if first in BE:
        return next((_PREDICATES[word] for word in words[1:_REACH] if word in _PREDICATES), "")
    if first in DO:
        has_to = any(one in {"have", "need"} and other == "to" for one, other in pairwise(words))
        return _MUST if has_to else ""
    return _OPENING.get(words[1] if first == "who" and len(words) > 1 else first, "")


def question(sentences: Sequence[Sequence[str]]) -> str:
    """Return the kind of the first sentence that is a question; "" if there is none."""
    for sentence in sentences:
        if kind := _kind(sentence):
            return kind
    return ""


def _kind(words: Sequence[str]) -> str:
    first = words[0]
    if first in QUESTION_WORDS:
        return _named(first, words[1:3])
    if first in _YES_NO:
        return "yes-no"
    for position, word in enumerate(words):
        if (
            word in QUESTION_WORDS
            and word != "that"
            and (position == 0 or words[position - 1] in PREPOSITIONS or word == "how" or word == "why")
        ):
            return _named(word, words[position + 1 : position + 3])
    for position, word in enumerate(words):
        if word in {"what", "who", "whom", "where"}:
            return _named(word, words[position + 1 : position + 3])
    return ""


def _named(word: str, rest: Sequence[str]) -> str:
    after = rest[0] if rest else ""
    if word == "how":
        if after == "many" and (unit := UNITS.get(rest[-1])):
            return _MEASURES.get(unit[1], "count")
        return "manner" if after == "to" or "you" in rest else _DEGREES.get(after, "how")
    if word in {"what", "which"}:
        if after in _TIME:
            return "when"
        return "where" if after in _PLACE else "what"
    if word in {"whom", "whose"}:
        return "who"
    return word


# One of these asks for something that none of the others asks for.
_FACTS: Final = frozenset(
    "why when where who count amount duration frequency distance age size degree".split()
)
_SAME_FACT: Final = frozenset(
    (frozenset(("count", "amount")), frozenset(("where", "who")), frozenset(("when", "duration")))
)
# Far apart, and now and then answered by one answer.
_FAR: Final = frozenset(
    frozenset(pair.split())
    for pair in (
        "how why",
        "how where",
        "how who",
        "manner why",
        "what why",
        "what who",
        "what when",
        "count what",
        "amount what",
        "size what",
        "manner yes-no",
        "yes-no who",
        "yes-no where",
        "yes-no when",
        "yes-no why",
        "yes-no what",
        "duration manner",
        "amount manner",
        "count manner",
    )
)


def exclude(one: str, other: str) -> bool:
    """Whether two kinds of question never have one answer: why and when."""
    if one == other:
        return False
    return one in _FACTS and other in _FACTS and frozenset((one, other)) not in _SAME_FACT


def far(one: str, other: str) -> bool:
    """Whether two kinds of question seldom have one answer."""
    return frozenset((one, other)) in _FAR
