"""Rules of an application: its own expressions, under a time limit, and its own functions.

Both are foreign: who has an event loop runs them in a thread. Neither is trusted to be quick, so neither gets
a text above a size limit. Knows nothing of requests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Failed", "OwnExpression", "OwnFunction", "TooSlow", "own_expression", "own_function"]

_FLAGS = re.IGNORECASE | re.MULTILINE | re.DOTALL | re.VERBOSE | re.ASCII | re.UNICODE


class TooSlow(Exception):
    """An expression has not come to an end within its time."""


class Failed(Exception):
    """A function has raised, or has returned no string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnExpression:
    """A rule that puts a placeholder where the application's expression finds something."""

    name: str
    timeout: float
    """Seconds that it may take for one text."""
    expression: Any
    leaves_placeholder: bool = True
    is_foreign: bool = True

    def apply(self, text: str, placeholder: str) -> tuple[str, int]:
        """Return the text with placeholders, and how many. Raises `TooSlow`.

        Other threads run meanwhile: `regex` gives the interpreter's lock away, `re` does not.
        """
        try:
            changed: tuple[str, int] = self.expression.subn(
                lambda _: placeholder, text, concurrent=True, timeout=self.timeout
            )
        except TimeoutError:
            raise TooSlow from None
        return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFunction:
    """A rule that is the application's function from a text to the text that counts."""

    name: str
    function: Callable[[str], object]
    leaves_placeholder: bool = False
    is_foreign: bool = True

    def apply(self, text: str, placeholder: str) -> tuple[str, int]:
        """Return what the function makes of the text, and 1 if that is another. Raises `Failed`."""
        try:
            changed = self.function(text)
        except Exception as error:  # noqa: BLE001 - code of strangers; what it raises may quote the text
            raise Failed(f"the normalizer {self.name} raised {type(error).__name__}") from None
        if not isinstance(changed, str):
            raise Failed(f"the normalizer {self.name} returned no str, but a {type(changed).__qualname__}")
        return changed, int(changed != text)


def own_expression(pattern: re.Pattern[Any], *, timeout: float) -> OwnExpression:
    """Return the rule of an expression. Raises `ConfigError` for one that cannot be used."""
    if not isinstance(pattern.pattern, str):
        raise ConfigError("a normalizer is an expression for str, not for bytes")
    try:
        import regex
    except ImportError as error:
        raise ConfigError(
            'normalizers of your own expressions need regex: pip install "llmcache-plugins[normalize]"'
        ) from error
    try:
        expression = regex.compile(pattern.pattern, pattern.flags & _FLAGS)
    except regex.error as error:
        raise ConfigError(
            f"the normalizer {pattern.pattern!r} is no expression of `regex`: {error}"
        ) from None
    if expression.search("") is not None:
        raise ConfigError(f"the normalizer {pattern.pattern!r} matches the empty text")
    return OwnExpression(name=_spelled(pattern), timeout=timeout, expression=expression)


def own_function(function: Callable[[str], object]) -> OwnFunction:
    """Return the rule of a function, under its qualified name."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return OwnFunction(name=name, function=function)


def _spelled(pattern: re.Pattern[str]) -> str:
    """Return the name of an expression: itself, and the flags that change what it means."""
    flags = pattern.flags & _FLAGS & ~re.UNICODE
    return f"re:{pattern.pattern}" if not flags else f"re:{pattern.pattern} [{re.RegexFlag(flags)!r}]"
