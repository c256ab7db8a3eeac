"""What may be stored, for how long, and what may be served after that. Pure decisions: no I/O."""

from llmcache_plugins.policy.admission import Refusal, admit
from llmcache_plugins.policy.freshness import Freshness, freshness_of
from llmcache_plugins.policy.policy import LONGEST_TTL, CachePolicy, check_ttl, effective_ttl
from llmcache_plugins.policy.router import Chooser, PolicyRouter, as_policy

__all__ = [
    "LONGEST_TTL",
    "CachePolicy",
    "Chooser",
    "Freshness",
    "PolicyRouter",
    "Refusal",
    "admit",
    "as_policy",
    "check_ttl",
    "effective_ttl",
    "freshness_of",
]
