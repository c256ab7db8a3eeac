"""Irregular forms and their base, and words that only look inflected."""

from __future__ import annotations

_PLURALS = """
man men; woman women; child children; person persons people; foot feet; tooth teeth; goose geese; mouse mice;
leaf leaves; life lives; knife knives; wife wives; half halves; wolf wolves; shelf shelves; loaf loaves;
criterion criteria; phenomenon phenomena; medium media; analysis analyses; crisis crises; thesis theses;
hypothesis hypotheses; movie movies; cookie cookies; zombie zombies; selfie selfies; genie genies; calorie calories; pie pies;
smoothie smoothies; brownie brownies; hoodie hoodies; index indices indexes; matrix matrices; vertex vertices; cactus cacti; fungus fungi
"""
_ROWS = """
create creates created creating; compete competes competed competing; require requires required requiring;
acquire acquires acquired acquiring; bus buses; go goes went gone going; get gets got gotten getting; make makes made making; take takes took taken taking;
come comes came coming; see sees saw seen seeing; know knows knew known; give gives gave given giving;
find finds found; think thinks thought thoughts; tell tells told; become becomes became; leave leaves leaving;
feel feels felt; bring brings brought; begin begins began begun; keep keeps kept; hold holds held;
write writes wrote written writing; stand stands stood; hear hears heard; let lets; mean means meant meaning;
set sets; meet meets met; run runs ran; pay pays paid; sit sits sat; speak speaks spoke spoken;
lie lies lay lain lying; lead leads led; read reads; grow grows grew grown; lose loses lost losing;
fall falls fell fallen; send sends sent; build builds built; understand understands understood; draw draws drew drawn;
break breaks broke broken; spend spends spent; cut cuts; rise rises rose risen; drive drives drove driven driving;
buy buys bought; wear wears wore worn; choose chooses chose chosen choosing; eat eats ate eaten; win wins won;
sell sells sold; teach teaches taught; catch catches caught; fight fights fought; forget forgets forgot forgotten;
sleep sleeps slept; fly flies flew flown; drink drinks drank drunk; sing sings sang sung; swim swims swam swum;
throw throws threw thrown; steal steals stole stolen; shake shakes shook shaken; hide hides hid hidden hiding;
bite bites bit bitten biting; freeze freezes froze frozen freezing; ride rides rode ridden riding;
wake wakes woke woken waking; beat beats beaten; blow blows blew blown; hit hits; hurt hurts; put puts; shut shuts;
cost costs; quit quits; spread spreads; bet bets; burn burns burned; dream dreams dreamed; learn learns learned;
lend lends lent; bend bends bent; feed feeds fed; bleed bleeds bled; breed breeds bred; swear swears swore sworn;
tear tears tore torn; shoot shoots shot; shine shines shone; seek seeks sought; stick sticks stuck; hang hangs hung;
dig digs dug; deal deals dealt; sink sinks sank sunk; ring rings rang rung; spring springs sprang sprung;
die dies died dying; tie ties tied tying; bear bears bore; better better; worse worse; do does did done doing;
have has had having; be is are was were been being am; say says said; lay lays laid; light lights lit;
news; species; series; always; physics; mathematics; economics; politics; ethics; athletics; electronics;
during; morning; evening; nothing; something; anything; everything; king; ceiling; wedding; string; spring; thing;
speed; need; seed; feed; weed; breed; embed; hundred; indeed; naked; sacred; red; bed; led; shed; sled;
lens; gas; bus; plus; virus; campus; status; focus; bonus; menu; minus; census; basis; tennis; paris; christmas; canvas; alias; bias; atlas; jeans; glasses; goods; customs; texas; kansas
"""

BASES: dict[str, str] = {}
for _row in f"{_PLURALS};{_ROWS}".split(";"):
    _forms = _row.split()
    for _form in _forms:
        BASES.setdefault(_form, _forms[0])
PLURALS = {form: row.split()[0] for row in _PLURALS.split(";") for form in row.split()[1:]}

# Participles that do not end in -ed.
PARTICIPLES = frozenset(
    """
    made done known given taken seen written spoken broken chosen driven eaten fallen forgotten frozen gotten hidden
    ridden stolen thrown worn grown drawn flown shown won sold told bought brought built caught cut felt fought found
    held hurt kept led left lent lost meant met paid put read run said sent set shot shut spent taught thought
    understood born begun drunk sung bitten beaten become hung heard hit laid bred fed
    """.split()
)
