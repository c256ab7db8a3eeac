"""Which normalizers a sample of requests asks for: what makes requests differ that are otherwise equal."""

from llmcache_plugins.suggest.advice import Advice, RuleAdvice, suggest, winning_rules
from llmcache_plugins.suggest.volatile import Volatile

__all__ = ["Advice", "RuleAdvice", "Volatile", "suggest", "winning_rules"]
