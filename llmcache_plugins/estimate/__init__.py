"""What a cache would have saved: a log of calls, reckoned by the rules of the cache. Pure; asks nobody."""

from llmcache_plugins.estimate.amounts import (
    Amount,
    Estimate,
    Mechanism,
    RuleFigures,
    ScenarioFigures,
    SemanticFigures,
    Timeline,
    Times,
)
from llmcache_plugins.estimate.calls import LeftOut, LoggedCall, Unreadable, kind_of
from llmcache_plugins.estimate.estimating import Estimator
from llmcache_plugins.estimate.logs import BadLine, LogReader

__all__ = [
    "Amount",
    "BadLine",
    "Estimate",
    "Estimator",
    "LeftOut",
    "LogReader",
    "LoggedCall",
    "Mechanism",
    "RuleFigures",
    "ScenarioFigures",
    "SemanticFigures",
    "Timeline",
    "Times",
    "Unreadable",
    "kind_of",
]
