"""Which request LiteLLM sends for the arguments of a call: one spelling for all that mean the same.

`openai/gpt-4o-mini` at LiteLLM is `gpt-4o-mini` at OpenAI, so both have one key. Owns how a model is named,
and what the module's settings and the environment add for OpenAI's API. Other providers' settings in the
environment are not looked at. Changes nothing that it is given.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import litellm

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["default_base", "request_of"]

_OPENAI = frozenset({"openai", "text-completion-openai"})
_NAMED_IN = ("headers", "custom_llm_provider", "model", "extra_headers")


def request_of(query: Mapping[str, Any], *, own_ids: bool = False) -> dict[str, Any]:
    """Return the arguments of a call as the request they amount to.

    `own_ids`: LiteLLM writes ids of its own into the answer, so it is not the one that OpenAI's SDK gets.
    """
    request = {name: value for name, value in query.items() if name not in _NAMED_IN}
    request["model"], is_openai = _model_of(query)
    if own_ids:
        request["custom_llm_provider"] = "litellm"
    if (headers := _headers_of(query)) is not None:
        request["extra_headers"] = headers
    defaults = _defaults_of_openai(query) if is_openai else {"api_base": default_base(query)}
    for name, value in defaults.items():
        if request.get(name) is None:
            request[name] = value
    return request


def default_base(query: Mapping[str, Any]) -> Any:
    """Return the module's `api_base` if the arguments name no other."""
    return None if query.get("api_base") or query.get("base_url") else getattr(litellm, "api_base", None)


def _model_of(query: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the model with its provider, which goes without saying if it is OpenAI; and whether it is."""
    model, provider = query.get("model"), query.get("custom_llm_provider")
    if not isinstance(model, str) or not isinstance(provider, str | None):
        return model, False
    aliases = getattr(litellm, "model_alias_map", None) or {}
    base = query.get("api_base") or query.get("base_url")
    return _named(aliases.get(model, model), provider, base if isinstance(base, str) else None)


@lru_cache(maxsize=1024)
def _named(model: str, provider: str | None, base: str | None) -> tuple[str, bool]:
    try:
        name, provider, *_ = litellm.get_llm_provider(model, custom_llm_provider=provider, api_base=base)
    except Exception:  # noqa: BLE001 - a model that LiteLLM does not know: it says so itself when it is asked
        return f"{provider}/{model}" if provider else model, False
    if provider in _OPENAI:
        return name, True
    return f"{provider}/{name}", False


def _headers_of(query: Mapping[str, Any]) -> Any:
    headers = query.get("headers") or getattr(litellm, "headers", None)
    extra = query.get("extra_headers")
    return {**headers, **(extra or {})} if headers else extra


def _defaults_of_openai(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return where LiteLLM, and the SDK it uses, finds what the arguments do not say."""
    environ = os.environ.get
    base = None
    if not (query.get("api_base") or query.get("base_url")):
        base = default_base(query) or environ("OPENAI_BASE_URL") or environ("OPENAI_API_BASE")
    organization = getattr(litellm, "organization", None) or environ("OPENAI_ORGANIZATION")
    found = {
        "api_base": base,
        "organization": organization or environ("OPENAI_ORG_ID"),
        "project": environ("OPENAI_PROJECT_ID"),
    }
    return {name: value for name, value in found.items() if value}
