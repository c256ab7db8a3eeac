"""Ways to open and to close a question that change nothing about what is asked.

A pattern is a row of words: `a|b` is one of them, a `?` at the end makes it optional. Articles are not
written: they are gone before. A row without `=` is dropped, others are replaced by what follows it.
"""

from __future__ import annotations

# Dropped from the start of a sentence, again and again; what follows is a question in the order of a statement.
INDIRECT = """
could|can|would|will you please|kindly? tell|inform|remind to? me|us
could|can|would|will you please|kindly? help me|us? understand
could|can|would|will you please|kindly? let me|us know
tell|remind me|us
let me|us know
explain to? me|us
do|would you happen? to? know
do you have any idea
does|do anyone|anybody|someone know|knows
may|can|could|might i|we ask|know you?
i was|is just? wondering|curious|asking about?
i wonder|wondered
i would like|love to know|ask
i want|need|wish to know
i want|need you to tell|explain|show to? me
"""

# Dropped from the start of a sentence.
OPENERS = """
hi|hello|hey|dear|greetings|hiya there|all|everyone|team|guys|folks|sir|madam?
good morning|afternoon|evening|day
please|kindly|well|so|ok|okay|um|uh|hmm|er|umm|uhm|oh|yeah|yes|hm
excuse|pardon me
sorry|apologies to? bother|disturb|trouble|interrupt? you? but?
thank you so|very? much? in? advance?
thanks so|very|a? much|lot? in? advance?
if you do not mind me? asking?
just? curious but?|about?
just wondering|asking
quick|one|simple? question
i have quick|simple|small? question
could|can|would|will you please|kindly? help me|us to? DO
help me|us to? DO
could|can|would|will you please|kindly? DO
could|can|would|will you please
i would like|love|want|need you to
i want|need you to
i would like|love to
out of curiosity
"""
# What an assistant is asked to do: "can you DO" is a request, "can you swim" is a question.
REQUESTS = frozenset(
    """
    recommend suggest give write draft fix summarize translate describe list name compare convert calculate compute
    create generate make solve rewrite provide help define find check correct compose outline plan tell show
    explain teach proofread paraphrase simplify shorten improve design code debug review
    """.split()
)

# Dropped from the end of a sentence.
CLOSERS = """
please
thanks so|very|a? much|lot? in? advance?
thank you so|very? much? in? advance?
cheers
or not
"""
# After one of these, polite words are what is asked about: "how do I say thank you".
SAYING = frozenset(
    "say says saying spell pronounce write mean means translate word words phrase of to in than not".split()
)
# After a comma they are a sentence of their own.
AFTERTHOUGHTS = frozenset("please thanks thank cheers ta".split())

# Replaced at the start of a sentence; the first that fits, once each round.
FRAMES = """
for what reason|reasons = why
how come = why
why is it that = why
what is main|actual|real|possible|exact? reason|reasons that|why|for|behind? = why
at|by|in|on|during what|which time|date|year = when
what|which date|year = when
by|since|from when = when
in what|which way|ways|manner = how
how can|do|could|should|would|might|must|may i|we|one|someone|somebody|anyone|person|people go about = how to
how can|do|could|should|would|might|must|may i|you|we|one|someone|somebody|anyone|person|people define|describe = what is
how can|do|could|should|would|might|must|may i|we|one|someone|somebody|anyone|person|people = how to
how i|we|one can|could|should|might|may|must = how to
how to go about = how to
how to i = how to
what is|would be? some|any|few|several|of? GOOD? GOOD? WAY to|of|for|in|on = how to
what is|would be? some|any|few|several|of? GOOD? GOOD? WAY i|you|we|one can|could|should = how to
what some|any|of? GOOD WAY to|of|for|in|on = how to
GOOD WAY to|of|for = how to
what should|can|could|must i|you|we|one|someone|people|person do in? order? to = how to
how to know that = how to know if
how to tell|see|determine|check|find|know out? if|whether|when = how to know if
what should|shall i|you|we|one = what to
what do i|you|we|one have|need to do in? order? to = how to
what do i|you|we|one have|need to = what to
what do it take to = how to
where can|do|could|should|would|might i|you|we|one|someone|people = where to
when do|should|shall i|you|we|one|someone|people = when to
who can|do|could|should|would i|you|we|one = who to
is there any|some? GOOD? WAY for|of? me|us|you|someone? to = can i
is there any|some? GOOD? WAY i|you|we|one can = can i
is it possible for? me|us|you|one|someone|people? to = can i
is i|you|we|one able|allowed to = can i
why is i|you|we|one not able to = why can not i
why is i|you|we|one unable to = why can not i
can|could we|one|someone|people|person = can i
should you|we|one|people = should i
what do you|we|i|people mean by = what is
what is meant by = what is
what is meaning|definition of = what is
about = what is
step|steps|way|ways|method|methods to = how to
how big|large is = what is size of
what is height of = how tall is
what is length|duration of = how long is
what is width of = how wide is
what is depth of = how deep is
what is time in = what time is it in
meaning|definition of = what is
define = what is
show|teach me|us how = \\2
explain|describe how|why|what|when|where|who|which = \\2
explain|describe = what is
describe = what is
list of? = what is
name some|any|few|several|all = what is
suggest|recommend|provide some|any|few|several? = what is
give|show|suggest|recommend|find|send me|us some|any|few|several|list? of? = what is
what is some|few|several|any of? = what is
what happens|will|would happen? if|when = what happens if
what will|would happen|be if|when = what happens if
how is it like to|being? = what is it like to
how is it to = what is it like to
from where = where
have you got = do you have
what do you think about|on|regarding = what do you think of
what is your opinion|opinions|view|views|thought|thoughts|take|feelings on|about|of|regarding = what do you think of
how do you feel about = what do you think of
how long do it take to = how long to
how do it feel like? to = what is it like to
what do it feel like? to = what is it like to
what is it like being|to = what is it like to
which one = what
which = what
how many number of = how many
what is number of = how many
what is age of = how old is
how many people live|living in = what is population of
what is price|cost of = how much is
how much do it cost to = what is cost to
"""
GOOD = (
    "best|good|right|proper|ideal|great|better|correct|possible|recommended|effective|nice|different|various"
)
WAY = "way|ways|method|methods|approach|approaches|technique|techniques|tip|tips|steps|strategy|strategies|trick|tricks|procedure|process"

# Dropped wherever they stand.
FILLERS = frozenset("um uh er uhm hmm umm actually basically literally really".split())
# A sentence of only these says nothing.
GREETINGS = frozenset("morning afternoon evening thanks cheers regards ta hi hello hey please sorry".split())
# Agreement in number says nothing about what is asked.
AGREEMENT = {"whether": "if", "are": "is", "am": "is", "were": "was", "does": "do", "has": "have", "an": "a"}
