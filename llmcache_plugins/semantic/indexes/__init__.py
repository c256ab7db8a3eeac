"""Indexes that find stored questions near to one that is asked."""

from llmcache_plugins.semantic.indexes.choosing import IndexName, check_index_name, choose
from llmcache_plugins.semantic.indexes.numpy_index import NumpyIndex
from llmcache_plugins.semantic.indexes.seam import Neighbour, VectorIndex, VectorStore
from llmcache_plugins.semantic.indexes.server_index import ServerIndex

__all__ = [
    "IndexName",
    "Neighbour",
    "NumpyIndex",
    "ServerIndex",
    "VectorIndex",
    "VectorStore",
    "check_index_name",
    "choose",
]
