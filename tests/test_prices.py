"""Prices: the application's own, LiteLLM's where it is installed, and what is not known."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

from llmcache_plugins import ConfigError, Price, ResponseCache, Usage
from llmcache_plugins.prices import Prices

THOUSAND = Usage(input_tokens=1000, output_tokens=1000)
# The public list price of July 2024, which the model has had ever since.
MINI = Price(input=0.15, output=0.60)


def test_a_price_is_for_a_million_tokens():
    assert Price(input=2.0, output=8.0).of(Usage(input_tokens=500_000, output_tokens=250_000)) == 3.0


def test_litellm_s_table_is_used_where_it_is_installed():
    price = Prices().of("gpt-4o-mini")
    assert price is not None
    assert (price.input, price.output) == pytest.approx((MINI.input, MINI.output))


@pytest.mark.parametrize("name", ["gpt-4o-mini", "openai/gpt-4o-mini", "azure/gpt-4o-mini"])
def test_a_model_is_known_by_the_names_that_litellm_gives_it(name: str):
    assert Prices().of(name) is not None


def test_one_s_own_price_goes_before_litellm_s():
    assert Prices({"gpt-4o-mini": Price(input=1.0)}).of("gpt-4o-mini") == Price(input=1.0)


def test_the_model_that_was_asked_goes_before_the_one_that_answered():
    prices = Prices({"asked": Price(input=1.0), "answered": Price(input=2.0)})
    assert prices.of("asked", "answered") == Price(input=1.0)
    assert prices.of(None, "answered") == Price(input=2.0)


def test_unknown_is_unknown_and_never_zero():
    prices = Prices()
    assert prices.of("no such model") is None
    assert prices.of(None) is None
    assert prices.cost(THOUSAND, "no such model") is None
    assert prices.cost(None, "gpt-4o-mini") is None


def test_a_model_that_is_free_costs_nothing_which_is_known():
    assert Prices({"mine": Price(input=0.0)}).cost(THOUSAND, "mine") == 0.0


def test_a_table_of_one_s_own_may_be_any_object():
    class Table:
        def price_of(self, model: str, /) -> Price | None:
            return Price(input=len(model)) if model.startswith("ours") else None

    prices = Prices(Table())
    assert prices.of("ours-1") == Price(input=6)
    assert prices.of("gpt-4o-mini") == Prices().of("gpt-4o-mini")


def test_a_table_is_asked_seldom_for_a_price_that_it_may_learn(monkeypatch: pytest.MonkeyPatch):
    now = 100.0
    monkeypatch.setattr("llmcache_plugins.prices.monotonic", lambda: now)
    known: dict[str, Price] = {}
    asked: list[str] = []

    class Table:
        def price_of(self, model: str, /) -> Price | None:
            asked.append(model)
            return known.get(model)

    prices = Prices(Table())
    assert [prices.of("new"), prices.of("new")] == [None, None]
    assert asked == ["new"]
    known["new"] = Price(input=3)
    now += 60
    assert [prices.of("new"), prices.of("new")] == [Price(input=3)] * 2
    assert asked == ["new", "new"]


def test_a_table_that_raises_is_asked_again():
    asked = 0

    class Table:
        def price_of(self, _model: str, /) -> Price | None:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise ConnectionError
            return Price(input=1)

    prices = Prices(Table())
    assert [prices.of("m"), prices.of("m")] == [None, Price(input=1)]


@pytest.mark.parametrize("wrong", [ZeroDivisionError(), 0.15, (1, 2)])
def test_a_table_that_misbehaves_is_no_price_and_is_said_once(wrong: Any, caplog: pytest.LogCaptureFixture):
    class Table:
        def price_of(self, model: str, /) -> Any:
            if isinstance(wrong, Exception):
                raise wrong
            return wrong

    with caplog.at_level(logging.WARNING):
        prices = Prices(Table())
        assert [prices.of("m"), prices.of("m"), prices.of("n")] == [None] * 3
    assert len(caplog.records) == 1
    assert "price table" in caplog.text


@pytest.mark.parametrize(
    "make",
    [
        lambda: Price(input=-1.0),
        lambda: Price(input=float("nan")),
        lambda: Price(input=True),
        lambda: Price(input="0.15"),  # type: ignore[arg-type]
        lambda: Price(input=1.0, output=float("inf")),
        lambda: Prices({"m": 0.15}),  # type: ignore[dict-item]
        lambda: Prices(object()),  # type: ignore[arg-type]
        lambda: ResponseCache.from_url("redis://localhost", prices={"m": 1}),  # type: ignore[dict-item]
    ],
)
def test_what_is_no_price_is_said_at_once(make: Any):
    with pytest.raises(ConfigError, match="price"):
        make()


def test_a_model_registered_with_litellm_has_its_price():
    code = """
import litellm
litellm.register_model({"in-house": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}})
from llmcache_plugins.prices import Prices
print(Prices().of("in-house"))
"""
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert "Price(input=1.0, output=2.0)" in said.stdout


def test_asking_for_a_price_imports_no_framework_and_without_litellm_there_is_none():
    code = """
import sys
from llmcache_plugins.prices import Prices
print(Prices().of("gpt-4o-mini") is not None, "litellm" in sys.modules)
"""
    alone = "import importlib.util, sys\nimportlib.util.find_spec = lambda name: None\n" + code
    said = [
        subprocess.run([sys.executable, "-c", one], capture_output=True, text=True, check=True).stdout.split()
        for one in (code, alone)
    ]
    assert said == [["True", "False"], ["False", "False"]]
