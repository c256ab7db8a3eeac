"""Whether a stored answer, of whatever kind, asks for something to be done."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmcache_plugins.answers.texts import tree_of

if TYPE_CHECKING:
    from llmcache_plugins.models import EncodedAnswer

__all__ = ["calls_a_tool"]

# OpenAI and LangChain; Gemini; Bedrock. Without underscores, in lower case.
_FIELDS = frozenset(
    {
        "functioncall",
        "functioncalls",
        "invalidtoolcalls",
        "toolcall",
        "toolcallchunks",
        "toolcalls",
        "tooluse",
    }
)
# OpenAI's Responses (function_call, apply_patch_call, ...), Anthropic (tool_use, server_tool_use).
_TYPES = re.compile(r"(?:_call|_use|^mcp_approval_request|^non_standard|^tool_call_chunk)$")


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
            if isinstance(kind, str) and _TYPES.search(kind):
                return True
            if any(inner and _plain(name) in _FIELDS for name, inner in value.items()):
                return True
            waiting.extend(value.values())
    return tree is None


def _plain(name: object) -> str:
    return str(name).replace("_", "").lower()
