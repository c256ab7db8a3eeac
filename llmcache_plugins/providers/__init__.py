"""Ready providers for `InferenceGateway`: what calls the model, and how its answers are kept.

Owns nothing but the names: each provider imports its SDK when it is first asked for, so that importing this
package costs no SDK and needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmcache_plugins.providers.litellm import LiteLLMProvider
    from llmcache_plugins.providers.openai import OpenAIProvider

__all__ = ["LiteLLMProvider", "OpenAIProvider"]

_HOMES = {"LiteLLMProvider": "litellm", "OpenAIProvider": "openai"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
