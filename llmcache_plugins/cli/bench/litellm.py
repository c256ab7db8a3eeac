"""LiteLLM with a cache, or with none, for as long as a load lasts. Imports it, which takes seconds."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

# Without it LiteLLM downloads its price list when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

import litellm

from llmcache_plugins.adapters.litellm import LiteLLMCache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from llmcache_plugins.cache import ResponseCache

__all__ = ["litellm_with"]


@contextmanager
def litellm_with(cache: ResponseCache | None) -> Iterator[Callable[..., Awaitable[Any]]]:
    """Give LiteLLM's `acompletion`; the process is this load's own."""
    ours = None if cache is None else LiteLLMCache(cache)
    litellm.suppress_debug_info = True
    litellm.cache = ours
    try:
        yield litellm.acompletion
    finally:
        litellm.cache = None
        if ours is not None:
            ours.close()
