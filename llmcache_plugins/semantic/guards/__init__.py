"""Guards: whether one answer serves two questions that are worded differently.

A vector says how near two texts are, not whether a number, a name, a "not" or the order of the words makes
the difference. The guards read each text once (`profile_of`) and judge pairs of what they read
(`Guards.judge`), in pure Python, without a model. They know English and nothing of caches, vectors or Redis.
"""

from llmcache_plugins.semantic.guards.guards import Guard, Guards, Verdict, Veto, nearness
from llmcache_plugins.semantic.guards.profile import Profile, profile_of

__all__ = ["Guard", "Guards", "Profile", "Verdict", "Veto", "nearness", "profile_of"]
