"""Contractions, abbreviations and spellings, each with its plain form.

Only forms that mean exactly the same belong here: this table takes part in deciding that two texts are equal.
"""

from __future__ import annotations


def _table(rows: str) -> dict[str, tuple[str, ...]]:
    table = {}
    for row in rows.split(";"):
        short, _, plain = row.partition("=")
        for form in short.split():
            table[form] = tuple(plain.split())
    return table


# What has an apostrophe and is not covered by the endings n't, 'll, 've, 're, 'm, 'd.
CONTRACTIONS = _table(
    """
    what's whats wats = what is; who's whos = who is; where's wheres = where is; when's whens = when is;
    how's hows = how is; why's whys = why is; which's = which is;
    that's thats = that is; there's theres = there is; here's heres = here is; it's = it is;
    he's = he is; she's = she is; let's lets = let us; what're whatre = what are; how're = how are;
    i'm im iam = i am; you're youre = you are; they're theyre = they are; we're = we are;
    i've ive = i have; you've youve = you have; they've theyve = they have; we've weve = we have;
    i'd = i would; you'd = you would; we'd = we would; they'd = they would; he'd = he would; she'd = she would;
    what'd = what did; how'd = how did; where'd = where did; who'd = who would;
    can't cant cannot = can not; won't wont = will not; shan't = shall not; ain't aint = is not;
    don't dont = do not; doesn't doesnt = does not; didn't didnt = did not; isn't isnt = is not;
    aren't arent = are not; wasn't wasnt = was not; weren't werent = were not; haven't havent = have not;
    hasn't hasnt = has not; hadn't hadnt = had not; wouldn't wouldnt = would not;
    couldn't couldnt = could not; shouldn't shouldnt = should not; mustn't mustnt = must not;
    needn't neednt = need not; mightn't = might not; y'all yall = you; o'clock oclock = o'clock;
    gonna = going to; wanna = want to; gotta = have to; kinda = kind of; gimme = give me; lemme = let me;
    dunno = do not know; cuz coz bcoz 'cause = because; tho = though; thru = through
    """
)

ENDINGS = {
    "n't": ("not",),
    "'ll": ("will",),
    "'ve": ("have",),
    "'re": ("are",),
    "'m": ("am",),
    "'d": ("would",),
}

ABBREVIATIONS = _table(
    """
    u = you; ur = your; r = are; pls plz plse = please; thx thnx ty = thanks; pw pwd passwd = password;
    info = information; diff = difference; temp = temperature; rn = right now; asap = as soon as possible;
    btw = by the way; w/o = without; w/ = with; b/w = between; bw = between; vs = versus; & = and;
    approx = approximately; dept = department; govt = government; mgmt = management; acct = account;
    addr = address; msg = message; msgs = messages; pic = picture; pics = pictures; vid = video; vids = videos;
    docs = documents; doc = document; repo = repository; repos = repositories; config = configuration;
    configs = configurations; env = environment; db = database; dbs = databases; auth = authentication;
    app = application; apps = applications; apps' = applications; uni = university; univ = university;
    grad = graduate; ppl = people; bday = birthday; tmrw tmr = tomorrow; tonite = tonight; nite = night;
    yrs = years; yr = year; hrs = hours; hr = hour; mins = minutes; secs = seconds; wk = week; wks = weeks;
    mth = month; mths = months; dict = dictionary; dicts = dictionaries; func = function; funcs = functions;
    params = parameters; param = parameter; args = arguments; arg = argument; js = javascript;
    ts = typescript; py = python; postgres = postgresql; k8s = kubernetes; tel = telephone; fridge = refrigerator;
    phone = phone; tv = television; tvs = televisions; ad = advertisement; ads = advertisements;
    advert = advertisement; adverts = advertisements; ref = reference; max = maximum; min = minimum;
    avg = average; qty = quantity; esp = especially; prof = professor; exam = exam; exams = exams;
    ww1 wwi = world war 1; ww2 wwii = world war 2; 2fa = 2 factor authentication; math maths = mathematics;
    u.s u.s.a = usa; u.k = uk; e.u = eu; etc = etcetera; e.g. eg = for example; i.e. ie = that is;
    photo = picture; photos = pictures; wifi = wi fi; wi-fi = wi fi; e-mail = email; e-mails = emails;
    ok okay = okay; cos = because; mum mummy mom mommy = mother; dad daddy = father; grandma granny = grandmother;
    grandpa = grandfather; kid = child; kids = children; bike = bicycle; bikes = bicycles; flu = influenza;
    plane = aeroplane; planes = aeroplanes; airplane = aeroplane; airplanes = aeroplanes; tho = though
    """
)

# British and American: the pairs that no rule gives.
_PAIRS = """
    colour color, colours colors, coloured colored, favourite favorite, favourites favorites, flavour flavor,
    flavours flavors, honour honor, honours honors, labour labor, neighbour neighbor, neighbours neighbors,
    neighbourhood neighborhood, behaviour behavior, behaviours behaviors, humour humor, rumour rumor,
    rumours rumors, vapour vapor, harbour harbor, armour armor, odour odor, tumour tumor, saviour savior,
    centre center, centres centers, theatre theater, theatres theaters, metre meter, metres meters,
    litre liter, litres liters, kilometre kilometer, kilometres kilometers, centimetre centimeter,
    centimetres centimeters, millimetre millimeter, millimetres millimeters, fibre fiber, fibres fibers,
    calibre caliber, sombre somber, spectre specter, grey gray, tyre tire, tyres tires, cheque check,
    cheques checks, programme program, programmes programs, catalogue catalog, catalogues catalogs,
    dialogue dialog, analogue analog, licence license, licences licenses, defence defense, offence offense,
    practise practice, jewellery jewelry, aluminium aluminum, travelling traveling, travelled traveled,
    traveller traveler, travellers travelers, cancelled canceled, cancelling canceling, labelled labeled,
    labelling labeling, modelling modeling, modelled modeled, fulfil fulfill, enrol enroll, skilful skillful,
    instalment installment, instalments installments, mould mold, moult molt, plough plow, draught draft,
    pyjamas pajamas, yoghurt yogurt, whisky whiskey, doughnut donut, doughnuts donuts, kerb curb,
    anaemia anemia, diarrhoea diarrhea, oestrogen estrogen, paediatric pediatric, foetus fetus,
    oesophagus esophagus, manoeuvre maneuver, sceptical skeptical, cosy cozy, judgement judgment,
    ageing aging, analyse analyze, analysed analyzed, analysing analyzing, paralyse paralyze, learnt learned,
    burnt burned, dreamt dreamed, spelt spelled, whilst while, amongst among, towards toward,
    afterwards afterward, aeroplane aeroplane, artefact artifact, storey story, storeys stories
"""
SPELLINGS: dict[str, str] = {pair.split()[0]: pair.split()[1] for pair in _PAIRS.split(",")}

# Words in -ise whose American form is not in -ize.
NEVER_IZE = frozenset(
    """
    advise advised advises advising arise arisen arises arising comprise comprised comprises comprising
    compromise compromised compromises compromising devise devised devises devising disguise disguised
    enterprise enterprises exercise exercised exercises exercising expertise franchise franchises improvise
    improvised improvising merchandise otherwise paradise precise premise premises promise promised promises
    promising raise raised raises raising revise revised revises revising rise rises rising supervise
    supervised supervises supervising surprise surprised surprises surprising televise treatise wise likewise
    concise noise noises poise praise praised praises bruise bruises cruise cruises cruised cruising demise
    sunrise sunrises moonrise disease chemise excise incise despise despised despises apprise appraise appraised raised
    """.split()
)
