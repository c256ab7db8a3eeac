"""Whether a stored answer, of whatever kind, asks for something to be done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcache_plugins.answers.texts import tree_of

if TYPE_CHECKING:
    from llmcache_plugins.models import EncodedAnswer

__all__ = ["calls_a_tool"]

_FIELDS = ("tool_calls", "invalid_tool_calls", "function_call", "tool_call_chunks")
# OpenAI's Responses, Anthropic, LangChain's content blocks.
_TYPES = frozenset(
    {
        "computer_call",
        "custom_tool_call",
        "function_call",
        "local_shell_call",
        "mcp_approval_request",
        "non_standard",
        "server_tool_use",
        "shell_call",
        "tool_call",
        "tool_use",
    }
)


def calls_a_tool(encoded: EncodedAnswer) -> bool:
    """Say whether an answer calls a tool or a function. What cannot be read might."""
    tree = tree_of(encoded)
    waiting: list[Any] = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            kind = value.get("type")
            if any(value.get(name) for name in _FIELDS) or (isinstance(kind, str) and kind in _TYPES):
                return True
            waiting.extend(value.values())
    return tree is None
