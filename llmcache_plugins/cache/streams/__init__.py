"""Streams: passed on as they come, to everybody who waits for the same one, and stored at their clean end.

    provider --> pump --> broadcast --> readers in this process
                  |
                  `--> publisher --> Redis --> tail --> broadcast --> readers in another

An interrupted stream is never an entry: not when the provider breaks off, nor when the last reader leaves.
"""

from llmcache_plugins.cache.streams.streamer import Report, Streamer

__all__ = ["Report", "Streamer"]
