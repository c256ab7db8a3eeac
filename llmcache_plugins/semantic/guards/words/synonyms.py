"""Words that may stand for each other in a question without changing its answer.

They keep a difference from being counted, and the first of a row is embedded in place of the others; no text is
called equal because of this table. Rows hold words of one kind: a word with two senses is in no row.
"""

from __future__ import annotations

SYNONYMS = """
advantage benefit pro upside
disadvantage drawback con downside shortcoming
buy purchase
get obtain acquire
big large huge enormous
small little tiny
biggest largest
smallest tiniest
fast quick rapid quickly swiftly speedy rapidly
fastest quickest
faster quicker
start begin commence
stop quit cease
finish complete
movie film
fix repair mend
build construct
make create produce generate
delete remove erase eliminate
difficult hard tough
easy simple
important significant essential vital crucial
importance significance
price cost fee
expensive costly pricey
cheap inexpensive affordable economical
job profession occupation career
company firm corporation enterprise
picture image photo photograph
rich wealthy
smart intelligent clever
happy glad
sad unhappy
scared afraid frightened
fear phobia
angry furious
tired exhausted
funny hilarious humorous
funniest hilarious
strange weird odd bizarre
beautiful pretty gorgeous
attractive handsome
dangerous hazardous unsafe
sick ill unwell
illness disease sickness
doctor physician
medicine medication
cure remedy
symptom sign
avoid prevent
allow permit let
forbid prohibit
need require
want wish desire
help assist aid
choose select pick
improve enhance
increase raise boost
decrease reduce lower lessen
check verify
find locate
see watch
error mistake
problem issue trouble
solve resolve
way method technique approach
purpose aim goal objective
effect impact influence consequence implication
affect influence
result outcome
happen occur
use utilize
car automobile
smartphone cellphone cell mobile
laptop notebook
computer pc
website site webpage
password passcode
email mail
change modify alter
update upgrade
register enroll
delivery shipping shipment
refund reimbursement
invoice bill
salary wage pay
money cash
apartment flat
shop store
vacation holiday
trip journey
restaurant eatery
food meal
healthy nutritious
exercise workout
child kid
baby infant
teenager teen adolescent
man guy
woman lady
mother mom
father dad
friend buddy pal
boss supervisor
employee worker
teacher instructor
student pupil
college university
exam test examination
author writer
color hue
size dimension
country nation
city town
area region zone
earth planet
universe cosmos
famous popular renowned
common usual typical
real genuine actual true
fake false bogus
correct right accurate
wrong incorrect
possible feasible
mandatory compulsory obligatory
fight battle
war conflict
kill murder
marry married wed
law legislation
illegal unlawful
recommend suggest
idea concept
opinion viewpoint
learn study
understand comprehend
remember recall memorize
speak talk
win victory
calculate compute
total sum
whole entire
empty blank
folder directory
program application software
function procedure
protect secure
refrigerator fridge
leak drip
disappear vanish
device gadget
convert transform
merge combine
alien extraterrestrial
bacteria germ
garbage trash rubbish waste
elevator lift
autumn fall
gasoline petrol
truck lorry
diaper nappy
sidewalk pavement
cookie biscuit
soccer football
pants trousers
eggplant aubergine
zucchini courgette
zipper zip
resume cv
flashlight torch
stove cooker
cinema theater
highway motorway freeway
luggage baggage suitcase
schedule timetable
slow sluggish
answer reply response
attorney lawyer
cancel terminate
allergy allergic
worst poorest
annoying irritating
deal cope
overcome conquer
"""

# Forms of one word that no rule of inflection gives.
FORMS = """
pronounce pronunciation
faucet tap
earth world
gift present
addict addictive addiction
procrastinate procrastination procrastinator
motivate motivation
attract attraction attractive
compete competition
educate education
celebrate celebration
destroy destruction
decide decision
believe belief
prove proof
live alive life
succeed success successful
fail failure
strong strength
weak weakness
deduct deduction deductible
renew renewal
require requirement
differ difference different
invest investment
advertise advertisement
develop development
manage management
perform performance
prepare preparation
apply application
die death dead
born birth
explain explanation
describe description
define definition
translate translation
meaning mean
begin beginning
fluent fluently fluency
know knowledge
refund refundable
weigh weight
high height
long length
deep depth
wide width
hot heat
invent invention inventor
discover discovery
found founder
employ employment
suggest suggestion
recommend recommendation
solve solution
analyze analysis
arrive arrival
depart departure
deliver delivery
lose loss
choose choice
sell sale
think thought
advise advice
sleep asleep
safe safety
hungry hunger
angry anger
math mathematics mathematical
economy economic economics
religion religious
"""
