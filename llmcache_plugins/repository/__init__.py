"""Everything that talks to a server. The only floor that imports redis."""

from llmcache_plugins.repository.leases import Acquired, Ask, Leases, new_token
from llmcache_plugins.repository.repository import ResponseRepository
from llmcache_plugins.repository.wakes import Ear

__all__ = ["Acquired", "Ask", "Ear", "Leases", "ResponseRepository", "new_token"]
