"""The class of error that a model would have raised, for one that another process was given."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from llmcache_plugins.errors import SharedProviderError

__all__ = ["own_error"]


def own_error(model: BaseChatModel, shared: SharedProviderError) -> Exception | None:
    """Return the OpenAI SDK's error for models that use it; None for all others. Never raises."""
    client = getattr(model, "root_async_client", None)
    if client is None or "openai" not in sys.modules:
        return None
    with suppress(Exception):
        from llmcache_plugins.providers.openai import OpenAIProvider

        return OpenAIProvider(client).error_of(shared)
    return None
