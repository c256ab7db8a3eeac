"""`Normalizers`: rules in their order, made once, and what each has stripped from a text.

Owns the placeholders and the limits on what is not ours. Knows nothing of requests: which texts are
normalized is the signature's affair.

A placeholder is one Unicode noncharacter, the rule's place in the chain: no rule after it can mistake it for
text, and a text that has one already, which nobody writes, is not to be normalized (`has_reserved`). Which
rule it stands for is said by `names`, which belongs beside it wherever texts are compared.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.normalize.foreign import TooSlow, own_expression, own_function

if TYPE_CHECKING:
    from llmcache_plugins.normalize.rules import Rule

__all__ = ["LIMIT", "TIMEOUT", "NormalText", "Normalizer", "Normalizers", "Stripped", "has_reserved"]

_log = logging.getLogger("llmcache_plugins")

Normalizer: TypeAlias = str | re.Pattern[str] | Callable[[str], str]
"""The name of a built-in rule, an expression, or a function from a text to the text that counts."""

LIMIT = 64 * 1024
"""Characters of the longest text that an application's own rule gets."""
TIMEOUT = 0.1
"""Seconds that an application's own expression may take for one text."""

_FIRST, _LAST = 0xFDD0, 0xFDEF
_RESERVED = re.compile(f"[{chr(_FIRST)}-{chr(_LAST)}]")


def has_reserved(text: str) -> bool:
    """Say whether a text has a character that stands for a token: then it is left as it is."""
    return not text.isascii() and _RESERVED.search(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripped:
    """What one rule has done to one text."""

    rule: str
    count: int
    skipped: str = ""
    """Why it was not run, if it was not: `too long` or `too slow`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalText:
    """A text after all rules."""

    text: str
    stripped: tuple[Stripped, ...]
    has_placeholders: bool


class Normalizers:
    """An ordered chain of rules; one may be used by any number of tasks and threads.

    Names of built-in rules (`builtin.BUILTIN`), compiled expressions and functions. Expressions and functions
    of the application get no text of more than `limit` characters, an expression at most `timeout` seconds
    for each: past either, the rule is skipped for that text, which costs a hit and nothing else. Raises
    `ConfigError` for rules that cannot work.
    """

    __slots__ = ("_complaints", "_limit", "_rules", "is_foreign", "names")

    def __init__(self, rules: Iterable[Normalizer], *, limit: int = LIMIT, timeout: float = TIMEOUT) -> None:
        if isinstance(rules, str | re.Pattern) or not isinstance(rules, Iterable):
            raise ConfigError("normalizers is a list, such as ['uuid', 'timestamp']")
        self._rules = tuple(_rule_of(rule, timeout=timeout) for rule in rules)
        self._limit = limit
        self._complaints: set[tuple[str, str]] = set()
        self.names = tuple(rule.name for rule in self._rules)
        """The rules by name, in their order: what makes two chains put the same placeholders."""
        self.is_foreign = any(rule.is_foreign for rule in self._rules)
        """Whether it runs what belongs to the application: not on an event loop."""
        _check(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def __repr__(self) -> str:
        return f"Normalizers({list(self.names)!r})"

    def apply(self, text: str) -> NormalText:
        """Return the text that counts. Raises `Failed` when a function of the application fails.

        In proportion to its length for the built-in rules, whatever is in it.
        """
        stripped: list[Stripped] = []
        has_placeholders = False
        for place, rule in enumerate(self._rules):
            if rule.is_foreign and len(text) > self._limit:
                stripped.append(self._skipped(rule, "too long"))
                continue
            try:
                text, count = rule.apply(text, chr(_FIRST + place))
            except TooSlow:
                stripped.append(self._skipped(rule, "too slow"))
                continue
            if count:
                has_placeholders |= rule.leaves_placeholder
                stripped.append(Stripped(rule=rule.name, count=count))
        return NormalText(text=text, stripped=tuple(stripped), has_placeholders=has_placeholders)

    def _skipped(self, rule: Rule, reason: str) -> Stripped:
        if (rule.name, reason) not in self._complaints:
            self._complaints.add((rule.name, reason))
            _log.warning("the normalizer %s is skipped for a text: %s", rule.name, reason)
        return Stripped(rule=rule.name, count=0, skipped=reason)


def _rule_of(given: object, *, timeout: float) -> Rule:
    if isinstance(given, str):
        return _built_in(given)
    if isinstance(given, re.Pattern):
        return own_expression(given, timeout=timeout)
    if callable(given):
        return own_function(given)
    raise ConfigError(
        f"a normalizer is a name, a compiled expression or a function, not a {type(given).__qualname__}"
    )


def _built_in(name: str) -> Rule:
    from llmcache_plugins.normalize.builtin import RULES

    if name not in RULES:
        raise ConfigError(
            f"normalizers has no {name!r}; there are {', '.join(RULES)}."
            " An expression is given compiled: re.compile(...)"
        )
    return RULES[name]


def _check(rules: tuple[Rule, ...]) -> None:
    if len(rules) > _LAST - _FIRST + 1:
        raise ConfigError(f"at most {_LAST - _FIRST + 1} normalizers make a chain, not {len(rules)}")
    names = [rule.name for rule in rules if rule.leaves_placeholder]
    if len(set(names)) != len(names):
        raise ConfigError(f"the normalizer {max(names, key=names.count)!r} is given twice")
