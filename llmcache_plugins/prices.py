"""What tokens cost: list prices by the name of a model, in US dollars.

Owns the lookup, and where prices come from: the application's own first, then LiteLLM's table, where LiteLLM
is installed. A model that neither knows has no price; nobody takes that for zero. Imports no framework:
LiteLLM's table is a file of its package.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from llmcache_plugins.errors import ConfigError

if TYPE_CHECKING:
    from llmcache_plugins.models import Usage

__all__ = ["Price", "PriceTable", "Prices"]

_log = logging.getLogger("llmcache_plugins")

_MILLION = 1_000_000
_MOST_PER_MILLION = 100_000.0
"""US dollars: whoever gives more has taken another unit."""
_MOST_REMEMBERED = 4096
_ASKED_AGAIN_AFTER = 10.0
"""Seconds for which a model without a price has none: the application may register one with LiteLLM."""
_FILE = "model_prices_and_context_window_backup.json"


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars for a million tokens, as providers list them: `Price(input=0.15, output=0.60)`.

    A list price: what a provider takes off for its own prompt cache, batches or contracts is not in it.
    Raises `ConfigError` for what is no price.
    """

    input: float
    output: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("input", self.input), ("output", self.output)):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 <= value <= _MOST_PER_MILLION:
                raise ConfigError(f"the {name} price is in US dollars for a million tokens, not {value!r}")

    def of(self, usage: Usage) -> float:
        """Return what so many tokens cost, in US dollars."""
        return (self.input * usage.input_tokens + self.output * usage.output_tokens) / _MILLION


class PriceTable(Protocol):
    """Anything that knows prices. Called on the event loop, and seldom: what it returns is remembered."""

    def price_of(self, model: str, /) -> Price | None:
        """Return the price of a model, by the name it is asked by or answers under; None if unknown."""


class Prices:
    """The prices of a cache: those that were given, then LiteLLM's.

    `given` is a mapping of names of models to `Price`, or a `PriceTable`. Raises `ConfigError` for anything
    else.
    """

    def __init__(self, given: Mapping[str, Price] | PriceTable | None = None) -> None:
        self._given = _table_of(given)
        self._known: dict[tuple[str | None, ...], Price] = {}
        self._unknown: dict[tuple[str | None, ...], float] = {}
        self._has_complained = False

    def of(self, *models: str | None) -> Price | None:
        """Return the price of the first of these names that has one. Never raises."""
        found = self._known.get(models)
        if found is None and monotonic() >= self._unknown.get(models, 0.0):
            found = self._look_up(models)
        return found

    def _look_up(self, models: tuple[str | None, ...]) -> Price | None:
        found, is_sure = None, True
        for model in filter(None, models):
            try:
                found = self._look(model)
            except Exception:  # noqa: BLE001 - the application's, in somebody's request
                self._complain()
                is_sure = False
            if found is not None:
                break
        if found is None and not is_sure:
            return None
        if found is None:
            if len(self._unknown) >= _MOST_REMEMBERED:
                self._unknown.clear()
            self._unknown[models] = monotonic() + _ASKED_AGAIN_AFTER
        elif len(self._known) < _MOST_REMEMBERED:
            self._known[models] = found
        return found

    def cost(self, usage: Usage | None, *models: str | None) -> float | None:
        """Return what so many tokens of a model cost, in US dollars; None if either is unknown."""
        if usage is None:
            return None
        price = self.of(*models)
        return None if price is None else price.of(usage)

    def _look(self, model: str) -> Price | None:
        found: Any = self._given.price_of(model) if self._given is not None else None
        if not isinstance(found, Price | None):
            raise TypeError("no price")
        return found or _litellm_price(model)

    def _complain(self) -> None:
        if not self._has_complained:
            self._has_complained = True
            _log.warning("the price table (%s) gave no `Price`; it is ignored", type(self._given).__name__)


class _Given:
    def __init__(self, prices: Mapping[str, Price]) -> None:
        for model, price in prices.items():
            if not isinstance(model, str) or not isinstance(price, Price):
                raise ConfigError(f"prices maps names of models to `Price`, not {model!r} to {price!r}")
        self._prices = dict(prices)

    def price_of(self, model: str, /) -> Price | None:
        return self._prices.get(model)


def _table_of(given: Any) -> PriceTable | None:
    if isinstance(given, Mapping):
        return _Given(given)
    if given is not None and not callable(getattr(given, "price_of", None)):
        raise ConfigError(f"prices is a mapping, or has price_of(model), but {type(given).__name__} has not")
    table: PriceTable | None = given
    return table


# -- LiteLLM's ---------------------------------------------------------------------------------------------


class _Row(msgspec.Struct, frozen=True):
    input_cost_per_token: Any = None
    output_cost_per_token: Any = None


def _litellm_price(model: str) -> Price | None:
    # "openai/gpt-4o" is what LiteLLM is asked for, and "gpt-4o" what it has the price of.
    for name in (model, model.partition("/")[2]):
        if name and (price := _price_of_row(_row(name))) is not None:
            return price
    return None


def _row(name: str) -> Any:
    # The application's LiteLLM, if there is one: it may have registered models of its own.
    live = getattr(sys.modules.get("litellm"), "model_cost", None)
    found = live.get(name) if isinstance(live, Mapping) else None
    return found if found is not None else _file().get(name)


def _price_of_row(row: Any) -> Price | None:
    if isinstance(row, Mapping):
        row = _Row(row.get("input_cost_per_token"), row.get("output_cost_per_token"))
    if row is None or not isinstance(row.input_cost_per_token, int | float):
        return None  # priced by the second or the image
    output = row.output_cost_per_token
    try:
        return Price(
            input=row.input_cost_per_token * _MILLION,
            output=output * _MILLION if isinstance(output, int | float) else 0.0,
        )
    except ConfigError:
        return None


@cache
def _file() -> Mapping[str, _Row]:
    """Return the table that LiteLLM ships, empty without it. Read once: some milliseconds."""
    try:
        spec = importlib.util.find_spec("litellm")
        if spec is None or spec.origin is None:
            return {}
        raw = (Path(spec.origin).parent / _FILE).read_bytes()
        return msgspec.json.decode(raw, type=dict[str, _Row])
    except (OSError, ValueError, ImportError, msgspec.MsgspecError):
        return {}
