"""Whether the answer to one question may be given to another: the judge of two profiles."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import msgspec

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.semantic.guards.dates import differ
from llmcache_plugins.semantic.guards.faithful import (
    accents_differ,
    faithful,
    numbers_exchanged,
)
from llmcache_plugins.semantic.guards.little_words import opposed, owners_differ
from llmcache_plugins.semantic.guards.names import missing, renamed
from llmcache_plugins.semantic.guards.pair import Pair
from llmcache_plugins.semantic.guards.profile import profile_of
from llmcache_plugins.semantic.guards.quantifiers import conflict
from llmcache_plugins.semantic.guards.quantities import numbers_differ, units_differ
from llmcache_plugins.semantic.guards.question import exclude, far
from llmcache_plugins.semantic.guards.reordering import agent_kept, doer_asked, exchanged, reordered
from llmcache_plugins.semantic.guards.sentences import parted_otherwise, without_shared
from llmcache_plugins.semantic.guards.stems import concept
from llmcache_plugins.semantic.guards.words.function_words import LIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llmcache_plugins.semantic.guards.profile import Profile


class Guard(enum.StrEnum):
    """What is checked before an answer is given to a question worded differently."""

    WORD_ORDER = "word_order"
    NUMBERS = "numbers"
    UNITS = "units"
    DATES = "dates"
    NEGATION = "negation"
    ANTONYMS = "antonyms"
    QUANTIFIERS = "quantifiers"
    NAMES = "names"
    CODE = "code"
    QUESTION_WORD = "question_word"
    WORDING = "wording"


class Veto(msgspec.Struct, frozen=True):
    """Why a guard says that the answer must not be given; `reason` holds nothing of the texts."""

    guard: Guard
    reason: str


class Verdict(msgspec.Struct, frozen=True):
    """What the guards say of two texts.

    `penalty` (none if the gists are equal) is to be taken off their similarity; it is negative where the
    wording speaks for them. `passed` are the guards that had nothing against them; `same_text` means that the
    canonical texts are equal: then no guard is asked.
    """

    vetoes: tuple[Veto, ...]
    penalty: float
    passed: tuple[Guard, ...]
    same_text: bool


# Penalties, in cosine of the default embedder: what a logistic regression of "same" on the cosine and these
# signs gave on half of the labelled pairs, rounded; the other half gave the same within 0.01.
_LITTLE_WORDS: Final = 0.005  # nothing but little words differs
_ONE_THING: Final = (0.015, 0.005)  # other words differ, and no little word, or a single one
_OTHER_WORD: Final = -0.004  # each word that only one text has, up to the most that are counted
_MOST_OTHER_WORDS: Final = 6
_QUESTION: Final = 0.045  # why, and what
_NEAR_QUESTION: Final = 0.02  # how, and what
_TENSE: Final = 0.02
_ONE_NAME: Final = 0.025
_BOTH_SIDES: Final = 0.035

_LIGHT: Final = frozenset(map(concept, LIGHT))


def _word_order(pair: Pair) -> str | None:
    one, other = pair.asked.order, pair.stored.order
    if exchanged(one, other):
        return "a word has changed its part, as in from A to B and from B to A"
    if reordered(one, other) or agent_kept(one, other) or doer_asked(one, other):
        return "the same words in another order"
    return None


def _numbers(pair: Pair) -> str | None:
    if numbers_differ(pair.asked.quantities, pair.stored.quantities):
        return "the numbers differ"
    if pair.asked.has_digits and pair.stored.has_digits:
        exchanged_ = numbers_exchanged(pair.asked.text, pair.stored.text)
        return "the numbers in another order" if exchanged_ else None
    return None


def _units(pair: Pair) -> str | None:
    return "the units differ" if units_differ(pair.asked.quantities, pair.stored.quantities) else None


def _dates(pair: Pair) -> str | float | None:
    asked, stored = pair.asked, pair.stored
    if differ(asked.dates, stored.dates):
        return "the dates or times differ"
    if asked.tense == stored.tense:
        return None
    return "one is about the past, one about the future" if asked.tense and stored.tense else _TENSE


def _negation(pair: Pair) -> str | None:
    return "one is negated" if (pair.asked.negators - pair.stored.negators) % 2 else None


def _antonyms(pair: Pair) -> str | float | None:
    if pair.opposites:
        return "a word and its opposite"
    if pair.of_a_kind:
        return "two things of one kind"
    if opposed(pair.asked.opposed, pair.stored.opposed):
        return "little words that are opposites"
    is_how_to = pair.asked.question == pair.stored.question == "manner"
    if not is_how_to and owners_differ(pair.asked.owners, pair.stored.owners):
        return "of somebody else"
    return _BOTH_SIDES if pair.both_sides else None


def _quantifiers(pair: Pair) -> str | None:
    return "the quantifiers differ" if conflict(pair.asked.quantifiers, pair.stored.quantifiers) else None


def _names(pair: Pair) -> str | float | None:
    asked, stored = pair.asked, pair.stored
    mine = missing(asked.names.concepts, stored.everything, stored.canonical)
    yours = missing(stored.names.concepts, asked.everything, asked.canonical)
    if (mine and yours) or renamed(asked.names, stored.names):
        return "the names differ"
    return _ONE_NAME if mine or yours or asked.names.initials != stored.names.initials else None


def _code(pair: Pair) -> str | None:
    asked, stored = pair.asked, pair.stored
    if asked.signs != stored.signs:
        return "the signs differ"
    if asked.code - stored.present and stored.code - asked.present:
        return "the identifiers differ"
    if asked.has_accents or stored.has_accents:
        return "the accents differ" if accents_differ(asked.text, stored.text) else None
    return None


def _question_word(pair: Pair) -> str | float | None:
    asked, stored = pair.asked.modality, pair.stored.modality
    if asked != stored and asked and stored:
        return "one asks what may be done, the other what should or must"
    one, other = pair.asked.question, pair.stored.question
    if one == other:
        return None
    if exclude(one, other):
        return "they ask for different things"
    if not (one and other):
        return None
    return _QUESTION if far(one, other) else _NEAR_QUESTION


def _wording(pair: Pair) -> float:
    """Return the cost of what only one text says.

    Texts that are alike but for one thing are the near-misses; those that differ in many ways and are near
    each other all the same are mostly paraphrases.
    """
    little = len(pair.asked.little ^ pair.stored.little)
    others = len(pair.only_asked) + len(pair.only_stored)
    cost = _OTHER_WORD * min(others, _MOST_OTHER_WORDS)
    if pair.only_asked <= _LIGHT and pair.only_stored <= _LIGHT:
        return cost + _LITTLE_WORDS if little else cost
    return cost + _ONE_THING[little] if little < len(_ONE_THING) else cost


_CHECKS: Final[dict[Guard, Callable[[Pair], str | float | None]]] = {
    Guard.WORD_ORDER: _word_order,
    Guard.NUMBERS: _numbers,
    Guard.UNITS: _units,
    Guard.DATES: _dates,
    Guard.NEGATION: _negation,
    Guard.ANTONYMS: _antonyms,
    Guard.QUANTIFIERS: _quantifiers,
    Guard.NAMES: _names,
    Guard.CODE: _code,
    Guard.QUESTION_WORD: _question_word,
    Guard.WORDING: _wording,
}
_GREATER: Final = 0.85
# The cosine of a vector with itself, less what float32 loses.
_EQUAL: Final = 0.9999
_TOO_LONG: Final = "one of the texts is too long to be compared"
_NO_WORDS: Final = "one of the texts has no words"
_IN_LETTERS: Final = "the same but for letters, marks or digits that may count"


def nearness(text: float, gist: float) -> float:
    """Return the similarity to judge by: of the cosines of two texts and of their gists, mostly the greater.

    A penalty is taken off it. What the gist alone says is believed a little less than what both say, unless
    the gists are equal.
    """
    if gist >= _EQUAL:
        return gist
    return _GREATER * max(text, gist) + (1 - _GREATER) * text


class Guards:
    """The guards that are switched on. Stateless: one instance serves every thread and loop."""

    def __init__(self, enabled: Iterable[Guard | str] = tuple(Guard)) -> None:
        chosen = set()
        for name in enabled:
            try:
                chosen.add(Guard(name))
            except ValueError as error:
                raise ConfigError(f"there is no guard {name!r}; the guards are {', '.join(Guard)}") from error
        self._checks = tuple((guard, check) for guard, check in _CHECKS.items() if guard in chosen)
        self.enabled = tuple(guard for guard, _ in self._checks)

    def judge(self, asked: Profile, stored: Profile) -> Verdict:
        """Return whether the answer to `stored` may be given to `asked`; pure, never raises.

        A text that is too long is vetoed unless it is the same, whichever guards are on.
        """
        if asked.canonical == stored.canonical:
            if faithful(asked.text, stored.text):
                return Verdict((), 0.0, (), same_text=True)
            return Verdict((Veto(Guard.WORDING, _IN_LETTERS),), 0.0, (), same_text=False)
        if not (asked.has_words and stored.has_words):
            return Verdict((Veto(Guard.WORDING, _NO_WORDS),), 0.0, (), same_text=False)
        if asked.too_long or stored.too_long:
            return Verdict((Veto(Guard.WORDING, _TOO_LONG),), 0.0, (), same_text=False)
        pair = Pair(asked, stored)
        vetoes: list[Veto] = []
        passed: list[Guard] = []
        penalty = 0.0
        for guard, check in self._checks:
            found = check(pair)
            if found is None:
                passed.append(guard)
            elif isinstance(found, str):
                vetoes.append(Veto(guard, found))
            else:
                penalty += found
                if found <= 0:
                    passed.append(guard)
        if asked.sentences > 1 and stored.sentences > 1 and not vetoes:
            vetoes += self._of_sentences(asked, stored)
        if asked.gist == stored.gist:
            penalty = 0.0
        return Verdict(tuple(vetoes), penalty, tuple(passed), same_text=False)

    def _of_sentences(self, asked: Profile, stored: Profile) -> tuple[Veto, ...]:
        """Return the vetoes of what is left when both have some sentences: those hide what differs."""
        same, mine, yours = without_shared(asked.text, stored.text)
        is_parted = asked.concepts == stored.concepts and parted_otherwise(mine, yours)
        if is_parted and Guard.WORD_ORDER in self.enabled:
            return (Veto(Guard.WORD_ORDER, "the same words in other sentences"),)
        if not (same and mine and yours):
            return ()
        return self.judge(profile_of(" ".join(mine)), profile_of(" ".join(yours))).vetoes
