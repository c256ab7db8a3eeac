"""What of a chat can change its answer: the normal form of messages and settings.

Owns the closed lists of what cannot, each name with its reason. `keys` reads it from LangChain's strings,
`description` from the objects themselves. Pure, and imports nothing of LangChain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmcache_plugins.signature import LEFT_OUT_HEADERS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONNECTIONS", "DELIVERY", "MACHINERY", "ROLES", "normal_message", "significant"]

# How long to try and how the answer travels, as settings of a model and as arguments of a call; the first
# five are `signature.LEFT_OUT`'s too. langchain-openai: `stream_usage`, `stream_chunk_timeout`;
# langchain-anthropic: `default_request_timeout`; langchain-core, BaseChatModel: `disable_streaming`.
DELIVERY = frozenset(
    {
        "max_retries",
        "request_timeout",
        "stream",
        "stream_options",
        "timeout",
        "default_request_timeout",
        "disable_streaming",
        "stream_chunk_timeout",
        "stream_usage",
        "streaming",
    }
)
# Fields of every Runnable and BaseLanguageModel (langchain-core, language_models/base.py): for traces, never
# sent. Only in a constructor: as an argument of a call, or in the settings of a model that is not
# serialisable, the same words may mean anything.
MACHINERY = frozenset({"cache", "callbacks", "metadata", "name", "tags", "verbose"})
# Objects that connect or vouch, and choose nothing. What they are made from are settings of their own.
CONNECTIONS = frozenset(
    {
        "async_client",
        "azure_ad_async_token_provider",
        "azure_ad_token_provider",
        "client",
        "credentials",
        "http_async_client",
        "http_client",
        "rate_limiter",
    }
)
# langchain-openai and langchain-anthropic, langchain-openai's calls, langchain-google-genai.
_HEADERS = frozenset({"additional_headers", "default_headers", "extra_headers"})

# langchain-core, messages: by the names of the classes.
ROLES = {
    f"{stem}Message{chunk}": role
    for chunk in ("", "Chunk")
    for stem, role in {
        "AI": "ai",
        "Chat": "chat",
        "Function": "function",
        "Human": "human",
        "System": "system",
        "Tool": "tool",
    }.items()
}
# What a message carries for the application. `id`: new for each message, 0.3 leaves it in. `usage_metadata`:
# a hit's has another `total_cost`. `chunk_position`: where in a stream it was.
_NOT_SENT = frozenset({"chunk_position", "id", "response_metadata", "usage_metadata"})
# Except for these two, which choose how content blocks are translated when the message is sent again
# (langchain-anthropic `_get_request_payload`, langchain-aws `_messages_to_bedrock`, langchain-google-genai).
_TRANSLATION = ("model_provider", "output_version")
# Fields that are written or not written when empty, as it happens.
_NOTHING_IF_EMPTY = frozenset({"additional_kwargs", "invalid_tool_calls", "tool_call_chunks", "tool_calls"})


def normal_message(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the normal form of a message, from the name of its class and its fields.

    Who says it, and what is sent. A class of the application keeps its name, and its fields mean what it
    likes.
    """
    role = ROLES.get(name, name)
    fields = {key: value for key, value in given.items() if not _is_silent(key, value)}
    if fields.get("type") in (role, name) and name in ROLES:
        del fields["type"]
    if role == "tool":
        # "Artifact of the Tool execution which is not meant to be sent to the model" (messages/tool.py).
        fields.pop("artifact", None)
    if role == "ai":
        _unify_ai(fields, given)
    return {"role": role, "kwargs": _with_said_extras(fields)}


def _is_silent(key: str, value: Any) -> bool:
    return key in _NOT_SENT or value is None or (key in _NOTHING_IF_EMPTY and not value)


def _unify_ai(fields: dict[str, Any], given: dict[str, Any]) -> None:
    """Make one of the forms in which an answer comes back: fresh, from a stream, from a cache."""
    if "tool_calls" in fields or "invalid_tool_calls" in fields:
        # These were made from the chunks, and are what is sent.
        fields.pop("tool_call_chunks", None)
    if isinstance(fields.get("content"), list):
        # Where a block was in the stream, that of a v1 message too.
        fields["content"] = [_without_index(block) for block in fields["content"]]
    extras = fields.get("additional_kwargs")
    if isinstance(extras, dict):
        # The content once more, as an object of the application.
        fields["additional_kwargs"] = {key: value for key, value in extras.items() if key != "parsed"}
    metadata = given.get("response_metadata")
    if isinstance(metadata, dict):
        translation = {key: metadata[key] for key in _TRANSLATION if metadata.get(key) is not None}
        if translation:
            fields["response_metadata"] = translation


def _without_index(block: Any) -> Any:
    if not isinstance(block, dict) or "index" not in block:
        return block
    return {name: value for name, value in block.items() if name != "index"}


def _with_said_extras(fields: dict[str, Any]) -> dict[str, Any]:
    """Drop what `additional_kwargs` says nothing of, such as `refusal: null`."""
    extras = fields.pop("additional_kwargs", None)
    if isinstance(extras, dict):
        extras = {key: value for key, value in extras.items() if value is not None}
    return {**fields, "additional_kwargs": extras} if extras else fields


def significant(settings: Mapping[str, Any], left_out: frozenset[str]) -> dict[str, Any]:
    """Return the settings that can change an answer, without those left out and without credentials."""
    # None stays: as an argument it hides the model's own setting, which is not the same as saying nothing.
    kept = {name: _kept(name, value) for name, value in settings.items() if name not in left_out}
    return {name: value for name, value in kept.items() if value != {} or name not in _HEADERS}


def _kept(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if name in _HEADERS:
        return _kept_headers(value)
    if name == "model_kwargs":
        # Arguments for each call, given to the model.
        return {key: _kept(key, inner) if key in _HEADERS else inner for key, inner in value.items()}
    return value


def _kept_headers(headers: dict[Any, Any]) -> dict[Any, Any]:
    """Drop credentials and the names of calls, as everywhere else."""
    kept = {name: value for name, value in headers.items() if str(name).lower() not in LEFT_OUT_HEADERS}
    # RFC 9110, 5.1: the names of fields are case-insensitive. Of two alike both stay, as they are.
    lowered = {str(name).lower(): value for name, value in kept.items()}
    return lowered if len(lowered) == len(kept) else kept
