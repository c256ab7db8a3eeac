"""Which request a call of LiteLLM amounts to: what counts of its arguments, and which kind of call it is.

Owns what LiteLLM and its router add to the arguments and no provider sees. How a model is spelled is with
LiteLLM's provider, so that a gateway finds what this face has stored. Changes nothing, knows no cache.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from llmcache_plugins.answers.kinds import Kind
from llmcache_plugins.providers.litellm_requests import request_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Nested", "Request", "Unfit", "metadata_of", "read"]

_KINDS: Final = {
    "acompletion": Kind.CHAT,
    "completion": Kind.CHAT,
    "atext_completion": Kind.COMPLETIONS,
    "text_completion": Kind.COMPLETIONS,
    "aresponses": Kind.RESPONSES,
    "responses": Kind.RESPONSES,
    "aembedding": Kind.EMBEDDING,
    "embedding": Kind.EMBEDDINGS,
    "arerank": Kind.RERANK,
    "rerank": Kind.RERANK,
    "atranscription": Kind.TRANSCRIPTION,
    "transcription": Kind.TRANSCRIPTION,
    "anthropic_messages": Kind.MESSAGES,
    "aanthropic_messages": Kind.MESSAGES,
}

_NOT_SENT: Final = frozenset(
    # Which function LiteLLM is in, and objects it hands down.
    {
        "aanthropic_messages",
        "arerank",
        "aresponses",
        "atranscription",
        "complete_response",
        "custom_prompt_dict",
        "litellm_params",
        "model_alias_map",
        "model_list",
        "original_function",
        "stream_response",
        "text_completion",
    }
    # Where to turn when it fails: what another model answers is not stored under this one's key.
    | {
        "attempted_targets",
        "context_window_fallback_dict",
        "fallback_depth",
        "fallbacks",
        "max_fallbacks",
        "original_model_group",
    }
    # What the cache is told.
    | {"ttl"}
    # What the router keeps beside a deployment.
    | {
        "allow_client_keepalive_override",
        "budget_duration",
        "cooldown_time",
        "default_api_key_rpm_limit",
        "default_api_key_tpm_limit",
        "enable_tag_filtering",
        "id",
        "keepalive_seconds",
        "max_budget",
        "order",
        "routing_strategy",
        "specific_deployment",
        "tag_regex",
        "tags",
        "tiered_pricing",
        "verbose",
        "weight",
    }
)
_PRICES: Final = ("cache_creation_input_", "cache_read_input_", "input_cost_", "output_cost_")
_NEVER_SENT: Final = ("_", *_PRICES)
"""How the names begin of what is LiteLLM's own, or a price."""
_OFF_UNLESS_SAID: Final = frozenset(
    {"merge_reasoning_content_in_choices", "use_in_pass_through", "use_litellm_proxy", "use_xai_oauth"}
)
"""Switches that the router and nested calls send along although they are off."""

_OF_A_PLACE: Final = frozenset(
    {
        "api_base",
        "api_version",
        "aws_bedrock_runtime_endpoint",
        "aws_region_name",
        "azure_scope",
        "base_url",
        "custom_llm_provider",
        "deployment_id",
        "litellm_credential_name",
        "organization",
        "region_name",
        "vertex_location",
        "vertex_project",
        "watsonx_region_name",
    }
)
"""What tells one deployment of a model group from the other."""

_OF_THE_PROXY: Final = "litellm.proxy.utils"
"""Without what this module needs, installed with LiteLLM's proxy, the end of such a replay raises."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked: of which kind, and the arguments that can change the answer."""

    kind: Kind
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unfit:
    """A call that is not to be cached, and why; completes "it ..."."""

    reason: str


class Nested:
    """The inner half of a call that LiteLLM makes through another of its functions; the outer one counts."""


def read(arguments: Mapping[str, Any], *, kind: Kind | None = None) -> Request | Unfit | Nested:
    """Return what a call of LiteLLM asks; `kind` is that of its answer, if there is one."""
    if arguments.get("text_completion") and "messages" in arguments:
        return Nested()
    kind = kind or _kind_of(arguments)
    if kind is None:
        return Unfit("is of a kind that is not cached")
    streams = bool(arguments.get("stream"))
    if streams and (arguments.get("n") or 1) != 1:
        return Unfit("streams several choices, and LiteLLM replays only the first")
    if streams and kind is Kind.MESSAGES:
        kind = Kind.MESSAGE_EVENTS
    if kind is Kind.MESSAGE_EVENTS and _OF_THE_PROXY not in sys.modules:
        return Unfit("streams Anthropic's messages, which only LiteLLM's proxy can replay")
    body = {name: value for name, value in arguments.items() if _counts(name, value)}
    if kind is Kind.TRANSCRIPTION:
        body["file"] = _content_of(arguments)
        if body["file"] is None:
            return Unfit("sends a file that cannot be read twice")
    return Request(kind=kind, body=_routed(arguments, body, kind))


def metadata_of(arguments: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what LiteLLM's router and proxy say of a call, the surest first."""
    names = ("litellm_metadata", "metadata")
    found: list[Mapping[str, Any]] = [said for name in names if isinstance(said := arguments.get(name), dict)]
    about = arguments.get("model_info")
    if len(found) > 1 and about:
        # In some calls `metadata` is the application's own.
        found.sort(key=lambda one: one.get("model_info") != about)
    return found


def _counts(name: str, value: Any) -> bool:
    if value is None or name in _NOT_SENT or name.startswith(_NEVER_SENT):
        return False
    return name not in _OFF_UNLESS_SAID or bool(value)


def _kind_of(arguments: Mapping[str, Any]) -> Kind | None:
    name = _function_of(arguments)
    if name is not None:
        return _KINDS.get(name)
    # Asked by somebody else than LiteLLM's own functions.
    for parameter, kind in (("messages", Kind.CHAT), ("prompt", Kind.COMPLETIONS), ("input", Kind.RESPONSES)):
        if parameter in arguments:
            return kind
    return None


def _function_of(arguments: Mapping[str, Any]) -> str | None:
    """Return the name of the function that was called: of the inner one, where it calls another."""
    logging = arguments.get("litellm_logging_obj")
    handler = getattr(logging, "llm_caching_handler", None) or getattr(logging, "_llm_caching_handler", None)
    function = getattr(handler, "original_function", None)
    name = getattr(function, "__name__", None) or getattr(logging, "call_type", None)
    return name if isinstance(name, str) else None


def _routed(arguments: Mapping[str, Any], body: dict[str, Any], kind: Kind) -> dict[str, Any]:
    group = _group_of(arguments)
    if group is None:
        return request_of(body, own_ids=kind is Kind.RESPONSES)
    kept = {name: value for name, value in body.items() if name not in _OF_A_PLACE}
    return {**kept, "model": group, "litellm_router": True}


def _group_of(arguments: Mapping[str, Any]) -> Any:
    """Return the group of models that the router was asked for: any deployment of it may answer."""
    for said in metadata_of(arguments):
        if (group := said.get("model_group")) is not None:
            shared = said.get("caching_groups") or ()
            return next((list(groups) for groups in shared if group in groups), group)
    return None


def _content_of(arguments: Mapping[str, Any]) -> str | None:
    """Return a digest of the file that is sent: its name says nothing of what is in it."""
    for said in metadata_of(arguments):
        if isinstance(digest := said.get("file_checksum"), str):
            return digest
    file = arguments.get("file")
    content = file[1] if isinstance(file, tuple) and len(file) > 1 else file
    try:
        data = _bytes_of(content)
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    return hashlib.sha256(data).hexdigest()


def _bytes_of(content: Any) -> bytes:
    if isinstance(content, bytes | bytearray):
        return bytes(content)
    if isinstance(content, str | os.PathLike):
        return Path(content).read_bytes()
    position = content.tell()
    try:
        content.seek(0)
        return bytes(content.read())
    finally:
        content.seek(position)
