"""What the parts with a framework play: their texts, and how many calls that is at most.

Imports no framework, which may not be there: `langchain` and `litellm` play the scenes.
"""

from __future__ import annotations

from importlib.util import find_spec

__all__ = [
    "AGENT_QUESTION",
    "AGENT_STEPS",
    "BURST_QUESTION",
    "CALLERS",
    "EMBEDDING_MODEL",
    "LANGCHAIN",
    "LITELLM",
    "PLAYS",
    "REPLAYS",
    "ROUTER_QUESTION",
    "STREAMS",
    "STREAM_QUESTION",
    "SYSTEM",
    "TEXTS",
    "TURNS",
    "burst_callers",
    "frameworks",
    "most_calls",
]

LANGCHAIN, LITELLM = "LangChain", "LiteLLM"

SYSTEM = "You are the support assistant of a shop that rents e-bikes. Answer in one short sentence."
TURNS = (
    "How long is the notice period?",
    "Can I send it by mail?",
    "Thank you. What happens to my deposit?",
)
AGENT_QUESTION = "Search the help pages for the opening hours of the hub in Lyon, and tell me what they say."
STREAM_QUESTION = "What does the theft insurance cover?"
BURST_QUESTION = "Is a helmet included?"
ROUTER_QUESTION = "Do you rent cargo bikes?"
TEXTS = (
    ("notice period", "deposit", "helmet"),
    ("helmet", "insurance", "deposit"),
)
"""Lists of texts to embed; the second one knows two of its three from the first."""
EMBEDDING_MODEL = "stand-in-embedding"

PLAYS = 2
"""How often the chat, the agent and the embeddings are run."""
AGENT_STEPS = 2
"""Calls of one run: one that calls the tool, one that answers."""
STREAMS = 5
"""So many streams at once, and with LangChain as many one after the other."""
CALLERS = 10
"""So many callers of LiteLLM at once."""
REPLAYS = 2
"""With LiteLLM so many streams one after the other: it takes a millisecond for each chunk."""

_COLUMNS = 3
"""Without a cache, with the framework's own, with this one."""
_CALLERS, _CALLERS_OF_A_REAL_ONE = 50, 10
_NEEDS = {LANGCHAIN: ("langchain_core", "langchain_openai"), LITELLM: ("litellm",)}


def frameworks() -> tuple[str, ...]:
    """Return those that are installed, without importing them: that takes seconds."""
    return tuple(name for name, needs in _NEEDS.items() if all(find_spec(one) is not None for one in needs))


def burst_callers(*, is_stand_in: bool) -> int:
    """Return how many ask LangChain one thing at once. Few for a real provider, which may limit the rate."""
    return _CALLERS if is_stand_in else _CALLERS_OF_A_REAL_ONE


def most_calls(framework: str, *, is_stand_in: bool) -> int:
    """Return how many provider calls a framework's part makes if no cache saves one."""
    chat = PLAYS * len(TURNS)
    if framework == LANGCHAIN:
        callers = burst_callers(is_stand_in=is_stand_in)
        return _COLUMNS * (chat + PLAYS * AGENT_STEPS + 2 * STREAMS + callers)
    # Which model of a real provider embeds, the demo is not told.
    lists = PLAYS * len(TEXTS) if is_stand_in else 0
    return _COLUMNS * (chat + lists + 2 * CALLERS + STREAMS + REPLAYS)
