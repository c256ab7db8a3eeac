"""Answers to questions that were asked in other words: what is known of texts, and how far it is trusted.

The only home of `numpy`. Knows no cache, no repository and no framework.
"""
