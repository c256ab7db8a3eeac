"""The kinds of answers to one request: each has a shape of its own, and so keys of its own."""

from __future__ import annotations

import enum

__all__ = ["Kind"]


class Kind(enum.StrEnum):
    """Part of the key. Those that begin with "openai" are shared by the gateway's providers and LiteLLM."""

    PLAIN = "plain"
    """What callables return: text and JSON-like data."""
    CHAT = "openai.chat"
    COMPLETIONS = "openai.completions"
    RESPONSES = "openai.responses"
    EMBEDDINGS = "openai.embeddings"
    EMBEDDING = "litellm.embedding"
    """One input of a list: LiteLLM asks for each, and calls for those that are missing."""
    RERANK = "litellm.rerank"
    TRANSCRIPTION = "litellm.transcription"
    MESSAGES = "anthropic.messages"
    MESSAGE_EVENTS = "anthropic.messages.events"
    """A stream of Anthropic's: LiteLLM keeps the events as they came, and cannot make them from a message."""
