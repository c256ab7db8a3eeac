"""What is wrong with a Redis for this cache, why, and how to fix it. Pure: facts in, findings out."""

from llmcache_plugins.diagnosis.checks import diagnose
from llmcache_plugins.diagnosis.facts import NodeFacts, Refusal, ServerFacts
from llmcache_plugins.diagnosis.finding import Finding, Level

__all__ = ["Finding", "Level", "NodeFacts", "Refusal", "ServerFacts", "diagnose"]
