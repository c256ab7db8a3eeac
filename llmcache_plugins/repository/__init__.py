"""Everything that talks to a server. The only floor that imports redis."""

from llmcache_plugins.repository.repository import ResponseRepository, new_token

__all__ = ["ResponseRepository", "new_token"]
