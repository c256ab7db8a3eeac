"""The order of the words of a text, and which part each has: who, to whom, from where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from llmcache_plugins.semantic.guards.negation import NEGATORS
from llmcache_plugins.semantic.guards.stems import concept
from llmcache_plugins.semantic.guards.tokens import BREAK, COMMA
from llmcache_plugins.semantic.guards.words.function_words import (
    BE,
    DO,
    FUNCTION_WORDS,
    HAVE,
    MODALS,
    QUESTION_WORDS,
)
from llmcache_plugins.semantic.guards.words.irregular import PARTICIPLES

if TYPE_CHECKING:
    from collections.abc import Sequence

# What follows one of these has a part in the sentence that its neighbours have not.
_ROLES: Final = frozenset(
    """
    from to into than over by of for in on at with against about before after without instead under as onto
    during through near via
    """.split()
)
_JOINERS: Final = frozenset(("and", "or", "versus", "/", "nor", "plus"))
_LEADING: Final = frozenset(("instead", "than"))
_EITHER_WAY: Final = frozenset(
    """
    between compare compared compares comparison difference differences differ similar similarities same
    versus distance relationship relation common
    """.split()
)
_BEFORE_A_VERB: Final = frozenset(
    """
    how what where when who way ways need needs want wants like try able going have has had learn order
    possible used best easy hard time steps step tips
    """.split()
)
_NO_ADVERBS: Final = frozenset(
    """
    family reply apply supply rely multiply assembly anomaly monopoly italy july bully belly jelly ally fly
    butterfly homely lovely friendly daily weekly monthly yearly early elderly only likely unlikely deadly
    costly silly ugly holy lily poly rally tally folly comply imply
    """.split()
)
_POSSESSIVE: Final = ("'s", "s'", "\u2019s", "s\u2019")
_BOUND: Final = frozenset("a an the my your his her its our their this that these those some any".split())
_LITTLE: Final = _ROLES | FUNCTION_WORDS | NEGATORS
_LATE: Final = frozenset("what which who whom how when where".split())
_BEFORE_LATE: Final = BE | HAVE | _ROLES
_FRONTED: Final = (
    frozenset("if when while using because although since after once until unless".split()) | _ROLES
)
# How many words further a participle stands from its "was".
_REACH: Final = 6
_HAVING_TO: Final = HAVE | frozenset("need needs needed ought supposed going".split())
_NO_AGENTS: Final = frozenset(
    "mistake accident default email mail post phone car bus train plane hand law chance now then".split()
)
_DOERS: Final = frozenset("who whom what".split())
_HELPING: Final = DO | HAVE | MODALS
_SUBJECTS: Final = frozenset("i you we they he she".split())

_NOTHING: Final[frozenset[tuple[str, str]]] = frozenset()


class Order(NamedTuple):
    """The content words of a text where they stand."""

    concepts: tuple[str, ...]
    roles: dict[str, str]  # concept -> the preposition before it, or ""
    joins: tuple[int, ...]  # places in `concepts` that have an "and" or the like before them
    breaks: tuple[int, ...]  # and those with a comma or a new sentence
    tight: frozenset[tuple[str, str]]  # neighbours, as in "fast animal"
    linked: frozenset[tuple[str, str]]  # those with an "is" between, as in "animal is the fastest"
    adverbs: tuple[str, ...]  # that may stand elsewhere: "ship safely", "safely ship"
    fronted: bool
    opening: str  # "it" of "is it hard to learn", "late" if the question word comes late: "he has how many"
    either_way: bool
    passive: bool
    agent: bool
    asks_for: str  # of "who": "whom" if it asks who is done to, as in "who did she meet", or "who"


def order(words: Sequence[str], shown: Sequence[str], present: frozenset[str]) -> Order:
    """Return the order of the content words, each once, with the preposition that governs it."""
    roles: dict[str, str] = {}
    joins: list[int] = []
    breaks: list[int] = []
    tight: list[tuple[str, str]] = []
    linked: list[tuple[str, str]] = []
    adverbs: list[str] = []
    role = previous = last = ""
    gap: list[tuple[str, str]] | None = None  # where the next pair of neighbours belongs
    for word, written in zip(words, shown, strict=True):
        if word not in _LITTLE and word[0].isalnum():
            here = concept(word)
            if gap is not None:
                gap.append((last, here))
            roles.setdefault(here, "of" if written.endswith(_POSSESSIVE) else role)
            if (
                word.endswith("ly")
                and not role
                and written.islower()
                and _is_adverb(words, words.index(word))
            ):
                adverbs.append(here)
            last, gap = here, tight
        elif word in _ROLES:
            # "instead of", "than in": the first says which part it is. "How to" says none.
            if not (role in _LEADING and previous == role):
                role = "" if word == "to" and previous in _BEFORE_A_VERB else word
            gap = None
        elif word in FUNCTION_WORDS:
            if word in _BOUND:
                if previous and previous not in _ROLES:
                    role = ""
            elif word != "not":
                gap = linked if word in BE and previous != "to" else None
                if word in _JOINERS:
                    joins.append(len(roles))
                else:
                    role = ""
        elif word in NEGATORS:
            gap = None
        else:
            gap = None
            if word in _JOINERS:
                joins.append(len(roles))
            else:
                role = ""
                if word in {BREAK, COMMA}:
                    breaks.append(len(roles))
                    if word == COMMA:
                        joins.append(len(roles))
        previous = word
    passive = not BE.isdisjoint(present) and _passive(words)
    return Order(
        tuple(roles),
        roles,
        tuple(joins),
        tuple(breaks),
        frozenset(tight) if tight else _NOTHING,
        frozenset(linked) if linked else _NOTHING,
        tuple(adverbs),
        bool(words) and words[0] in _FRONTED,
        _opening(words, present),
        not _EITHER_WAY.isdisjoint(present),
        passive,
        passive and "by" in present and _has_agent(words),
        _asked_for(words),
    )


def _opening(words: Sequence[str], present: frozenset[str]) -> str:
    if not words or words[0] in QUESTION_WORDS:
        return ""
    if words[0] in BE and words[1:2] == ["it"]:
        return "it"
    if _LATE.isdisjoint(present):
        return ""
    middle = max(len(words) // 2, 3)
    is_late = any(
        word in _LATE and words[place - 1] in _BEFORE_LATE
        for place, word in enumerate(words[middle:], start=middle)
    )
    return "late" if is_late else ""


def _asked_for(words: Sequence[str]) -> str:
    if len(words) < 3 or words[0] not in _DOERS:
        return ""
    if words[0] == "whom" or (words[1] in _HELPING and words[2] in _SUBJECTS):
        return "whom"
    if words[1] in DO:
        return "" if words[2] in _BOUND else "whom"
    return "who" if words[1] in HAVE or words[1] not in FUNCTION_WORDS else ""


def _is_adverb(words: Sequence[str], place: int) -> bool:
    """Whether a word in -ly says how something is done: not one of "happily married"."""
    word, after = words[place], words[place + 1] if place + 1 < len(words) else BREAK
    return not (word in _NO_ADVERBS or word.endswith("fly") or after in PARTICIPLES or after.endswith("ed"))


def _has_agent(words: Sequence[str]) -> bool:
    """Whether a passive sentence says by whom: not "by mistake"."""
    after = words.index("by") + 1
    ends = after + 1 >= len(words) or words[after + 1] in FUNCTION_WORDS or words[after + 1] == BREAK
    return not (ends and words[after : after + 1] and words[after] in _NO_AGENTS)


def _passive(words: Sequence[str]) -> bool:
    since = _REACH + 1
    for place, word in enumerate(words):
        if word in BE:
            # "A refuses to be met by B" says what A does.
            is_other_verb = words[place - 1] == "to" and place > 1 and words[place - 2] not in _HAVING_TO
            since = _REACH + 1 if is_other_verb else 0
        elif since < _REACH:
            since += 1
            if word in PARTICIPLES or (word.endswith("ed") and len(word) > 4):
                return True
    return False
