"""`llmcache calibrate`: which threshold a wanted error rate asks for, by labelled pairs."""

from llmcache_plugins.cli.calibrate.verb import calibrate

__all__ = ["calibrate"]
