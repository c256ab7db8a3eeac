"""What a cache would have saved: a log of calls, reckoned by the rules of the cache. Pure; asks nobody."""

from llmcache_plugins.estimate.amounts import (
    Amount,
    Estimate,
    Mechanism,
    RuleFigures,
    ScenarioFigures,
    SemanticFigures,
    Times,
)
from llmcache_plugins.estimate.calls import LeftOut, LoggedCall, Unreadable, kind_of
from llmcache_plugins.estimate.estimating import Estimator, estimate

__all__ = [
    "Amount",
    "Estimate",
    "Estimator",
    "LeftOut",
    "LoggedCall",
    "Mechanism",
    "RuleFigures",
    "ScenarioFigures",
    "SemanticFigures",
    "Times",
    "Unreadable",
    "estimate",
    "kind_of",
]
