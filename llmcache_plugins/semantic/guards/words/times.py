"""Words for dates, times and parts of the year."""

from __future__ import annotations

_MONTHS = """
january jan, february feb, march, april apr, may, june jun, july jul, august aug, september sept sep,
october oct, november nov, december dec
"""
MONTHS = {form: row.split()[0] for row in _MONTHS.split(",") for form in row.split()}
# Also ordinary words: months only with a capital, a number or a preposition of time beside them.
DOUBTFUL = frozenset(
    ("march", "may", "jan", "jun", "sept", "sep", "dec", "oct", "mar", "sun", "sat", "august")
)
DAYS = {
    form: day
    for day in "monday tuesday wednesday thursday friday saturday sunday".split()
    for form in (day, day + "s")
}
SEASONS = {
    "spring": "spring",
    "summer": "summer",
    "autumn": "autumn",
    "winter": "winter",
    "summers": "summer",
    "winters": "winter",
}
PARTS = {
    "am": "am",
    "a.m": "am",
    "morning": "am",
    "mornings": "am",
    "pm": "pm",
    "p.m": "pm",
    "noon": "noon",
    "midday": "noon",
    "afternoon": "afternoon",
    "afternoons": "afternoon",
    "evening": "evening",
    "evenings": "evening",
    "night": "night",
    "nights": "night",
    "overnight": "night",
    "midnight": "midnight",
    "dawn": "dawn",
    "dusk": "dusk",
    "weekend": "weekend",
    "weekends": "weekend",
    "weekday": "weekday",
    "weekdays": "weekday",
}
# Say when, seen from now. Those that only say "now" are left out without harm.
RELATIVE = {
    "yesterday": "yesterday",
    "tomorrow": "tomorrow",
    "today": "today",
    "tonight": "tonight",
    "daily": "daily",
    "weekly": "weekly",
    "fortnightly": "fortnightly",
    "monthly": "monthly",
    "quarterly": "quarterly",
    "yearly": "yearly",
    "annually": "yearly",
    "annual": "yearly",
    "hourly": "hourly",
}
NOW = frozenset(("today", "tonight", "night", "am"))
PERIODS = {
    "day": "day",
    "week": "week",
    "weekend": "weekend",
    "month": "month",
    "quarter": "quarter",
    "term": "term",
    "semester": "semester",
    "year": "year",
    "decade": "decade",
    "century": "century",
    "season": "season",
    "night": "night",
}
POINTERS = {
    "last": "last",
    "previous": "last",
    "past": "last",
    "this": "this",
    "current": "this",
    "next": "next",
    "coming": "next",
    "upcoming": "next",
    "following": "next",
}
FEASTS = frozenset(
    "christmas easter halloween thanksgiving ramadan diwali hanukkah eid passover lent carnival".split()
)
ERAS = frozenset("bc ad bce ce".split())
