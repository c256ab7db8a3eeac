"""What the LangChain part plays: its texts, and how many calls that is at most.

Imports nothing of LangChain, which may not be there: `langchain` plays the scenes.
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = [
    "AGENT_QUESTION",
    "AGENT_STEPS",
    "BURST_QUESTION",
    "PLAYS",
    "STREAMS",
    "STREAM_QUESTION",
    "SYSTEM",
    "TURNS",
    "burst_callers",
    "is_installed",
    "most_calls",
]

SYSTEM = "You are the support assistant of a shop that rents e-bikes. Answer in one short sentence."
TURNS = (
    "How long is the notice period?",
    "Can I send it by mail?",
    "Thank you. What happens to my deposit?",
)
AGENT_QUESTION = "Search the help pages for the opening hours of the hub in Lyon, and tell me what they say."
STREAM_QUESTION = "What does the theft insurance cover?"
BURST_QUESTION = "Is a helmet included?"

PLAYS = 2
"""How often the chat and the agent are run."""
AGENT_STEPS = 2
"""Calls of one run: one that calls the tool, one that answers."""
STREAMS = 5
"""So many streams at once, and as many one after the other."""

_COLUMNS = 3
"""Without a cache, with LangChain's own, with this one."""
_CALLERS, _CALLERS_OF_A_REAL_ONE = 50, 10


def is_installed() -> bool:
    """Return whether what the part needs is there, without importing it: that takes seconds."""
    return all(find_spec(name) is not None for name in ("langchain_core", "langchain_openai"))


def burst_callers(*, is_stand_in: bool) -> int:
    """Return how many ask one thing at once. Few for a real provider, which may limit the rate."""
    return _CALLERS if is_stand_in else _CALLERS_OF_A_REAL_ONE


def most_calls(*, is_stand_in: bool) -> int:
    """Return how many provider calls the whole part makes if no cache saves one."""
    chat, agent, stream = PLAYS * len(TURNS), PLAYS * AGENT_STEPS, 2 * STREAMS
    return _COLUMNS * (chat + agent + stream + burst_callers(is_stand_in=is_stand_in))
