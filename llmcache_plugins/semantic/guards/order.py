"""Word order: who does what to whom, and from where to where."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple

from llmcache_plugins.semantic.guards.negation import NEGATORS
from llmcache_plugins.semantic.guards.stems import concept
from llmcache_plugins.semantic.guards.tokens import BREAK, COMMA
from llmcache_plugins.semantic.guards.words.function_words import (
    BE,
    DO,
    FUNCTION_WORDS,
    HAVE,
    LIGHT,
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
_STRONG: Final = frozenset("from to into than over before after without instead under against".split())
_THERE: Final = frozenset(("from", "to", "into", "onto"))
_JOINERS: Final = frozenset(("and", "or", "versus", "/", "nor", "plus"))
_LEADING: Final = frozenset(("instead", "than"))
_EITHER_WAY: Final = frozenset(
    """
    between compare compared compares comparison difference differences differ similar similarities same
    versus distance relationship relation common
    """.split()
)
_LIGHT: Final = frozenset(map(concept, LIGHT))
# How many places apart two words may stand that an "and" joins.
_CLOSE: Final = 4
_BEFORE_A_VERB: Final = frozenset(
    """
    how what where when who way ways need needs want wants like try able going have has had learn order
    possible used best easy hard time steps step tips
    """.split()
)
_MOST_ROLES: Final = 20
_HOW: Final = "-ly"
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
_FRONTED: Final = frozenset("if when while using because although".split()) | _ROLES
# How many words further a participle stands from its "was".
_REACH: Final = 4

_NOTHING: Final[frozenset[tuple[str, str]]] = frozenset()


class Order(NamedTuple):
    """The content words of a text where they stand."""

    concepts: tuple[str, ...]
    roles: dict[str, str]  # concept -> the preposition before it, or ""
    joins: tuple[int, ...]  # places in `concepts` that have an "and" or the like before them
    breaks: tuple[int, ...]  # and those with a comma or a new sentence
    tight: frozenset[tuple[str, str]]  # neighbours, as in "fast animal"
    linked: frozenset[tuple[str, str]]  # those with an "is" between, as in "animal is the fastest"
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
    role = previous = last = ""
    gap: list[tuple[str, str]] | None = None  # where the next pair of neighbours belongs
    for word, written in zip(words, shown, strict=True):
        if word not in _LITTLE and word[0].isalnum():
            here = concept(word)
            if gap is not None:
                gap.append((last, here))
            if word.endswith("ly") and word not in _NO_ADVERBS:
                role_here = _HOW  # "ship safely" and "safely ship" are one
            else:
                role_here = "of" if written.endswith(_POSSESSIVE) else role
            roles.setdefault(here, role_here)
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
                gap = linked if word in BE else None
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
        bool(words) and words[0] in _FRONTED,
        _opening(words, present),
        not _EITHER_WAY.isdisjoint(present),
        passive,
        passive and "by" in present,
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
    if len(words) < 3 or words[0] != "who":
        return ""
    if words[1] in DO:
        return "" if words[2] in _BOUND else "whom"
    return "" if words[1] in FUNCTION_WORDS else "who"


def doer_asked(one: Order, other: Order) -> bool:
    """Whether one asks who did it, the other to whom it was done, and nothing else sets them apart."""
    if one.asks_for == other.asks_for or not (one.asks_for and other.asks_for):
        return False
    return one.roles.keys() == other.roles.keys()


def _passive(words: Sequence[str]) -> bool:
    since = _REACH + 1
    for word in words:
        if word in BE:
            since = 0
        elif since < _REACH:
            since += 1
            if word in PARTICIPLES or (word.endswith("ed") and len(word) > 4):
                return True
    return False


def exchanged(one: Order, other: Order) -> bool:
    """Whether words have changed parts: from A to B, from B to A; or one has: to A, from A."""
    if one.either_way and other.either_way:
        return False
    mine, yours = one.roles, other.roles
    if len(mine) < 2 or one.passive != other.passive:
        return False
    moves = {(role, there) for word, role in mine.items() if (there := yours.get(word, role)) != role}
    if not moves:
        return False
    left = {role for role, _ in moves}
    taken = {there for _, there in moves}
    return (
        any((there, role) in moves for role, there in moves)
        or any({role, there} <= _THERE and "from" in {role, there} for role, there in moves)
        or not _STRONG.isdisjoint(left & taken)
    )


def reordered(one: Order, other: Order) -> bool:
    """Whether words that both texts have follow each other differently, in a way that may matter."""
    if one.concepts == other.concepts or one.passive != other.passive:
        return False
    if [word for word in one.concepts if word in other.roles] == [
        word for word in other.concepts if word in one.roles
    ]:
        return False
    left, right = _bound(one, other), _bound(other, one)
    if left == right:
        return False
    turned = one.opening != other.opening or one.breaks or other.breaks or one.fronted or other.fronted
    if turned and _rotated(left, right):
        return False
    places_left = {word: place for place, word in enumerate(one.concepts)}
    places_right = {word: place for place, word in enumerate(other.concepts)}
    gone: set[str] = set()
    i = j = 0
    while i < len(left) and j < len(right):
        first, second = left[i], right[j]
        if first in gone:
            i += 1
        elif second in gone:
            j += 1
        elif first == second:
            i += 1
            j += 1
        elif _predicated(one, other, first, second) or (
            _joined(one, places_left[first], places_left[second])
            and _joined(other, places_right[second], places_right[first])
        ):
            gone.add(first)
            gone.add(second)
        else:
            return True
    return False


def _bound(text: Order, other: Order) -> list[str]:
    """Return the words whose place matters: that the other text has too, with no preposition of their own."""
    roles = [role for word, role in text.roles.items() if role and other.roles.get(word) == role]
    alone = {role for role in roles if roles.count(role) == 1} if len(roles) <= _MOST_ROLES else set(roles)
    return [
        word
        for word, role in text.roles.items()
        if (there := other.roles.get(word)) is not None
        and there == role
        and role not in alone
        and not word[0].isdigit()
        and word not in _LIGHT
    ]


def _predicated(one: Order, other: Order, first: str, second: str) -> bool:
    """Whether one text has "fast animal" where the other has "animal is fast"."""
    return ((first, second) in one.tight and (second, first) in other.linked) or (
        (first, second) in one.linked and (second, first) in other.tight
    )


def agent_kept(one: Order, other: Order) -> bool:
    """Whether a passive sentence has its words in the order of the active one: the parts are exchanged."""
    if one.agent == other.agent or one.concepts != other.concepts or len(one.concepts) < 3:
        return False
    return one.passive != other.passive


def _rotated(left: list[str], right: list[str]) -> bool:
    if len(left) != len(right) or not left or left[0] not in right:
        return False
    at = right.index(left[0])
    return right[at:] + right[:at] == left


def _joined(text: Order, start: int, end: int) -> bool:
    """Whether an "and" or the like stands between two places that are not far from each other."""
    if start > end:
        start, end = end, start
    return end - start <= _CLOSE and bisect_right(text.joins, end) > bisect_right(text.joins, start)
