"""Warming: a cache filled up front, as fast as the provider allows, and without paying for anything twice.

Owns what comes before and after the call: which queries are still to be answered, when the next call may
begin, which failure is tried again, what it costs and when to stop. The call itself is the gateway's,
with its leases: whoever warms at the same time pays once. Knows nothing of frameworks, files or
terminals.
"""

from llmcache_plugins.warming.estimating import SeedEstimate, estimate_seed
from llmcache_plugins.warming.lines import Line
from llmcache_plugins.warming.report import SeedFailure, SeedReport
from llmcache_plugins.warming.seeding import seed_cache

__all__ = ["Line", "SeedEstimate", "SeedFailure", "SeedReport", "estimate_seed", "seed_cache"]
