"""Whether two texts have the same words in other parts: who does what to whom, from where to where."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.stems import concept
from llmcache_plugins.semantic.guards.words.function_words import LIGHT

if TYPE_CHECKING:
    from llmcache_plugins.semantic.guards.order import Order

# Parts that are never taken for one another.
_STRONG: Final = frozenset("from to into than over before after without instead under against".split())
_THERE: Final = frozenset(("from", "to", "into", "onto"))
_LIGHT: Final = frozenset(map(concept, LIGHT))
_COMPARE: Final = concept("compare")
# How many places apart two words may stand that an "and" joins.
_CLOSE: Final = 4
_MOST_ROLES: Final = 20


def doer_asked(one: Order, other: Order) -> bool:
    """Whether one asks who did it, the other to whom it was done, and nothing else sets them apart."""
    if one.asks_for == other.asks_for or not (one.asks_for and other.asks_for):
        return False
    return one.roles.keys() == other.roles.keys()


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
    turned = one.breaks or other.breaks or one.fronted or other.fronted
    # Of two words each order is a turn of the other.
    asked_late = one.opening != other.opening and len(left) > 2
    if (turned or asked_late) and _rotated(left, right):
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
        and word != _COMPARE
        and not (word in text.adverbs and word in other.adverbs)
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
