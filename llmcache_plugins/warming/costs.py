"""What a call will cost, before it is made; and a purse that never gives out more than it holds.

Input tokens are guessed as a quarter of the UTF-8 bytes of the request's texts, output tokens as what the
request allows at most, or else by the answers so far: their mean, or for a budget their most.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmcache_plugins.errors import ConfigError
from llmcache_plugins.models import Usage

if TYPE_CHECKING:
    from llmcache_plugins.prices import Prices

__all__ = ["Guesses", "Purse"]

_BYTES_PER_TOKEN = 4
_FIRST_GUESS = 500.0
"""Output tokens, before any answer is known."""
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_INLINE = "data:"
_INLINE_TOKENS = 1000
"""Of a file or an image in a request: nobody counts its bytes."""
_DEEPEST = 50


class Guesses:
    """Guesses the tokens of calls; learns from those that were made."""

    def __init__(self) -> None:
        self._answers = 0
        self._output_tokens = 0
        self._most = 0

    def of(self, query: Any) -> Usage:
        """Return what the answer to a query is thought to need."""
        usual = self._output_tokens / self._answers if self._answers else _FIRST_GUESS
        return Usage(input_tokens=_input_tokens(query), output_tokens=_output_tokens(query, usual))

    def at_most(self, query: Any) -> Usage:
        """Return what it is thought to need at most: as much as any answer did so far."""
        most = self._most or _FIRST_GUESS
        return Usage(input_tokens=_input_tokens(query), output_tokens=_output_tokens(query, most))

    def learn(self, usage: Usage | None) -> None:
        """Take an answer into account."""
        if usage is not None:
            self._answers += 1
            self._output_tokens += usage.output_tokens
            self._most = max(self._most, usage.output_tokens)


class Purse:
    """US dollars, of which each call is given before it begins what it is thought to cost; None: no bound."""

    def __init__(self, budget: float | None, prices: Prices) -> None:
        self._budget = budget
        self._prices = prices
        self._spent = 0.0
        self._reserved = 0.0
        self._changed = asyncio.Event()

    def price(self, usage: Usage | None, *models: str | None) -> float | None:
        """Return what so many tokens cost; None if that is not known."""
        return self._prices.cost(usage, *models)

    async def reserve(self, usage: Usage, model: str | None) -> float | None:
        """Set aside what a call is thought to cost, once that is certain to be there; None if it will not be.

        Raises `ConfigError` where there is a budget and the price is not known.
        """
        if self._budget is None:
            return 0.0
        cost = self._prices.cost(usage, model)
        if cost is None:
            named = (
                f"the price of {model!r} is not known" if model else "there are queries that name no model"
            )
            raise ConfigError(f"a budget needs prices, and {named}; give prices=, or no budget")
        while self._spent + self._reserved + cost > self._budget:
            if self._reserved <= 0:
                return None
            await self._changed.wait()
        self._reserved += cost
        return cost

    def settle(self, reserved: float, *, cost: float | None = 0.0) -> None:
        """Put what a call has cost in the place of what was set aside; None: not known, so as much."""
        self._reserved -= reserved
        # What is left after many additions and subtractions is no money.
        self._reserved = self._reserved if self._reserved > 1e-12 else 0.0
        self._spent += reserved if cost is None else cost
        self._changed.set()
        self._changed = asyncio.Event()


def _input_tokens(query: Any) -> int:
    size, inline = _size(query, 0)
    return math.ceil(size / _BYTES_PER_TOKEN) + inline * _INLINE_TOKENS


def _size(value: Any, depth: int) -> tuple[int, int]:
    """Return the bytes of all texts of a value, and how many files are in it."""
    if isinstance(value, str):
        return (0, 1) if value.startswith(_INLINE) else (len(value.encode("utf-8", "surrogatepass")), 0)
    if depth > _DEEPEST:
        return 0, 0
    inside: list[Any] = []
    if isinstance(value, Mapping):
        inside = [*value.keys(), *value.values()] if depth > 1 else [*value.values()]
    elif isinstance(value, list | tuple):
        inside = [*value]
    elif value is not None:
        return len(str(value)) if isinstance(value, int | float) else 0, 0
    sizes = [_size(item, depth + 1) for item in inside]
    return sum(size for size, _ in sizes), sum(files for _, files in sizes)


def _output_tokens(query: Any, usual: float) -> int:
    if not isinstance(query, Mapping):
        return math.ceil(usual)
    most = next((most for name in _LIMITS if (most := _count(query.get(name)))), None)
    return math.ceil(usual) if most is None else most * (_count(query.get("n")) or 1)


def _count(value: Any) -> int | None:
    is_one = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return value if is_one else None
