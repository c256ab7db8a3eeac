"""Pairs of opposites: if one text has one side and the other text the other, the answer turns round.

A row is `side / side`; each side is a set of words that may stand for each other here.
"""

from __future__ import annotations

PAIRS = """
advantage benefit pro upside strength merit / disadvantage drawback con downside weakness demerit
benefit / risk danger harm cost side-effect
good great best nice / bad worst poor terrible awful
better / worse
increase raise grow rise boost gain / decrease reduce lower lessen drop decline fall diminish shrink cut lose
gain / lose
maximize / minimize
maximum max highest most / minimum min lowest least fewest
more / less fewer
high tall / low short
higher / lower
up / down
upper / lower
upward / downward
upgrade / downgrade
upload / download
upstairs / downstairs
big large huge great giant major / small little tiny minor
bigger larger / smaller
biggest largest / smallest
long / short brief
longer / shorter
longest / shortest
lengthen / shorten
fast quick rapid / slow
faster quicker / slower
fastest quickest / slowest
accelerate / decelerate
hot warm / cold cool
hotter warmer / colder cooler
hottest warmest / coldest coolest
heat / cool
heating / cooling
old / new young recent modern
older / newer younger
oldest / newest youngest latest
ancient / modern
early / late
earlier / later
earliest / latest
before / after
ago / hence
first initial / last final
beginning start / end ending
begin start commence launch open activate enable / end stop finish quit close terminate deactivate disable
start / stop
open / close shut closed
enable activate / disable deactivate
on / off
turn-on / turn-off
in / out
inside indoor inner interior internal / outside outdoor outer exterior external
indoors / outdoors
inward / outward
import / export
input / output
inbound incoming / outbound outgoing
entry enter entrance arrive / exit leave depart
arrival / departure
come / go
push / pull
pull / push
add insert include append / remove delete exclude subtract erase
include / exclude
included / excluded
inclusive / exclusive
install / uninstall remove
subscribe / unsubscribe
follow / unfollow
join / leave quit
connect attach link / disconnect detach unlink
mount / unmount dismount
lock / unlock
load / unload
pack / unpack
block / unblock
mute / unmute
archive / unarchive
zip compress / unzip decompress extract
freeze / unfreeze thaw melt
dress / undress
tie fasten / untie unfasten
screw / unscrew
wrap / unwrap
encrypt encode / decrypt decode
encryption / decryption
serialize / deserialize
assemble / disassemble
inflate / deflate
inflation / deflation
expand / contract collapse shrink
assign allocate / free deallocate
create make build construct produce / destroy delete demolish
construct / demolish
appear / disappear vanish
show display reveal / hide conceal
visible / invisible hidden
public / private
publish / unpublish
send / receive
sender / recipient receiver
give / take receive
buy purchase / sell
buyer / seller
lend / borrow
lender / borrower
employer / employee
trainer / trainee
interviewer / interviewee
mentor / mentee
payer / payee
teacher / student pupil
landlord / tenant
doctor / patient
parent / child
host / guest
master / slave
leader / follower
supplier vendor / customer client
win / lose
winner / loser
victory / defeat
succeed / fail
success / failure
pass / fail
accept agree approve allow permit / reject decline refuse deny disagree forbid prohibit ban
allow permit allowed permitted / ban forbid prohibit prevent banned forbidden prohibited
accept / decline reject refuse
approve / reject disapprove
legal lawful / illegal unlawful
love like / hate dislike
friend / enemy foe
ally / enemy
happy / sad unhappy
happiness / sadness
pleasure / pain
rich wealthy / poor
richest wealthiest / poorest
wealth / poverty
richer / poorer
cheap inexpensive affordable / expensive costly dear
cheaper / pricier costlier
cheapest cheaper / expensive
cover / exclude
cheapest / priciest
strong powerful / weak
stronger / weaker
strongest / weakest
strengthen / weaken
strength / weakness
hard difficult tough / easy simple
harder / easier
hardest / easiest
hard / soft
harden / soften
heavy / light
heavier / lighter
heaviest / lightest
thick / thin
thicker / thinner
wide broad / narrow
wider / narrower
widen / narrow
deep / shallow
deepest / shallowest
fat / thin slim lean
full / empty
fill / empty drain
wet moist / dry
dark / light bright
bright / dim
loud noisy / quiet silent
smooth / rough
sharp / blunt dull
clean / dirty
tight / loose
tighten / loosen
alive living / dead
life / death
live / die
born birth / die death died dead
birthday / deathday
healthy / sick ill unhealthy
safe / dangerous unsafe
safest / dangerous
true / false
truth / lie myth
right / wrong
right / left
correct / incorrect wrong
positive / negative
plus / minus
add / subtract
addition / subtraction
multiply / divide
multiplication / division
numerator / denominator
even / odd
ascending / descending
ascend / descend
horizontal / vertical
parallel / perpendicular serial
forward forwards / backward backwards reverse
front / back rear
top / bottom
above over / below under beneath
north / south
northern / southern
east / west
eastern / western
near close / far distant
nearest closest / farthest furthest
together / apart
same identical equal / different
similarity / difference
similarities / differences
similar / different
compare / contrast
common frequent / rare uncommon
always / never sometimes
often frequently / rarely seldom
frequently / rarely
all / none
everything / nothing
everyone everybody / nobody
with / without
for / against
support / oppose
supporter / opponent
optimistic / pessimistic
optimist / pessimist
introvert introverted / extrovert extroverted
simple / complex complicated
singular / plural
single / married
marry / divorce
married / divorced unmarried
marriage / divorce
male / female
man / woman
men / women
boy / girl
boys / girls
boyfriend / girlfriend
husband / wife
father / mother
son / daughter
brother / sister
uncle / aunt
nephew / niece
king / queen
prince / princess
grandfather / grandmother
gentleman / lady
actor / actress
masculine / feminine
adult / child kid minor
baby / adult
urban / rural
domestic / foreign international
local / global remote
national / international
import / export
abroad overseas / domestically
natural organic / artificial synthetic
raw / cooked
fresh / stale frozen
sweet / sour bitter
static / dynamic
active / passive inactive
manual / automatic
manually / automatically
analog / digital
hardware / software
wired / wireless
online / offline
synchronous sync / asynchronous async
mutable / immutable
signed / unsigned
client / server
frontend front-end / backend back-end
theory / practice
theoretical / practical
qualitative / quantitative
quantity / quality
supply / demand
profit / loss
profitable / unprofitable
asset / liability
credit / debit
debit / credit
income revenue / expense expenditure outcome
deposit / withdraw withdrawal
surplus / deficit
bull bullish / bear bearish
gross / net
fixed / variable
long-term / short-term
temporary / permanent
temporarily / permanently
prepaid / postpaid
refundable / nonrefundable
paid / free unpaid
premium / free
professional / amateur
beginner novice / expert advanced
basic / advanced
ancestor / descendant
predecessor / successor
previous / next following
past / future
yesterday / tomorrow today
day / night
daytime / nighttime
morning / evening night
sunrise dawn / sunset dusk
summer / winter
weekday / weekend
weekdays / weekends
attack / defend
attack / defense
offense offensive / defense defensive
guilty / innocent
prosecution / defense
plaintiff / defendant
hero / villain
good / evil
angel / demon devil
heaven / hell
god / devil
war / peace
victim / perpetrator
cause / cure effect
cause / prevent
prevention / cure treatment
prevent / cure treat
poison / antidote
acid / base alkali
acidic / alkaline basic
oxidation / reduction
cathode / anode
proton / electron neutron
convex / concave
exothermic / endothermic
hyper / hypo
hypertension / hypotension
hyperglycemia / hypoglycemia
hyperthyroidism / hypothyroidism
bacterial / viral
bacteria / virus
acute / chronic
benign / malignant
artery / vein
inhale / exhale
inhalation / exhalation
systolic / diastolic
prokaryotic / eukaryotic
mitosis / meiosis
vertebrate / invertebrate
herbivore / carnivore
predator / prey
aerobic / anaerobic
organic / inorganic
metal / nonmetal
saturated / unsaturated
solid / liquid gas
liquid / gas solid
freeze / boil melt
freezing / boiling melting
boiling / melting freezing
evaporation / condensation
latitude / longitude
longitude / latitude
clockwise / anticlockwise counterclockwise
centripetal / centrifugal
kinetic / potential
series / parallel
ac / dc
emigrate / immigrate
emigration / immigration
emigrant / immigrant
explicit / implicit
explicitly / implicitly
formal / informal casual
formally / informally
fiction / nonfiction
comedy / tragedy
poetry / prose
vowel / consonant
uppercase / lowercase
prefix / suffix
synonym / antonym
question / answer
ask / answer
request / response
read / write
reading / writing
reader / writer
speak / listen
talk / listen
teach / learn
hire employ / fire dismiss
promote / demote
promotion / demotion
resign / stay
remember / forget
sleep / wake
stand / sit
laugh / cry
walk / drive run
throw / catch
save / spend waste
save / delete
keep / discard
pause / resume
mention / omit
build / break
fix repair / break
break / fix repair
break / build
cancel / confirm renew
renew / cancel
book / cancel
optional / mandatory compulsory required
mandatory required compulsory / optional
majority / minority
liberal / conservative
left-wing / right-wing
democrat / republican
democratic / republican authoritarian
democracy / dictatorship monarchy
capitalism / socialism communism
subjective / objective
abstract / concrete
specific / general
inductive / deductive
primary / secondary
secondary / tertiary
senior / junior
odd / even
employed / unemployed self-employed
employment / unemployment
literate / illiterate
legal / criminal
domestic / wild
vegetarian vegan / meat
recycle / discard
ingredient / nutrient
"""

# A word with one of these before it is the opposite of the word without, or another thing.
PREFIXES = tuple(
    "un in im il ir non dis de mis anti self pre post over under hyper hypo micro macro semi multi".split()
)
# Words that have no such meaning, though what follows the first letters is a word too.
ONLY_LOOK_PREFIXED = frozenset(
    """
    imprison income inform import impress improve increase invest insure instill imprint inspire indeed intent intend intern
    inside input install instance discover display disease discount dispose distance disorder district disk dismay
    depart desire detail deliver define decide degrade demand default describe design despite destroy depend
    pretend prevent prepare present preserve postpone understand undergo undertake overcome overview overall
    unit under unique underneath invent involve inhabit implant impart mistake mister misty
    """.split()
)
