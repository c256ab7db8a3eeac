"""Words that carry the grammar of a sentence rather than what it is about."""

from __future__ import annotations

ARTICLES = frozenset(("a", "an", "the"))
BE = frozenset("is are am was were be been being".split())
DO = frozenset("do does did doing done".split())
HAVE = frozenset("have has had having".split())
MODALS = frozenset("can could will would shall should may might must ought need dare".split())
AUXILIARIES = BE | DO | HAVE | MODALS
QUESTION_WORDS = frozenset("what which who whom whose when where why how".split())
PRONOUNS = frozenset(
    """
    i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself
    we us our ours ourselves they them their theirs themselves one someone somebody anyone anybody everyone
    everybody something anything everything this that these those there here thing things people person
    """.split()
)
PREPOSITIONS = frozenset(
    """
    of in on at to for from by with about into onto over under between among through during against toward
    upon off out up down within via per like as across along around behind beside near than using inside
    outside beyond
    """.split()
)
CONJUNCTIONS = frozenset("and or but if so because while whether then though although since".split())
# Say how strongly, not what.
ADVERBS = frozenset(
    """
    really actually exactly basically just simply very quite so too also even still ever truly literally
    generally usually typically normally currently presently nowadays properly anyway please kindly well
    else quite rather such more much most many lot lots some any all each every few several both own other
    another same way ways
    """.split()
)
FUNCTION_WORDS = (
    ARTICLES
    | AUXILIARIES
    | QUESTION_WORDS
    | PRONOUNS
    | PREPOSITIONS
    | CONJUNCTIONS
    | ADVERBS
    | frozenset("not no nor never none cannot without versus etcetera okay let".split())
)

# Content words that hardly ever decide what the answer is; one more or less of them costs little.
LIGHT = frozenset(
    """
    best good great better nice top ideal recommended popular famous interesting amazing favorite important
    main major common certain specific different various possible available existing real true new current
    get getting go going make use used want wants need know find see look come take give tell say think believe
    consider mean try keep help work called based involved related considered especially approximately
    kind kinds type types sort sorts example examples right method methods tip tips step steps idea ideas thing
    place places part parts number amount lot bit time times day life world reason reasons view views opinion
    opinions thought thoughts experience question questions answer answers fact facts difference differences
    something currently nowadays today now ever exact exactly overall general complete entire whole easy easily
    quick quickly simple successfully effectively effective efficient actual personal
    """.split()
)
