"""Two profiles side by side: which words only one of them has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llmcache_plugins.semantic.guards.contrast import OPPOSITES, lacking, of_one_kind, unprefixed
from llmcache_plugins.semantic.guards.stems import akin

if TYPE_CHECKING:
    from llmcache_plugins.semantic.guards.profile import Profile

# Texts that share less are not compared word by word: 20 x 20 words are 400 comparisons.
_MOST_WORDS: Final = 20


class Pair:
    """The question asked and one that is stored, with what sets them apart.

    `opposites` and `of_a_kind` say that a word of one text excludes a word of the other; forms of one word
    and its misspellings are no difference.
    """

    __slots__ = ("asked", "both_sides", "of_a_kind", "only_asked", "only_stored", "opposites", "stored")

    def __init__(self, asked: Profile, stored: Profile) -> None:
        self.asked = asked
        self.stored = stored
        only_asked = asked.concepts - stored.everything
        only_stored = stored.concepts - asked.everything
        self.opposites = self.of_a_kind = self.both_sides = False
        if only_asked and only_stored and max(len(only_asked), len(only_stored)) <= _MOST_WORDS:
            only_asked, only_stored = self._match(only_asked, only_stored)
        opposable = [word for word in (*only_asked, *only_stored) if word in OPPOSITES]
        if opposable and not self.opposites:
            shared = asked.everything & stored.everything
            self.both_sides = any(not OPPOSITES[word].isdisjoint(shared) for word in opposable)
        self.only_asked = only_asked
        self.only_stored = only_stored

    def _match(
        self, only_asked: frozenset[str], only_stored: frozenset[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """Look for what words have to do with each other; return those that have another one's sense."""
        self.opposites = not (
            only_stored.isdisjoint(map(unprefixed, only_asked))
            and only_asked.isdisjoint(map(unprefixed, only_stored))
        )
        alone = len(only_asked) == len(only_stored) == 1
        same: list[tuple[str, str]] = []
        for mine in only_asked:
            others = OPPOSITES.get(mine, ())
            for yours in only_stored:
                # Forms of one word begin or end alike: a quick look that spares most pairs the close one.
                alike = mine[0] == yours[0] or mine[-1] == yours[-1]
                if yours in others or (alike and lacking(mine, yours)):
                    self.opposites = True
                elif alone and of_one_kind(mine, yours):
                    self.of_a_kind = True
                elif alike and akin(mine, yours):
                    same.append((mine, yours))
        if not same:
            return only_asked, only_stored
        mine_too, yours_too = zip(*same, strict=True)
        return only_asked.difference(mine_too), only_stored.difference(yours_too)
