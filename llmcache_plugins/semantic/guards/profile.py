"""All that the guards know about one text, read once.

`profile_of` is pure and takes time linear in the text. It knows English; of other languages it sees the
numbers, names and code.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from llmcache_plugins.semantic.guards.canonical import canonical_text, plain_sentences
from llmcache_plugins.semantic.guards.code import identifiers
from llmcache_plugins.semantic.guards.dates import dates
from llmcache_plugins.semantic.guards.faithful import signs
from llmcache_plugins.semantic.guards.gist import gist_of
from llmcache_plugins.semantic.guards.little_words import OWNER_WORDS, opposable
from llmcache_plugins.semantic.guards.names import Names, names
from llmcache_plugins.semantic.guards.negation import negators
from llmcache_plugins.semantic.guards.order import Order, order
from llmcache_plugins.semantic.guards.quantifiers import quantifiers
from llmcache_plugins.semantic.guards.quantities import Quantities, quantities
from llmcache_plugins.semantic.guards.question import modality, question
from llmcache_plugins.semantic.guards.stems import concept
from llmcache_plugins.semantic.guards.tense import tense
from llmcache_plugins.semantic.guards.tokens import tokens_of
from llmcache_plugins.semantic.guards.words.function_words import FUNCTION_WORDS

# Longer texts are more than a question; the guards read the start of them only.
MAX_CHARACTERS: Final = 4000

_DIGIT: Final = re.compile(r"\d")
# One for all: what is empty in most texts is not to be fetched from memory for each.
_NOTHING: Final[frozenset[str]] = frozenset()


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the guards compare of a text.

    `canonical` is its plain form; two texts with equal ones ask the same. `gist` is a form to embed
    beside the text: the greater of the two similarities is the one to judge by. `too_long` texts are read up
    to `MAX_CHARACTERS`, and are the same as another only by their canonical text, which is all of theirs.
    """

    text: str
    has_words: bool
    signs: tuple[str, ...]
    has_digits: bool
    has_accents: bool
    canonical: str
    gist: str
    too_long: bool
    concepts: frozenset[str]
    everything: frozenset[str]
    present: frozenset[str]
    little: frozenset[str]
    quantities: Quantities
    dates: frozenset[str]
    tense: str
    negators: int
    quantifiers: frozenset[str]
    opposed: frozenset[str]
    owners: frozenset[str]
    names: Names
    code: frozenset[str]
    order: Order
    question: str
    modality: str
    sentences: int


def profile_of(text: str) -> Profile:
    """Return what the guards need to know of `text`, in time linear in its length; never raises."""
    too_long = len(text) > MAX_CHARACTERS
    words, shown = tokens_of(text[:MAX_CHARACTERS] if too_long else text)
    present = frozenset(words)
    sentences = plain_sentences(words, shown)
    canonical = canonical_text([] if too_long else sentences, text)
    arranged = order(words, shown, present)
    return Profile(
        text=text,
        has_words=any(map(str.isalnum, canonical)),
        signs=() if too_long else signs(text),
        has_digits=_DIGIT.search(canonical) is not None,
        has_accents=not text.isascii(),
        canonical=canonical,
        gist=gist_of(sentences) or canonical,
        too_long=too_long,
        # Numbers are looked at by themselves.
        concepts=frozenset([word for word in arranged.concepts if not word[0].isdigit()]),
        everything=frozenset(map(concept, present)),
        present=present,
        little=FUNCTION_WORDS.intersection(canonical.split()),
        quantities=quantities(words, shown, present),
        dates=dates(words, shown, present),
        tense=tense(words, present),
        negators=negators(words, present),
        quantifiers=quantifiers(words, present),
        opposed=opposable(words, present),
        owners=present & OWNER_WORDS or _NOTHING,
        names=names(words, shown, present),
        code=identifiers(words, shown),
        order=arranged,
        question=question(sentences),
        modality=modality(sentences),
        sentences=len(sentences),
    )
