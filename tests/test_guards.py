"""Guards: near-misses are told from paraphrases whatever the vectors say; no text raises or takes long."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.semantic.guards import Guard, Guards, Verdict, nearness, profile_of
from llmcache_plugins.semantic.guards.profile import MAX_CHARACTERS
from llmcache_plugins.semantic.scoring import similarity

_TRAPS = Path(__file__).parent / "data" / "traps.jsonl"
TRAPS = [json.loads(line) for line in _TRAPS.read_text(encoding="utf-8").splitlines()]

DIFFERENT = {
    Guard.WORD_ORDER: [
        ("Can a dog chase a cat?", "Can a cat chase a dog?"),
        ("Convert euros to dollars", "Convert dollars to euros"),
        ("Is gold heavier than lead?", "Is lead heavier than gold?"),
        ("How long is the flight from Rome to Oslo?", "How long is the flight from Oslo to Rome?"),
        ("Should I use Rust instead of Go?", "Should I use Go instead of Rust?"),
        ("Translate this from Dutch into Polish", "Translate this from Polish into Dutch"),
        ("How long is the bus to Graz?", "How long is the bus from Graz?"),
        ("How to convert a list to a tuple", "How to convert a tuple to a list"),
        ("how to turn milk to cheese", "how to turn cheese to milk"),
        ("What does a lion eat?", "What eats a lion?"),
        ("Did the fox eat the hen?", "Did the hen eat the fox?"),
        ("Can I fly before surgery after chemotherapy?", "Can I fly after surgery before chemotherapy?"),
        ("Who did Bjorn lose to?", "Who lost to Bjorn?"),
        ("Is Bergen in Norway? Does Oslo pay Bergen?", "Is Bergen in Norway? Does Bergen pay Oslo?"),
        ("It passes at home. It fails at work.", "It passes at work. It fails at home."),
        ("What leads to rust?", "What does rust lead to?"),
        ("Who has blocked me?", "Whom have I blocked?"),
        ("Is Emily older than John?", "Is John older than Emily?"),
        ("Is a dragonfly faster than a hornet?", "Is a hornet faster than a dragonfly?"),
        ("Should I use Bitly instead of TinyURL?", "Should I use TinyURL instead of Bitly?"),
        ("Why do happily married men cheat?", "Why do married men happily cheat?"),
        ("Which are the insects birds eat in winter?", "Which are the birds that insects eat in winter?"),
        ("Was it Microsoft that used Google first?", "Did Google use Microsoft first?"),
        ("Flowers use bees for what?", "What do bees use flowers for?"),
        ("Was the pedestrian hit by car drivers?", "Did the pedestrian hit car drivers?"),
    ],
    Guard.NUMBERS: [
        ("What is 12 plus 30?", "What is 12 plus 31?"),
        ("Name three rivers in Spain", "Name five rivers in Spain"),
        ("What is new in release 2.10.1?", "What is new in release 2.10.2?"),
        ("Is 1,500 steps a day enough?", "Is 15,000 steps a day enough?"),
        ("Who was the 3rd president?", "Who was the 4th president?"),
        ("What is 5 percent of 80?", "What is 8 percent of 80?"),
        ("When did George IV reign?", "When did George VI reign?"),
        ("How do I sum 5²?", "How do I sum 52?"),
        ("Is a debt of 2 million bad?", "Is a debt of 2 billion bad?"),
    ],
    Guard.UNITS: [
        ("How far is 5 km on foot?", "How far is 5 miles on foot?"),
        ("Set the delay to 20 ms", "Set the delay to 20 s"),
        ("Is 40 mg a day too much?", "Is 40 mg a week too much?"),
        ("How much is £30 in francs?", "How much is $30 in francs?"),
        ("How tall is the tower in feet?", "How tall is the tower in metres?"),
    ],
    Guard.DATES: [
        ("Is the shop open on Monday?", "Is the shop open on Sunday?"),
        ("What is the weather in Bergen in June?", "What is the weather in Bergen in October?"),
        ("What did we sell last month?", "What did we sell this month?"),
        ("Is there a train at 7 am?", "Is there a train at 7 pm?"),
        ("What should I wear in winter?", "What should I wear in summer?"),
        ("Will the team play abroad?", "Did the team play abroad?"),
    ],
    Guard.NEGATION: [
        ("Which cheeses are pasteurised?", "Which cheeses are not pasteurised?"),
        ("Can I cook rice with a lid?", "Can I cook rice without a lid?"),
        ("Why does my cat sleep?", "Why doesn't my cat sleep?"),
        ("Which plants need light?", "Which plants never need light?"),
        ("Which drinks contain sugar?", "Which drinks are sugar-free?"),
        ("What should I eat with gout?", "What should I avoid eating with gout?"),
        ("I do not remember my password", "I remember my password"),
        ("I don't know if I'm pregnant. Can I drink?", "I'm pregnant. Can I drink?"),
        ("Should one who does not know how to swim row?", "Should one who knows how to swim row?"),
        ("I do not know when I sleep. How do I plan?", "I know when I sleep. How do I plan?"),
    ],
    Guard.ANTONYMS: [
        ("How do I open the valve?", "How do I close the valve?"),
        ("What are the benefits of fasting?", "What are the risks of fasting?"),
        ("How do I install the driver?", "How do I uninstall the driver?"),
        ("Is the tenant liable for damage?", "Is the landlord liable for damage?"),
        ("How do I clean a wool carpet?", "How do I clean a silk carpet?"),
        ("What are good arguments for a tax?", "What are good arguments against a tax?"),
        ("Drop the first row", "Drop the last row"),
        ("When is the next match?", "When is the last match?"),
        ("Can I swim before lunch?", "Can I swim after lunch?"),
        ("How do I turn the alarm on?", "How do I turn the alarm off?"),
        ("Is my account locked?", "Is your account locked?"),
        ("What is the boiling point of iron?", "What is the melting point of iron?"),
        ("Can I swim there during the flood?", "Can I swim there after the flood?"),
        ("Is the pool open until noon?", "Is the pool open after noon?"),
        ("Can I return it within the trial?", "Can I return it after the trial?"),
        ("Who ruled before the war?", "Who ruled since the war?"),
        ("What if the launch is successful?", "What if the launch is unsuccessful?"),
        ("Which town has the most cafes?", "Which town has the fewest cafes?"),
        ("How do I zoom in in a map?", "How do I zoom out in a map?"),
    ],
    Guard.QUANTIFIERS: [
        ("Do all birds fly?", "Do some birds fly?"),
        ("Do most birds fly?", "Do all birds fly?"),
        ("Who has at least 4 votes?", "Who has at most 4 votes?"),
        ("Show bills of more than 9 euros", "Show bills of less than 9 euros"),
        ("Do many people own boats?", "Do few people own boats?"),
        ("How do I delete all of my posts?", "How do I delete one of my posts?"),
    ],
    Guard.NAMES: [
        ("When was Virginia Woolf born?", "When was Agatha Christie born?"),
        ("Do I need a visa for Ghana?", "Do I need a visa for Togo?"),
        ("do i need a visa for peru", "do i need a visa for chile"),
        ("Who runs UNESCO today?", "Who runs UNICEF today?"),
        ("What is the tuition at Boston University?", "What is the tuition at Boston College?"),
        ("Where is the Coral Company of Hull based?", "Where is the Coral Corporation of Hull based?"),
        ("What did George H. W. Hill write?", "What did George W. Hill write?"),
    ],
    Guard.CODE: [
        ("What does os.path.join return?", "What does os.path.split return?"),
        ("How do I mock get_user?", "How do I mock set_user?"),
        ("What does the flag --force do?", "What does the flag --quiet do?"),
        ("Why error E1042?", "Why error E1055?"),
        ("Does the PS4 have HDR?", "Does the PS5 have HDR?"),
        ("How do I learn C++ fast?", "How do I learn C# fast?"),
    ],
    Guard.QUESTION_WORD: [
        ("When did the bridge collapse?", "Why did the bridge collapse?"),
        ("Where is the tower?", "How tall is the tower?"),
        ("Who built the canal?", "When was the canal built?"),
        ("Can I bring a dog?", "Must I bring a dog?"),
        ("Do I have to bring a helmet?", "May I bring a helmet?"),
        ("Is it possible to retire late?", "Is it advisable to retire late?"),
        ("Who may vote?", "Who must vote?"),
    ],
}
"""Pairs that one answer does not serve, by the guard that has to say so."""

SAME = [
    ("How do I boil eggs?", "How to boil eggs?"),
    ("What's the capital of Peru?", "What is the capital of Peru"),
    ("Isn't it risky to dive alone?", "Is it risky to dive alone?"),
    ("What is the distance between Turin and Milan?", "What is the distance between Milan and Turin?"),
    ("In Ruby, how do I sort a hash?", "How do I sort a hash in Ruby?"),
    ("Is tea or coffee stronger?", "Is coffee or tea stronger?"),
    ("How is bread made by bakers?", "How do bakers make bread?"),
    ("How long is 90 minutes?", "How long is 1.5 hours?"),
    ("What happened on 3 May 1999?", "What happened on May 3rd, 1999?"),
    ("Which animals can't jump?", "Which animals are unable to jump?"),
    ("Which snacks have no salt?", "Which snacks don't have any salt?"),
    ("What does the WHO do?", "What does the World Health Organization do?"),
    ("When does the US vote?", "When does the USA vote?"),
    ("Give me 3 names", "Give me three names"),
    ("What is 25% of 80?", "What is twenty-five percent of eighty?"),
    ("Who won World War II?", "Who won World War 2?"),
    ("Is there a bus at 7:30?", "Is there a bus at half past seven?"),
    ("Why is my account locked?", "Why is my accuont locked?"),
    ("What is the colour of honey?", "What is the color of honey?"),
    ("Tell me what a monad is, please", "What is a monad?"),
    ("How do you tie your shoes?", "How do I tie my shoes?"),
    ("Does it cost $2 million?", "Does it cost 2,000,000 dollars?"),
    ("Which foods are gluten-free?", "Which foods are without gluten?"),
    ("Write a letter to my landlord", "Draft a letter to my landlord"),
    ("What is the fastest animal?", "Which animal is the fastest?"),
    ("What are some famous bridges?", "What are the most famous bridges?"),
    ("What is Mozart's birthplace?", "What is the birthplace of Mozart?"),
    ("How do I set up 2FA?", "How do I set up two-factor authentication?"),
    ("Is it legal, yes or no?", "Is it legal?"),
    (
        "How do I turn 2 million into 3 million dollars?",
        "How do I turn 2 million dollars into 3 million dollars?",
    ),
    ("Which university has the best food?", "Which college has the best food?"),
    ("Where does the President of Chile live?", "Where does the Chilean president live?"),
    ("How can I ship a lamp overseas safely?", "How can I safely ship a lamp overseas?"),
    ("During which century was the tower built?", "The tower was built during which century?"),
    ("Is it hard to learn Basque?", "Is Basque hard to learn?"),
    ("What was Wilde imprisoned for?", "Why did Wilde go to prison?"),
    ("How does the council set the dog licence fee?", "How is the dog licence fee set by the council?"),
    ("Since the update my watch is slow", "My watch is slow since the update"),
    ("Compare tea and coffee", "How do tea and coffee compare?"),
    ("They charged me a fee by mistake", "I was charged a fee by mistake"),
    ("Why were Rs. 5 and Rs. 10 coins withdrawn?", "Why have Rs. 10 and Rs. 5 coins been withdrawn?"),
]
"""Pairs that one answer serves: no guard may say otherwise."""

EQUAL = [
    ("How do I boil rice?", "how can i boil rice"),
    ("How do I boil rice?", "Hi! Could you please tell me how to boil rice? Thanks"),
    ("How do I boil rice?", "What is the best way to boil rice?"),
    ("What does LGTM mean?", "meaning of LGTM"),
    ("What is entropy?", "Please explain entropy."),
    ("How far is the Moon?", "Do you know how far the Moon is?"),
    ("Why do cats purr?", "What is the reason that cats purr?"),
    ("Is it possible to learn piano alone?", "Can I learn piano alone?"),
    ("It isn't on", "It is not on"),
    ("The 3 bears", "the three bears"),
    ("caf\u00e9 \u201cnoir\u201d", 'cafe\u0301 "noir"'),
    ("wait\u2026 what is C++?", "Wait... what is C++"),
]
"""Pairs with one canonical text."""

UNEQUAL = [
    ("How do you say thank you?", "How do you say please?"),
    ("Hello world in C", "World in C"),
    ("Well water", "Water"),
    ("What is 5²?", "What is 52?"),
    ("What is (2+3)*4?", "What is 2+(3*4)?"),
    ("What is vitamin A?", "What is vitamin?"),
    ("Is it on?", "Is it not on?"),
    ("Does it help us?", "Does it help US?"),
    ("How do you ship orders?", "How do I ship orders?"),
    ("x = 3", "x = -3"),
    ("Name of the king", "The king"),
    ("!", "?"),
    ("", "Hi"),
]
"""Pairs whose difference no canonical text may lose."""

WORDS = """
what how is are not no never 3 three half past 7:30 km kg £ % from to than and or , . ? the a US Rome rome
foo_bar C++ --force more less all some before after please thanks hi ( ) - ' " ` 0.5 4rd you my n't 's College
"""
texts = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from(WORDS.split()),
        max_size=30,
    ).map(" ".join),
)


def judged(one: str, other: str, *, guards: Guards | None = None) -> Verdict:
    return (guards or Guards()).judge(profile_of(one), profile_of(other))


def vetoing(verdict: Verdict) -> set[Guard]:
    return {veto.guard for veto in verdict.vetoes}


@pytest.mark.parametrize(
    ("guard", "one", "other"), [(guard, *pair) for guard, pairs in DIFFERENT.items() for pair in pairs]
)
def test_a_difference_that_matters_is_vetoed(guard: Guard, one: str, other: str):
    assert guard in vetoing(judged(one, other))
    assert guard in vetoing(judged(other, one))


@pytest.mark.parametrize(
    ("guard", "one", "other"), [(guard, *pair) for guard, pairs in DIFFERENT.items() for pair in pairs]
)
def test_a_guard_that_is_switched_off_vetoes_nothing(guard: Guard, one: str, other: str):
    without = Guards(set(Guard) - {guard})

    assert guard not in vetoing(judged(one, other, guards=without))
    assert vetoing(judged(one, other, guards=Guards([guard]))) == {guard}


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_one_answer_serves_is_not_vetoed(one: str, other: str):
    assert judged(one, other).vetoes == ()
    assert judged(other, one).vetoes == ()


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_ways_to_put_the_same_question_have_one_canonical_text(one: str, other: str):
    assert profile_of(one).canonical == profile_of(other).canonical
    assert judged(one, other).same_text


@pytest.mark.parametrize(("one", "other"), UNEQUAL)
def test_a_canonical_text_loses_no_negation_number_name_or_order(one: str, other: str):
    assert profile_of(one).canonical != profile_of(other).canonical


def test_no_two_different_questions_among_the_traps_have_one_canonical_text():
    for trap in TRAPS:
        if not trap["same"]:
            assert not judged(trap["a"], trap["b"]).same_text, trap


def test_most_near_misses_of_the_traps_are_vetoed_and_few_paraphrases():
    different = [trap for trap in TRAPS if not trap["same"]]
    same = [trap for trap in TRAPS if trap["same"]]

    caught = sum(bool(judged(trap["a"], trap["b"]).vetoes) for trap in different)
    spared = sum(not judged(trap["a"], trap["b"]).vetoes for trap in same)

    assert caught >= 0.85 * len(different)
    assert spared >= 0.95 * len(same)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Why is the lake green?", "What is the lake called?"),
        ("Is the bridge open?", "Was the bridge open?"),
        ("What are the advantages of trams?", "What are the advantages and disadvantages of trams?"),
        ("How do I become a pilot?", "How do I become a pilot in Canada?"),
        ("What did Michael Hill study?", "What did Michael B. Hill study?"),
    ],
)
def test_a_difference_that_may_matter_costs_something(one: str, other: str):
    verdict = judged(one, other)

    assert verdict.vetoes == ()
    assert verdict.penalty > 0


def test_what_is_put_in_many_other_words_costs_less_than_what_differs_in_one():
    apart = judged("How do I become a pilot?", "How do I become a baker?")
    reworded = judged(
        "What should a novice do to get onto the ladder of aviation?",
        "Which steps bring a beginner closer to flying professionally?",
    )

    assert apart.penalty > 0 > reworded.penalty
    assert Guard.WORDING in reworded.passed


def test_what_speaks_for_two_texts_makes_them_no_nearer_than_the_same_text():
    verdict = Verdict((), -0.02, (), same_text=False)

    assert similarity(verdict, text=0.9, gist=None) == pytest.approx(0.92)
    assert similarity(verdict, text=0.99, gist=0.995) == 1.0


def test_a_verdict_says_what_was_checked():
    verdict = judged("How far is 5 km?", "How far is 6 km?")

    assert vetoing(verdict) == {Guard.NUMBERS}
    assert set(verdict.passed) == set(Guard) - {Guard.NUMBERS}


def test_a_reason_says_nothing_of_the_texts():
    verdict = judged("Does Zanzibar have 17 tigers?", "Doesn't Quito never have 18 lions?")

    said = " ".join(veto.reason for veto in verdict.vetoes).lower()
    assert len(verdict.vetoes) >= 3
    assert not any(word in said for word in ("zanzibar", "quito", "17", "18", "tiger", "lion"))


def test_guards_are_named_by_their_values():
    assert Guards(["numbers", Guard.NAMES]).enabled == (Guard.NUMBERS, Guard.NAMES)


def test_an_unknown_guard_is_an_error_that_names_those_there_are():
    with pytest.raises(ConfigError, match=r"no guard 'number'.*word_order, numbers"):
        Guards(["number"])


def test_without_guards_only_equal_texts_are_told():
    none = Guards([])

    assert judged("Is it on?", "Is it off?", guards=none) == Verdict((), 0.0, (), same_text=False)
    assert judged("Is it on?", "is it on", guards=none).same_text


def test_nearness_is_a_similarity_between_the_two_it_is_made_of():
    assert nearness(0.9, 0.9) == pytest.approx(0.9)
    assert nearness(0.9, 0.5) == pytest.approx(0.9)
    assert 0.9 < nearness(0.9, 0.99) < 0.99
    assert nearness(0.6, 1.0) == 1.0


def test_what_has_one_gist_costs_nothing():
    one, other = profile_of("What is the ETA of my parcel?"), profile_of("What's my parcel's ETA?")
    same = profile_of("What is the estimated time of arrival of my parcel?")

    assert Guards().judge(one, other).penalty > 0
    assert Guards().judge(one, same).penalty == 0
    assert one.gist == same.gist


@given(texts)
@example("one hundred and " * 200)
@example("million " * 400)
@example("\ud800")
@example("ca(n't")
@example("² ½ ٣ Ⅷ 一二三")
def test_no_text_raises_and_none_is_vetoed_against_itself(text: str):
    profile = profile_of(text)
    verdict = Guards().judge(profile, profile_of(text))

    assert verdict.same_text
    assert verdict.vetoes == ()
    assert verdict.penalty == 0
    assert profile == profile_of(text)


@given(texts, texts)
def test_a_verdict_does_not_depend_on_which_text_was_stored(one: str, other: str):
    there, back = judged(one, other), judged(other, one)

    assert {*there.vetoes} == {*back.vetoes}
    assert there.penalty == pytest.approx(back.penalty)
    assert there.same_text == back.same_text
    assert {*there.passed}.isdisjoint(vetoing(there))


@given(texts)
def test_case_blanks_and_the_closing_sign_are_no_difference(text: str):
    loud = f"  {text}  "

    assert profile_of(loud).canonical == profile_of(text).canonical


def test_a_long_text_is_the_same_only_as_itself():
    long = "What is in this? " + "word " * MAX_CHARACTERS
    profile = profile_of(long)

    assert profile.too_long
    assert judged(long, long).same_text
    assert judged(long, long + "more").vetoes
    assert judged(long, "What is in this?").vetoes


HOSTILE = [
    "`",
    "a",
    "1,",
    "9",
    "a.b",
    "a'",
    "A b ",
    "--a",
    "not ",
    "and ",
    ".?! ",
    "nine ",
    "half past ",
    "one hundred and ",
    "i.i.",
    "a::",
    "(",
    "what is ",
    "hi ",
    "can you please ",
    "between and ",
    "Xab Yde ",
]


def test_texts_that_differ_in_many_blanks_are_soon_compared():
    """Twice the blanks were four times the work: of these, half an hour."""
    assert judged("why" + " " * 200_000 + "q", "why q").same_text


@pytest.mark.parametrize("unit", HOSTILE)
def test_twice_the_text_is_twice_the_work(unit: str):
    small, large = (_calls(lambda n=n: profile_of((unit * n)[:n])) for n in (1000, 2000))
    alone = _calls(lambda: profile_of(""))

    assert large - alone <= 2.5 * (small - alone) + 100


@pytest.mark.parametrize("unit", HOSTILE)
def test_no_text_is_looked_at_beyond_what_a_question_has(unit: str):
    short, endless = (_calls(lambda n=n: profile_of((unit * n)[:n])) for n in (MAX_CHARACTERS, 1_000_000))

    assert endless <= short + 100


def test_long_lists_of_words_are_not_compared_each_with_each():
    def pair(count: int) -> int:
        one = profile_of(" ".join(f"Aaaa{chr(97 + i % 26)}{chr(97 + i // 26)}x" for i in range(count)))
        other = profile_of(" ".join(f"Bbbb{chr(97 + i % 26)}{chr(97 + i // 26)}y" for i in range(count)))
        return _calls(lambda: Guards().judge(one, other))

    assert pair(400) <= 2.5 * pair(200) + 100


def _calls(work: object) -> int:
    """Return how many functions, of Python and of C, are called by `work`."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()  # type: ignore[operator]
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is new in Python 3.1?", "What is new in Python 3.10?"),
        ("Read section 1.1", "Read section 1.10"),
        ("Translate to French: please", "Translate to French: thanks"),
        ("Correct: he do it", "Correct: he does it"),
        ("Is this correct: an apple", "Is this correct: a apple"),
        ("How strong is a 5 mW laser?", "How strong is a 5 MW laser?"),
        ("Is 10 mb much?", "Is 10 MB much?"),
        ("Evaluate 5-3", "Evaluate 5 3"),
        ("What is 5!", "What is 5"),
        ("What does 'the' mean?", "What does 'a' mean?"),
        ("What is $? in bash", "What is $! in bash"),
        ("Run this:\n  a\nb", "Run this:\n  a\n  b"),
        ("Who is May?", "Who is may?"),
        ("What is f''(x)?", "What is f'(x)?"),
        ('He is 5" tall', "He is 5' tall"),
        ("Tell me the History of Apple", "Tell me the History of apple"),
        ("What does !x mean?", "What does x mean?"),
        ("When was The Office made", "When was an office made"),
        ("Recommend a VPN", "What is a VPN?"),
        ("Give me a joke", "What is a joke?"),
        ("Can people see my Instagram likes?", "Can I see my Instagram likes?"),
        ("Who do you work for?", "Who should I work for?"),
        ("Are you able to see images?", "Am I able to see images?"),
        ("What does literally mean?", "What does basically mean?"),
        ("What is the weather?", "What is weather?"),
        ("Is there a little water on Mars?", "Is there little water on Mars?"),
        ("Is vitamin a good for the eyes?", "Is vitamin good for the eyes?"),
        ("How do you spell colour?", "How do you spell color?"),
        ("How do I check the status of my app?", "How do I check the status of my application?"),
        ("What does grep -v do?", "What does grep -V do?"),
        ("What does ; do in bash?", "What does . do in bash?"),
        ("What day is 1/2/2024?", "What day is 2/1/2024?"),
        ("What changed in Go 1.20?", "What has changed in Go 1.2?"),
        ("What does m\u00e1 mean in Vietnamese?", "What does m\u00e0 mean in Vietnamese?"),
        ("Who sang Thank You?", "Who sang Cheers?"),
        ("How do I diff a file?", "How do I difference a file?"),
        ("Is 1 mB a unit?", "Is 1 Mb a unit?"),
        ("\x00", "\u202e"),
        ("?", "!"),
        ('What is the meaning of "The Tower"?', 'What is "The Tower"?'),
        ('When was "Dune" published?', 'What year was "Dune" published?'),
        ("Why do people end texts with :)", "Why do people end texts with ;)"),
    ],
)
def test_what_may_count_in_letters_is_never_taken_for_the_same(one: str, other: str):
    """The canonical form forgets it, so no guard sees it."""
    for asked, stored in ((one, other), (other, one)):
        verdict = judged(asked, stored)
        assert not verdict.same_text
        assert verdict.vetoes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What's the capital of France?", "what is the capital of france"),
        ("Could you please tell me how I can reset my password", "How do I reset my password?"),
        ("How many e-mails are 1,000 e-mails?", "how many emails are 1000 emails"),
        ("How long do 2 eggs take?", "How long do two eggs take?"),
        ("Is it on?", "Is it on"),
        ("Where is Paris? Thanks!", "Where is Paris?"),
        ("Hi! Where is Paris? Cheers", "Where is Paris?"),
        ("Just curious, what is the plural of octopus?", "What is the plural of octopus?"),
        ("What is the diff between RAM and ROM?", "What is the difference between RAM and ROM?"),
        ("How do I get a job at openAI?", "How can one get a job at OpenAI?"),
        ('What is the meaning of "zeitgeist"?', 'What\'s the meaning of "zeitgeist"?'),
        ("How do I build a shed?", "Show me how to build a shed"),
    ],
)
def test_what_is_only_form_is_the_same(one: str, other: str):
    assert judged(one, other).same_text
    assert judged(other, one).same_text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Why were 500 and 1000 notes withdrawn?", "Why have 1000 and 500 notes been withdrawn?"),
        (
            "Why were Rs. 500 and Rs. 1000 notes withdrawn?",
            "Why have Rs. 1000 and Rs. 500 notes been withdrawn?",
        ),
        ("Which is faster to fly, 737 or 747?", "What is faster to fly, the 747 or the 737?"),
    ],
)
def test_numbers_joined_by_and_may_stand_in_either_order(one: str, other: str):
    assert not judged(one, other).vetoes
    assert not judged(other, one).vetoes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the ratio of 5 and 10?", "What's the ratio of 10 and 5, please?"),
        ("Can I buy 5 apples and 10 pears?", "May I buy 10 apples and 5 pears?"),
        ("How do I divide 10 and 5 quickly?", "How do I divide 5 and 10 fast?"),
        ("What are 3 and 4 of 1 and 2 respectively?", "What are 4 and 3 of 1 and 2 respectively called?"),
        ("How do I get from 5 to 10 percent?", "How do I go from 10 to 5 percent?"),
        ("Is 5 and 1 more than 3 and 2?", "Is 3 and 2 more than 5 and 1, please?"),
    ],
)
def test_numbers_that_say_more_than_which_may_not(one: str, other: str):
    assert judged(one, other).vetoes
    assert judged(other, one).vetoes
