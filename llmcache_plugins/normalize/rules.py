"""What a rule is, and the kinds that are made of expressions and functions.

A rule is set up once and then only called: text in, text out, and how often it has found something. Knows
nothing of requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from llmcache_plugins.normalize.windows import replaced

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

__all__ = ["Expressions", "Function", "Rule"]


class Rule(Protocol):
    """Strips one kind of token from a text."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def leaves_placeholder(self) -> bool:
        """Whether a placeholder stands where a token was: else the text that is left is one to be written."""

    @property
    def is_foreign(self) -> bool:
        """Whether it runs code or an expression of the application: never on an event loop."""

    def apply(self, text: str, placeholder: str) -> tuple[str, int]:
        """Return the text without the tokens, and how many there were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expressions:
    """A built-in rule that puts a placeholder where one of its expressions finds something.

    Each expression takes time in proportion to the text, whatever the text; a group `kept` stays.
    """

    name: str
    patterns: tuple[re.Pattern[str], ...]
    longest: int
    """Characters of the longest match, with what it looks at behind itself."""
    may_find: Callable[[str], bool] = bool
    """Says, quickly, that nothing will be found."""
    leaves_placeholder: bool = True
    is_foreign: bool = False

    def apply(self, text: str, placeholder: str) -> tuple[str, int]:
        """Return the text with placeholders for the tokens, and how many there were."""
        if not self.may_find(text):
            return text, 0
        count = 0
        for pattern in self.patterns:
            put = partial(_behind, placeholder) if "kept" in pattern.groupindex else placeholder
            text, found = replaced(pattern, put, text, longest=self.longest)
            count += found
        return text, count


def _behind(placeholder: str, found: re.Match[str]) -> str:
    kept: str = found["kept"]
    return kept + placeholder


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A rule that is a function from a text to the text that counts."""

    name: str
    function: Callable[[str], tuple[str, int]]
    leaves_placeholder: bool = False
    is_foreign: bool = False

    def apply(self, text: str, placeholder: str) -> tuple[str, int]:
        """Return what the function makes of the text."""
        return self.function(text)
