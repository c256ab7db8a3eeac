"""`llmcache demo`: `verb` has the options, `run` the order of events, the others one part each."""

from llmcache_plugins.cli.demo.verb import demo

__all__ = ["demo"]
