"""The rules that are built in, by name: what each strips, and what it leaves.

A rule strips what is volatile and leaves what may be the question: a bare date, a bare time, a phone number,
a short number. Every token stands alone: next to a letter, a digit or an underscore it is part of something
else. Next to a `+` or `/` it may be part of base64 data, two of which must never become equal.

How an expression stays linear on a text of strangers: its first character is a class (so that `re` skips to
it) which is followed by a look at the one before it (so that a long run is tried once, and not at each of its
characters); every repeat is bounded; no two neighbours can match the same character in more ways than their
bounds allow.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from llmcache_plugins.normalize.layout import tidied
from llmcache_plugins.normalize.rules import Expressions, Function, Rule
from llmcache_plugins.normalize.shapes import has_a_time, has_hex, has_uuid
from llmcache_plugins.normalize.tracking import untracked

__all__ = ["BUILTIN", "RULES"]

_WORD = "0-9A-Za-z_"


def _token(first: str, rest: str, *, before: str = _WORD, after: str = f"[{_WORD}]") -> re.Pattern[str]:
    """Return the expression of a token: the class of its first character, and what follows it."""
    return re.compile(rf"[{first}](?<![{before}].)(?:{rest})(?!{after})")


_HEX = "[0-9A-Fa-f]"
_UUID = rf"{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}"

UUID: Final = Expressions(
    name="uuid",
    patterns=(
        _token("{", rf"{_HEX}{{4}}{_UUID}\}}"),
        _token("uU", rf"[rR][nN]:[uU][uU][iI][dD]:{_HEX}{{4}}{_UUID}", after=rf"[{_WORD}-]"),
        _token("0-9A-Fa-f", rf"{_HEX}{{3}}{_UUID}", before=rf"{_WORD}-", after=rf"[{_WORD}-]"),
    ),
    longest=64,
    may_find=has_uuid,
)
"""UUIDs of any version, in either case, bare, in braces or as a `urn:uuid:`.

Not: 32 digits without hyphens (that is `hex`), or a UUID that is part of a longer name.
"""

_MONTHS = "ADFJMNOS"
_MONTH = r"(?:an|eb|ar|pr|ay|un|ul|ug|ep|ct|ov|ec)[a-z]{0,6}\.?"
_CLOCK = (
    r"[0-2]?[0-9]:[0-5][0-9](?::[0-6][0-9](?:[.,][0-9]{1,9})?)?(?: ?(?:[AaPp][Mm](?![A-Za-z])|[ap]\.m\.))?"
)
# A closed list: what follows a time in capitals may be a word.
_NAMES = (
    "UTC|GMT|UT|EST|EDT|CST|CDT|MST|MDT|PST|PDT|AKST|AKDT|HST|AEST|AEDT|ACST|ACDT|AWST|NZST|NZDT|BST|IST|JST|KST"
    "|SGT|WET|WEST|CET|CEST|EET|EEST|MSK"
)
_OFFSET = r"[+-][0-9]{2}:?[0-9]{2}"
_SPELLED = rf" \((?:{_NAMES}|(?:[A-Z][a-z]{{1,20}} ){{1,4}}Time)\)"
_ZONE = rf"(?:Z| ?(?:{_NAMES})?{_OFFSET}(?:{_SPELLED})?| (?:{_NAMES})(?![0-9A-Za-z]))?"
_BETWEEN = r"(?:,? {1,2}(?:at )?|[Tt_])"
_TIME = rf"{_BETWEEN}{_CLOCK}{_ZONE}"
_ORDINAL = "(?:st|nd|rd|th)?"
_DAY_MONTH = rf"[0-9]?{_ORDINAL}[ -][{_MONTHS}]{_MONTH}[ -][0-9]{{2}}(?:[0-9]{{2}})?{_TIME}"
_MONTH_DAY = rf"{_MONTH} {{1,2}}[0-3]?[0-9]{_ORDINAL}(?:,? [12][0-9]{{3}})?{_TIME}"
_CTIME = rf"{_MONTH} {{1,2}}[0-3]?[0-9] [0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}(?: (?:{_NAMES}))? [12][0-9]{{3}}"
_COMPACT = (
    r"[0-9]{3}[01][0-9][0-3][0-9]T[0-2][0-9][0-5][0-9](?:[0-6][0-9](?:\.[0-9]{1,9})?)?"
    rf"(?:Z|{_OFFSET})?"
)
_DIGITS_FIRST = "|".join(
    (
        rf"[0-9]{{3}}[-/][01][0-9][-/][0-3][0-9]{_TIME}",
        _COMPACT,
        r"[0-9]/[A-Z][a-z]{2}/[0-9]{4}:[0-9]{2}:[0-9]{2}:[0-9]{2}(?: [+-][0-9]{4})?",
        _DAY_MONTH,
        rf"[0-9]?[/.][0-9]{{1,2}}[/.][0-9]{{2}}(?:[0-9]{{2}})?{_TIME}",
    )
)
_WEEKDAY = r"(?:on|ue|ed|hu|ri|at|un)[a-z]{0,6}\.?,? {1,2}"
_GOES_ON = rf"[{_WORD}]|[:.][0-9]"

TIMESTAMP: Final = Expressions(
    name="timestamp",
    patterns=(
        # With its weekday first, else the weekday would stay.
        _token(
            "FMSTW",
            rf"{_WEEKDAY}(?:[0-9]{_DAY_MONTH}|[{_MONTHS}](?:{_CTIME}|{_MONTH_DAY}))",
            after=_GOES_ON,
        ),
        _token(_MONTHS, _MONTH_DAY, after=_GOES_ON),
        _token("0-9", _DIGITS_FIRST, before=rf"{_WORD}+/.-", after=_GOES_ON),
    ),
    longest=256,
    may_find=has_a_time,
)
"""A date together with a time of day: ISO 8601 and RFC 3339 (`2024-01-02T03:04:05.678+01:00`, with a blank,
without a zone, `20240102T030405Z`), RFC 2822 and HTTP (`Tue, 02 Jan 2024 03:04:05 GMT`), `ctime` and syslog
(`Jan  2 03:04:05`), access logs (`02/Jan/2024:03:04:05 +0000`), `1/2/2024, 3:04 PM`, `January 2, 2024 at 3:04
PM`.

Not: a bare date ("What happened on 1969-07-20?") and a bare time ("Book a table for 19:30"), which may be the
question; months in other languages than English; a moment in a path or file name.
"""

EPOCH: Final = Expressions(
    name="epoch",
    patterns=(
        _token(
            "1",
            r"[0-9]{9}(?:[0-9]{3}){0,3}(?:\.[0-9]{1,9})?",
            before=rf"{_WORD}$#+/.,-",
            after=rf"[{_WORD}+/=%-]|[.,][0-9]",
        ),
    ),
    longest=40,
)
"""Unix times from 2001 to 2033: numbers that begin with 1, of 10 digits (seconds, also with a fraction), 13,
16 or 19 (milli-, micro-, nanoseconds).

Not: later ones, because ten digits that begin with 2 to 9 are phone numbers; amounts (`$1500000000`), numbers
after `#`, and digits inside longer tokens. A count of ten digits looks the same as a time and is stripped.
"""

_PREFIXES = (
    *("call", "chatcmpl", "cmpl", "corr", "msg", "req"),
    *("request", "resp", "run", "span", "toolu", "trace"),
)
_LABELS = ("correlation", "req", "request", "span", "trace")


def _behind(words: tuple[str, ...], *, before: str, between: tuple[str, ...]) -> str:
    """Return what looks back at one of some words: they begin with letters that are everywhere."""
    return "|".join(
        rf"(?<=(?<![{before}]){''.join(f'[{c}{c.upper()}]' for c in word)}{gap})"
        for word in words
        for gap in between
    )


REQUEST_ID: Final = Expressions(
    name="request_id",
    patterns=(
        _token("0", rf"0-[0-9a-f]{{32}}-[0-9a-f]{{16}}-{_HEX}{{2}}", before=rf"{_WORD}-"),
        re.compile(
            r"(?P<kept>[_-])(?=[0-9A-Za-z]{14})(?=[A-Za-z]{0,127}[0-9])"
            rf"(?:{_behind(_PREFIXES, before=f'{_WORD}-', between=('.',))})"
            rf"[0-9A-Za-z]{{14,128}}(?![{_WORD}-])"
        ),
        # A label may follow a `-` or a `_`: `x-request-id`, `client_request_id`.
        re.compile(
            rf"(?P<kept>[iI][dD](?:{_behind(_LABELS, before='0-9A-Za-z', between=('..', '[ _-]..'))})"
            r"['\"]?[ ]{0,3}[:=][ ]{0,3}['\"]?)"
            r"(?=[A-Za-z._:+-]{0,127}[0-9])[0-9A-Za-z][0-9A-Za-z._:+-]{4,126}[0-9A-Za-z]"
            rf"(?![{_WORD}/+-])"
        ),
        _token(
            "0",
            r"1(?=[0-9]{0,24}[A-Z])[0-9A-HJKMNP-TV-Z]{24}",
            before=rf"{_WORD}+/.-",
            after=rf"[{_WORD}+/=-]",
        ),
    ),
    longest=320,
)
"""Names of one call: what follows `req_`, `request-`, `resp_`, `run-`, `trace_`, `span-`, `corr-`, `msg_`,
`call_`, `toolu_`, `chatcmpl-` and `cmpl-`, if it is 14 letters and digits or more, a digit among them; what
follows `request-id:`, `req_id=`, `trace_id=`, `spanId:`, `correlation-id:`, a digit among it (what it follows
stays); a W3C `traceparent`; a ULID of our days.

Not: names without a digit; numbers of sessions, orders, transactions or customers; KSUIDs (nothing tells them
from other words of 27 characters).
"""

_BEFORE_HEX = rf"{_WORD}+/=.@%#&?-"
_AFTER_HEX = rf"[{_WORD}+/=@%-]|\.[{_WORD}]"

HEX: Final = Expressions(
    name="hex",
    patterns=(
        _token(
            "0",
            rf"[xX](?=[0-9]{{0,127}}[A-Fa-f])(?=[A-Fa-f]{{0,127}}[0-9]){_HEX}{{16,128}}",
            before=_BEFORE_HEX,
            after=_AFTER_HEX,
        ),
        _token(
            "0-9",
            rf"(?=[0-9]{{0,127}}[A-Fa-f]){_HEX}{{15,127}}",
            before=_BEFORE_HEX,
            after=_AFTER_HEX,
        ),
        _token(
            "A-Fa-f",
            rf"(?=[A-Fa-f]{{0,127}}[0-9]){_HEX}{{15,127}}",
            before=_BEFORE_HEX,
            after=_AFTER_HEX,
        ),
    ),
    longest=140,
    may_find=has_hex,
)
"""Digests, trace ids, addresses in memory: 16 to 128 hexadecimal digits, letters and decimal digits among
them, with or without `0x`.

Not: numbers, words, shorter runs (an abbreviated commit), digits in URLs, paths, file names and base64 data.
"""

_LOCAL = "0-9A-Za-z._%+-"

EMAIL: Final = Expressions(
    name="email",
    patterns=(
        _token(
            "0-9A-Za-z",
            rf"[{_LOCAL}]{{0,63}}@(?:[0-9A-Za-z-]{{1,63}}\.){{1,8}}[A-Za-z]{{2,24}}",
            before=_LOCAL,
            after=rf"[{_WORD}@-]",
        ),
    ),
    longest=700,
    may_find=lambda text: "@" in text,
)
"""E-mail addresses of ASCII letters, the name before the `@` with them.

Not: the part of an address that is no ASCII, which stays where it was; `user@host` without a dot.
"""

URL: Final = Function(name="url", function=untracked)
WHITESPACE: Final = Function(name="whitespace", function=tidied)

_ALL: tuple[Rule, ...] = (UUID, TIMESTAMP, EPOCH, REQUEST_ID, HEX, EMAIL, URL, WHITESPACE)

RULES: Final = MappingProxyType({rule.name: rule for rule in _ALL})
"""The built-in rules. Those without a placeholder leave a text that somebody could have written."""

BUILTIN: Final[tuple[str, ...]] = tuple(RULES)
"""The names of the built-in rules, in an order in which all of them work together."""
