"""Words that change what is asked although the canonical form does not keep them apart."""

from typing import Final

# In one of two texts alone: what is wanted, of whom it is said, abbreviations of two things.
TELLING: Final = frozenset(
    """
    ad anybody anyone app application bicycle bike cheers cos database db describe diff draft draught everybody everyone
    few find give list little message min minute msg name people plane airplane provide r recommend ref repo rn send
    show somebody someone storey story suggest temp temperature ts ur
    """.split()
)
FILLERS: Final = frozenset("actually basically er just kinda literally really so uh um well".split())
ABOUT_WORDS: Final = frozenset(
    """
    call called define definition diagram doctor mean meaning means nurse room say said spell translate visit word
    """.split()
)
ABOUT_SPELLING: Final = frozenset(
    """
    abbreviation acronym conjugate letter letters plural pronounce rhyme rhymes singular spell spelled spelling
    stand stands syllable syllables tense translate
    """.split()
)
# What may differ all the same where words are what is asked about.
HARMLESS: Final = frozenset(
    "a an can could do does how i is me of please s tell the thanks to what would you".split()
)
# After these "a" is a letter, or makes a difference: a few, vitamin A.
WITH_A: Final = frozenset(
    "blood class few grade group hepatitis influenza little plan print section type vitamin".split()
)
