"""What a question may lose, and what may stand for what, in the text that is embedded for it."""

from __future__ import annotations

BEST = frozenset(
    "best good great nice cool interesting amazing awesome top excellent finest greatest wonderful".split()
)
DROPPED = frozenset("own ever currently presently nowadays properly also some any several very quite".split())

_DROPPED_PHRASES = """
in your opinion
in your view
in my opinion
according to you
do you think
these days
of all time
in world
on earth
lot of
lots of
number of
in order
in any way
"""
# Full names and their short ones, whichever is more usual.
_NAMES = """
united states of america = usa
united states = usa
u.s = usa
united kingdom = uk
great britain = uk
european union = eu
united nations = un
new york city = new york
world war ii = world war 2
world war i = world war 1
2nd world war = world war 2
1st world war = world war 1
right now = now
at moment = now
each other = one another
as well as = and
instead of = rather than
due to = because of
how come = why
get rid of = remove
log in = login
sign in = login
log into = login
sign into = login
log on = login
sign up = register
log out = logout
sign out = logout
switch off = turn off
switch on = turn on
"""
_INITIALS = """
ai = artificial intelligence
atm = cash machine
ceo = chief executive officer
cfo = chief financial officer
cto = chief technology officer
cpi = consumer price index
cv = resume
diy = do it yourself
dob = date of birth
eta = estimated time of arrival
ev = electric vehicle
evs = electric vehicle
faq = frequently asked questions
fps = frames per second
gdp = gross domestic product
gpa = grade point average
gui = graphical user interface
imf = international monetary fund
ipo = initial public offering
iq = intelligence quotient
kpi = key performance indicator
mpg = miles per gallon
ngo = non governmental organization
nlp = natural language processing
os = operating system
pto = paid time off
roi = return on investment
rsi = repetitive strain injury
sme = small business
tax id = tax number
ui = user interface
ux = user experience
vat = value added tax
vpn = virtual private network
"""


def _pairs(rows: str) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    found = []
    for row in rows.strip().splitlines():
        left, _, right = row.partition("=")
        found.append((tuple(left.split()), tuple(right.split())))
    return tuple(found)


PHRASES = _pairs(_DROPPED_PHRASES + _NAMES.lstrip() + _INITIALS.lstrip())
"""Phrases and what takes their place: nothing, for most."""

# Sentences that only ask for a reason on top.
REASONS = frozenset(
    tuple(row.split())
    for row in ("why", "why not", "and why", "why or why not", "please explain", "any idea", "explain")
)
# Before a gerund or an infinitive, which say the same there.
STARTING = frozenset("start begin stop keep continue like love hate prefer try commence".split())
