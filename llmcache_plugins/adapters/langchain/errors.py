"""The class of error that a model would have raised, for one that another process was given."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from llmcache_plugins.errors import SharedProviderError

__all__ = ["own_error"]


def own_error(model: BaseChatModel, shared: SharedProviderError) -> Exception | None:
    """Return the error that models on the OpenAI SDK raise; None for all others. Never raises.

    Newer versions of langchain-openai have classes of their own, each derived from one of the SDK's.
    """
    client = getattr(model, "root_async_client", None)
    if client is None or "openai" not in sys.modules:
        return None
    with suppress(Exception):
        from llmcache_plugins.providers.openai import OpenAIProvider

        error: Any = OpenAIProvider(client).error_of(shared)
        if error is None or type(error).__name__ == shared.error_class:
            return cast("Exception | None", error)
        if (named := _class_of(model, shared.error_class, type(error))) is not None:
            known = {"response": error.response, "body": None} if hasattr(error, "response") else {}
            own: Exception = named(str(shared), **known) if known else named(request=error.request)
            return own
    return None


def _class_of(model: BaseChatModel, name: str, base: type[Exception]) -> Any:
    """Return the class of that name beside one of the model's own classes."""
    for kind in type(model).__mro__:
        found = getattr(sys.modules.get(kind.__module__), name, None)
        if isinstance(found, type) and issubclass(found, base):
            return found
    return None
